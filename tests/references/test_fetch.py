"""Which references are fetched and which are not."""

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.references.conftest import (
    NOT_FETCHED,
    PNG,
    PRIVATE_HOSTS,
    PUBLIC,
    URL,
    Web,
    load,
    read_refusal,
)
from tests.support.fakes import Names
from tests.support.servers import Canary, canary_with, https_server
from videogen.addresses import resolve_host
from videogen.certificates import VARIABLES
from videogen.errors import SettingsError, ValidationError
from videogen.job.model import display_name
from videogen.references import fetch as references
from videogen.references.fetch import load_references

pytestmark = pytest.mark.integration

# --- the network: what is refused before anything connects


ODD_URLS = [
    "https://xn--0.com",
    "https://xn--0.com/keeper.png",
    "https://xn--a.com/keeper.png",
    "https://pictures.example:99999/keeper.png",
    "https://pictures.example:0/keeper.png",
    "https://pictures.example:abc/keeper.png",
    "https://pictures.example:-1/keeper.png",
    "https://[::1/keeper.png",
    "https://[pictures]/keeper.png",
    "https://exa\u200bmple.com/keeper.png",
    "https://\ud800.com/keeper.png",
    "https:///keeper.png",
    "https://:443/keeper.png",
    "https://pictures.example/\x00",
    "https://" + "a" * 70 + ".com/keeper.png",
    "https://pictures..example/keeper.png",
    "https://%00/keeper.png",
    "https://" + "a" * 70_000,
]


@pytest.mark.parametrize("source", ODD_URLS, ids=lambda source: ascii(source[:38]) + str(len(source)))
async def test_an_odd_url_is_a_problem_of_the_job(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said under its name, whatever part of it breaks what; nothing is asked."""
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    web = Web()
    assert re.search(
        "not a valid URL|is not known|without a host|the invalid port",
        await read_refusal(source, transport=web.transport()),
    )
    assert web.asked == []


@pytest.mark.parametrize("target", [url for url in ODD_URLS if url.isascii() and url.isprintable() and len(url) < 999])
async def test_a_redirect_to_an_odd_url_is_a_problem_of_the_job(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    web = Web(httpx.Response(302, headers={"Location": target}))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [PUBLIC] if host == "pictures.example" else await resolve_host(host, port)

    assert await read_refusal(URL, resolve=resolve, transport=web.transport())
    assert {str(request.url.host) for request in web.asked} == {PUBLIC}


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_a_companys_own_authority_is_trusted(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables that others honour, too; without one it is said which to set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    with https_server(tmp_path, PNG) as (url, authority):
        assert "SSL_CERT_FILE" in await read_refusal(f"{url}/keeper.png", allow_private=True)
        monkeypatch.setenv(variable, str(authority))
        assert (await load(f"{url}/keeper.png", allow_private=True)).width == 160


@pytest.mark.parametrize("variable", VARIABLES)
async def test_certificates_that_cannot_be_read_are_said_by_their_variable(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty.pem").touch()
    for place in ("missing.pem", "empty.pem"):
        monkeypatch.setenv(variable, str(tmp_path / place))
        with pytest.raises(SettingsError, match=rf"^{variable}: .*{place}"):
            await load(URL, resolve=Names([PUBLIC]))


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_behind_a_proxy_it_is_said_what_to_do(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the name is not known here, and when nobody answers; without a proxy nothing is said of one."""
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)

    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    web = Web(httpx.ConnectTimeout("no answer"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert "proxy" not in await read_refusal(URL, resolve=unknown)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for options in ({"resolve": unknown}, {"resolve": Names([PUBLIC]), "transport": web.transport()}):
        said = await read_refusal(URL, **options)
        assert f"{variable} is set, but pictures are not fetched through a proxy" in said


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A port on this machine that counts whoever connects to it."""
    with canary_with(PNG) as canary:
        yield canary


async def test_the_canary_would_notice(canary: Canary) -> None:
    """With leave to go inside, the same fetch arrives: the zeros below mean something."""
    reference = await load(f"http://127.0.0.1:{canary.port}/", allow_private=True)
    assert (reference.width, reference.height, reference.url) == (160, 80, None)
    assert canary.hits == 1


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
async def test_no_spelling_of_a_private_address_is_connected_to(canary: Canary, host: str) -> None:
    """Whatever a host is called, it is its addresses that count, and they are looked at before connecting."""
    message = await read_refusal(f"https://{host}:{canary.port}/keeper.png")
    assert re.search(r"not a public address|not a valid URL|is not known", message)
    assert canary.hits == 0


@pytest.mark.parametrize("source", NOT_FETCHED)
async def test_only_https_is_fetched(source: str) -> None:
    """Every other scheme is refused by its name, and nothing is looked up."""
    web, names = Web(), Names([PUBLIC])
    message = await read_refusal(source, resolve=names, transport=web.transport())
    assert f"{source.partition(':')[0].lower()}: URLs are not fetched" in message
    assert (web.asked, names.asked) == ([], [])


async def test_one_private_address_among_public_ones_is_enough(canary: Canary) -> None:
    """The connection might choose that one."""
    web = Web()
    message = await read_refusal(URL, resolve=Names([PUBLIC, "127.0.0.1"]), transport=web.transport())
    assert "127.0.0.1, not a public address" in message
    assert (web.asked, canary.hits) == ([], 0)


async def test_a_name_cannot_change_its_mind_after_the_check() -> None:
    """It is asked for once; the request goes to the address that was checked, under the name's Host and certificate."""
    web, names = Web(), Names([PUBLIC], ["127.0.0.1"])
    reference = await load(URL, resolve=names, transport=web.transport())
    (request,) = web.asked
    assert names.asked == [("pictures.example", 443)]
    assert (request.url.scheme, request.url.host, request.url.path) == ("https", PUBLIC, "/keeper.png")
    assert request.headers["Host"] == "pictures.example"
    assert request.extensions["sni_hostname"] == "pictures.example"
    assert reference.url == URL


async def test_a_redirect_is_checked_like_a_first_request(canary: Canary) -> None:
    """A public host cannot send us to a private one."""
    web = Web(httpx.Response(302, headers={"Location": f"https://127.0.0.1:{canary.port}/"}))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [PUBLIC] if host == "pictures.example" else ["127.0.0.1"]

    assert "not a public address" in await read_refusal(URL, resolve=resolve, transport=web.transport())
    assert (len(web.asked), canary.hits) == (1, 0)


@pytest.mark.parametrize("target", ["http://pictures.example/", "file:///etc/passwd", "ftp://pictures.example/"])
async def test_a_redirect_cannot_leave_https(target: str) -> None:
    """Neither to plain http nor to a file."""
    web = Web(httpx.Response(301, headers={"Location": target}))
    assert "URLs are not fetched" in await read_refusal(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert len(web.asked) == 1


async def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    """Relative ones too; a loop ends."""
    away = httpx.Response(307, headers={"Location": "/elsewhere"})
    web = Web(away, away, away, httpx.Response(200, content=PNG))
    assert (await load(URL, resolve=Names([PUBLIC]), transport=web.transport())).url == URL
    assert web.asked[-1].url.path == "/elsewhere"
    loop = Web(away)
    assert "more than 3 times" in await read_refusal(URL, resolve=Names([PUBLIC]), transport=loop.transport())
    assert len(loop.asked) == 4


async def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    """Neither sent nor printed."""
    source = "https://keeper:hunter2@pictures.example/keeper.png?token=s3cret#part"
    message = await read_refusal(source, resolve=Names([PUBLIC]), transport=Web().transport())
    assert "password" in message
    assert display_name(source) == "https://…@pictures.example/keeper.png?…"


async def test_proxies_of_the_environment_are_not_used(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect for us, to addresses nobody checked."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    await load(f"http://127.0.0.1:{canary.port}/", allow_private=True)
    assert canary.hits == 1


# --- the network: what comes back


@pytest.mark.parametrize(
    ("answer", "says", "asked"),
    [
        pytest.param(httpx.Response(404), "answered 404 Not Found", 1, id="404"),
        pytest.param(httpx.Response(503), "answered 503 Service Unavailable", 3, id="503-three-times"),
        pytest.param(httpx.ConnectError("refused"), "cannot be fetched: refused", 3, id="refused-three-times"),
        pytest.param(httpx.ReadTimeout("slow"), "no answer within", 3, id="stalled-three-times"),
        pytest.param(httpx.Response(200, content=b"<html>"), "not a PNG, JPEG or WEBP", 1, id="page"),
        pytest.param(
            httpx.Response(200, stream=httpx.ByteStream(b"x"), headers={"Content-Encoding": "gzip"}),
            "answered in 'gzip' encoding",
            1,
            id="gzip",
        ),
    ],
)
async def test_an_answer_that_is_no_picture_is_named(
    answer: httpx.Response | Exception, says: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may pass is tried again, what will not is not."""
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    web = Web(answer)
    assert says in await read_refusal(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert len(web.asked) == asked


async def test_a_fault_that_passes_is_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third answer counts."""
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    web = Web(httpx.ConnectError("reset"), httpx.Response(502), httpx.Response(200, content=PNG))
    assert (await load(URL, resolve=Names([PUBLIC]), transport=web.transport())).width == 160


async def test_the_next_address_is_tried_when_one_is_dead() -> None:
    """As a browser does."""
    web = Web(httpx.ConnectError("unreachable"), httpx.Response(200, content=PNG))
    await load(URL, resolve=Names([PUBLIC, "93.184.215.15"]), transport=web.transport())
    assert [request.url.host for request in web.asked] == [PUBLIC, "93.184.215.15"]


async def test_a_connection_serves_one_host_only() -> None:
    """Two hosts may share an address, but not a connection: its certificate was checked for the first alone."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(away if b"Host: one.example" in head else here)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    away = b"HTTP/1.1 302 Found\r\nLocation: http://two.example:%d/\r\nContent-Length: 0\r\n\r\n" % port
    here = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PNG) + PNG
    async with server:
        await load(f"http://one.example:{port}/", resolve=Names(["127.0.0.1"]), allow_private=True)
    assert connections == 2


async def test_an_endless_answer_is_cut_off() -> None:
    """At the cap, not when the memory is full."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1_000_000
            yield bytes(1_000_000)

    web = Web(httpx.Response(200, content=endless()))
    assert "more than 20 MB" in await read_refusal(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert sent <= 22_000_000


async def test_a_dripping_answer_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may come in time and the whole still take too long."""
    monkeypatch.setattr(references, "_FETCH_TIMEOUT_S", 0.2)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"."

    web = Web(httpx.Response(200, content=drip()))
    message = await asyncio.wait_for(read_refusal(URL, resolve=Names([PUBLIC]), transport=web.transport()), 5)
    assert "took longer than" in message


async def test_each_source_is_fetched_once_and_all_problems_come_together() -> None:
    """Scenes share references; a job's faults are told at once, in the order of the job."""
    web = Web()
    good = [URL, URL + "?2", URL]
    loaded = await load_references(good, base_dir=None, resolve=Names([PUBLIC]), transport=web.transport())
    assert (list(loaded), len(web.asked)) == ([URL, URL + "?2"], 2)
    with pytest.raises(ValidationError) as caught:
        await load_references(
            ["file:///a", URL, "data:x", "b.png"], base_dir=None, resolve=Names([PUBLIC]), transport=web.transport()
        )
    assert [problem.where for problem in caught.value.problems] == ["file:///a", "data:x,… (6 characters)", "b.png"]


async def test_at_most_eight_are_fetched_at_once() -> None:
    """And not one after the other either."""
    running = most = 0

    async def slowly(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return httpx.Response(200, content=PNG)

    sources = [f"{URL}?{index}" for index in range(20)]
    await load_references(sources, base_dir=None, resolve=Names([PUBLIC]), transport=httpx.MockTransport(slowly))
    assert most == 8


# --- data: URLs


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("data:image/png;base64," + base64.b64encode(PNG).decode(), id="base64"),
        pytest.param("DATA:;base64," + base64.b64encode(PNG).decode(), id="no-type"),
        pytest.param("data:image/jpeg;base64," + base64.encodebytes(PNG).decode(), id="lines-and-wrong-type"),
        pytest.param("data:image/png," + "".join(f"%{byte:02x}" for byte in PNG), id="percent"),
    ],
)
async def test_a_data_url_holds_its_picture(source: str) -> None:
    """However it is written; the digest is that of the bytes, so the same picture is the same everywhere."""
    reference = await load(source)
    assert (reference.width, reference.height, reference.url) == (160, 80, None)
    assert reference.digest == hashlib.sha256(PNG).hexdigest()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("data:image/png;base64", "without a comma", id="no-comma"),
        pytest.param("data:image/png;base64,@@@@", "not base64", id="not-base64"),
        pytest.param("data:image/png;base64,aGVsbG8=", "not a PNG, JPEG or WEBP", id="text"),
        pytest.param("data:," + "x" * 20_000_001, "more than 20 MB", id="just-too-large"),
    ],
)
async def test_a_bad_data_url_is_refused_without_being_repeated(source: str, says: str) -> None:
    """Its megabytes do not turn up in the message."""
    assert says in await read_refusal(source)
    assert len(display_name(source)) < 80


# --- files


async def test_a_path_counts_from_the_jobs_folder(tmp_path: Path) -> None:
    """Relative, or absolute, or one folder up."""
    (tmp_path / "job").mkdir()
    (tmp_path / "up.png").write_bytes(PNG)
    (tmp_path / "job" / "in.png").write_bytes(PNG)
    sources = ["in.png", str(tmp_path / "up.png"), "../up.png"]
    loaded = await load_references(sources, base_dir=tmp_path / "job")
    assert [reference.width for reference in loaded.values()] == [160, 160, 160]


async def test_a_link_inside_the_folder_is_followed_and_one_out_of_it_is_not(tmp_path: Path) -> None:
    """A job folder from somebody else cannot reach for our files."""
    job = tmp_path / "job"
    (job / "pictures").mkdir(parents=True)
    (job / "pictures" / "keeper.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (job / "inside.png").symlink_to("pictures/keeper.png")
    (job / "outside.png").symlink_to("../secret.png")
    (job / "folder").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to("secret.png")
    assert (await load("inside.png", job)).width == 160
    for source in ("outside.png", "folder/secret.png", "../link.png", str(tmp_path / "link.png")):
        assert "symbolic link" in await read_refusal(source, job)


async def test_a_job_folder_that_is_itself_a_link_works(tmp_path: Path) -> None:
    """/tmp is one on some machines."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "in.png").write_bytes(PNG)
    (tmp_path / "job").symlink_to("real")
    assert (await load("in.png", tmp_path / "job")).width == 160


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(os.mkfifo, "not a regular file", id="fifo"),
        pytest.param(lambda path: path.mkdir(), "not a regular file", id="folder"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "symbolic link", id="link-to-a-device"),
        pytest.param(lambda path: path.symlink_to(path.name), "cannot be opened", id="link-to-itself"),
        pytest.param(lambda path: path.write_bytes(b""), "not a PNG, JPEG or WEBP", id="empty"),
        pytest.param(lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 20_000_001), "20 MB", id="huge"),
        pytest.param(lambda path: None, "no such file", id="missing"),
    ],
)
async def test_what_is_not_a_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    """At once: a fifo would hang whoever opens it for reading."""
    make(tmp_path / "picture.png")
    assert says in await asyncio.wait_for(read_refusal("picture.png", tmp_path), 5)


async def test_devices_and_impossible_names_are_refused(tmp_path: Path) -> None:
    """Also when they are named outright."""
    assert "not a regular file" in await read_refusal("/dev/zero", tmp_path)
    assert "cannot be opened" in await read_refusal("a\0b.png", tmp_path)
    assert display_name("a\0b\x1b[2J.png").isprintable()


async def test_without_a_folder_no_file_is_read(tmp_path: Path) -> None:
    """For jobs that came over the network."""
    (tmp_path / "in.png").write_bytes(PNG)
    assert "files are not read here" in await read_refusal(str(tmp_path / "in.png"), None)
