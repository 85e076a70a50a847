"""Reference images: what is fetched and what is not, what becomes of odd pictures, how a start frame is composed."""

import asyncio
import base64
import hashlib
import io
import itertools
import os
import re
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import httpx
import pytest
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageStat
from PIL.JpegImagePlugin import JpegImageFile

from tests.support.builders import chunk, encode_image, make_exif, make_halves, make_noise, png_bomb
from tests.support.fakes import Names
from tests.support.servers import Canary, canary_with, https_server
from videogen.addresses import resolve_host
from videogen.certificates import VARIABLES
from videogen.errors import SettingsError, ValidationError
from videogen.job.model import display_name
from videogen.references import fetch as references
from videogen.references.compose import MAX_FRAME_BYTES, compose_frame
from videogen.references.decode import ReferenceImage
from videogen.references.fetch import load_references

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 170, 60), (30, 60, 200), (120, 120, 120)
PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "localhost",
    "LOCALHOST.",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "①②⑦.⓪.⓪.①",
    "10.0.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "100.64.0.1",
    "192.168.1.1",
    "[fe80::1]",
    "[fd00::1]",
    "224.0.0.1",
    "255.255.255.255",
]
NOT_FETCHED = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:/etc/passwd",
    "ftp://pictures.example/keeper.png",
    "gopher://pictures.example/",
    "http://pictures.example/keeper.png",
    "unix:/run/docker.sock",
    "javascript:alert(1)",
]
PUBLIC = "93.184.215.14"
URL = "https://pictures.example/keeper.png"


PNG = encode_image(Image.new("RGB", (160, 80), RED))


async def load(source: str, base_dir: Path | None = None, **options: object) -> ReferenceImage:
    loaded = await load_references([source], base_dir=base_dir, **options)  # type: ignore[arg-type]
    return loaded[source]


async def refused(source: str, base_dir: Path | None = None, **options: object) -> str:
    """What is said of `source`, which must be refused."""
    with pytest.raises(ValidationError) as caught:
        await load(source, base_dir, **options)
    (problem,) = caught.value.problems
    assert problem.where == display_name(source)
    return problem.message


async def load_bytes(folder: Path, data: bytes) -> ReferenceImage:
    (folder / "picture").write_bytes(data)
    return await load("picture", folder)


def picture_of(reference: ReferenceImage) -> Image.Image:
    image = Image.open(io.BytesIO(reference.data))
    image.load()
    return image


class Web:
    """A network of one: answers every request by `answers`, in turn, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = itertools.cycle(answers or (httpx.Response(200, content=PNG),))
        self.asked: list[httpx.Request] = []

    def transport(self) -> httpx.MockTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            reply = next(self.answers)
            if isinstance(reply, Exception):
                raise reply
            return reply

        return httpx.MockTransport(answer)


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
        "not a valid URL|is not known|without a host|the invalid port", await refused(source, transport=web.transport())
    )
    assert web.asked == []


@pytest.mark.parametrize("target", [url for url in ODD_URLS if url.isascii() and url.isprintable() and len(url) < 999])
async def test_a_redirect_to_an_odd_url_is_a_problem_of_the_job(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_RETRY_DELAY_S", 0.0)
    web = Web(httpx.Response(302, headers={"Location": target}))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return [PUBLIC] if host == "pictures.example" else await resolve_host(host, port)

    assert await refused(URL, resolve=resolve, transport=web.transport())
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
        assert "SSL_CERT_FILE" in await refused(f"{url}/keeper.png", allow_private=True)
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
    assert "proxy" not in await refused(URL, resolve=unknown)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for options in ({"resolve": unknown}, {"resolve": Names([PUBLIC]), "transport": web.transport()}):
        said = await refused(URL, **options)
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
    message = await refused(f"https://{host}:{canary.port}/keeper.png")
    assert re.search(r"not a public address|not a valid URL|is not known", message)
    assert canary.hits == 0


@pytest.mark.parametrize("source", NOT_FETCHED)
async def test_only_https_is_fetched(source: str) -> None:
    """Every other scheme is refused by its name, and nothing is looked up."""
    web, names = Web(), Names([PUBLIC])
    message = await refused(source, resolve=names, transport=web.transport())
    assert f"{source.partition(':')[0].lower()}: URLs are not fetched" in message
    assert (web.asked, names.asked) == ([], [])


async def test_one_private_address_among_public_ones_is_enough(canary: Canary) -> None:
    """The connection might choose that one."""
    web = Web()
    message = await refused(URL, resolve=Names([PUBLIC, "127.0.0.1"]), transport=web.transport())
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

    assert "not a public address" in await refused(URL, resolve=resolve, transport=web.transport())
    assert (len(web.asked), canary.hits) == (1, 0)


@pytest.mark.parametrize("target", ["http://pictures.example/", "file:///etc/passwd", "ftp://pictures.example/"])
async def test_a_redirect_cannot_leave_https(target: str) -> None:
    """Neither to plain http nor to a file."""
    web = Web(httpx.Response(301, headers={"Location": target}))
    assert "URLs are not fetched" in await refused(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert len(web.asked) == 1


async def test_three_redirects_are_followed_and_a_fourth_is_not() -> None:
    """Relative ones too; a loop ends."""
    away = httpx.Response(307, headers={"Location": "/elsewhere"})
    web = Web(away, away, away, httpx.Response(200, content=PNG))
    assert (await load(URL, resolve=Names([PUBLIC]), transport=web.transport())).url == URL
    assert web.asked[-1].url.path == "/elsewhere"
    loop = Web(away)
    assert "more than 3 times" in await refused(URL, resolve=Names([PUBLIC]), transport=loop.transport())
    assert len(loop.asked) == 4


async def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    """Neither sent nor printed."""
    source = "https://keeper:hunter2@pictures.example/keeper.png?token=s3cret#part"
    message = await refused(source, resolve=Names([PUBLIC]), transport=Web().transport())
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
    assert says in await refused(URL, resolve=Names([PUBLIC]), transport=web.transport())
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
    assert "more than 20 MB" in await refused(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert sent <= 22_000_000


async def test_a_dripping_answer_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte may come in time and the whole still take too long."""
    monkeypatch.setattr(references, "_FETCH_TIMEOUT_S", 0.2)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"."

    web = Web(httpx.Response(200, content=drip()))
    message = await asyncio.wait_for(refused(URL, resolve=Names([PUBLIC]), transport=web.transport()), 5)
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
    assert says in await refused(source)
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
        assert "symbolic link" in await refused(source, job)


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
    assert says in await asyncio.wait_for(refused("picture.png", tmp_path), 5)


async def test_devices_and_impossible_names_are_refused(tmp_path: Path) -> None:
    """Also when they are named outright."""
    assert "not a regular file" in await refused("/dev/zero", tmp_path)
    assert "cannot be opened" in await refused("a\0b.png", tmp_path)
    assert display_name("a\0b\x1b[2J.png").isprintable()


async def test_without_a_folder_no_file_is_read(tmp_path: Path) -> None:
    """For jobs that came over the network."""
    (tmp_path / "in.png").write_bytes(PNG)
    assert "files are not read here" in await refused(str(tmp_path / "in.png"), None)


# --- pictures


@pytest.mark.parametrize(
    ("data", "media_type", "has_alpha"),
    [
        pytest.param(PNG, "image/jpeg", False, id="png"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG"), "image/jpeg", False, id="jpeg"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "WEBP"), "image/jpeg", False, id="webp"),
        pytest.param(encode_image(Image.new("RGBA", (160, 80), (*RED, 128))), "image/png", True, id="png-alpha"),
        pytest.param(
            encode_image(Image.new("RGBA", (160, 80), (*RED, 255))), "image/jpeg", False, id="png-opaque-alpha"
        ),
        pytest.param(
            encode_image(Image.new("RGBA", (160, 80), (*RED, 128)), "WEBP"), "image/png", True, id="webp-alpha"
        ),
    ],
)
async def test_a_picture_is_normalised(tmp_path: Path, data: bytes, media_type: str, has_alpha: bool) -> None:
    """JPEG, or PNG where something shows through; the digest is that of the original."""
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.media_type, reference.has_alpha) == (media_type, has_alpha)
    assert (reference.width, reference.height) == image.size == (160, 80)
    assert image.mode == ("RGBA" if has_alpha else "RGB")
    assert image.convert("RGB").getpixel((20, 10)) == pytest.approx(RED, abs=6)
    assert reference.digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "is_passed_on"),
    [
        pytest.param(PNG, True, id="png"),
        pytest.param(encode_image(Image.new("RGBA", (160, 80), (*RED, 128))), True, id="png-alpha"),
        pytest.param(encode_image(Image.new("L", (160, 80), 120), "JPEG"), True, id="grey-jpeg"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG", exif=make_exif(6)), False, id="turned"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "JPEG", exif=make_exif(1)), False, id="metadata"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), "WEBP"), False, id="webp"),
        pytest.param(encode_image(Image.new("CMYK", (160, 80)), "JPEG"), False, id="cmyk"),
        pytest.param(encode_image(Image.new("RGB", (4100, 80), RED), "JPEG"), False, id="reduced"),
    ],
)
async def test_a_public_picture_keeps_its_address_only_as_it_is(data: bytes, is_passed_on: bool) -> None:
    """A provider that is given the address sees what we saw."""
    web = Web(httpx.Response(200, content=data))
    reference = await load(URL, resolve=Names([PUBLIC]), transport=web.transport())
    assert reference.url == (URL if is_passed_on else None)


def corners() -> Image.Image:
    """Red above left, green above right, blue below; 40x20, to be seen after any turn."""
    image = Image.new("RGB", (160, 80), BLUE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    return image


UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
async def test_exif_turns_are_applied_and_metadata_is_dropped(tmp_path: Path, form: str, orientation: int) -> None:
    """Cameras store sideways and say so; they also say where they were, which is nobody's business."""
    method = UNDO[orientation]
    stored = corners() if method is None else corners().transpose(method)
    quality = {"quality": 95, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    reference = await load_bytes(tmp_path, encode_image(stored, form, exif=make_exif(orientation), **quality))
    image = picture_of(reference)
    assert (reference.width, reference.height) == image.size == (160, 80)
    assert max(ImageStat.Stat(ImageChops.difference(image, corners())).mean) < 12
    assert dict(image.getexif()) == {}
    assert b"Camera" not in reference.data


def png_16_bit_colour() -> bytes:
    """Pillow does not write these: 160x80, 48 bits a pixel."""
    row = b"\0" + b"".join(struct.pack(">H", value * 257) for value in GREY) * 160
    header = struct.pack(">IIBBBBB", 160, 80, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 80)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (63, 64), (64, 63), (2000, 10)])
async def test_a_tiny_picture_is_refused(size: tuple[int, int], form: str, tmp_path: Path) -> None:
    """A video model sees nothing in it; and it says what would do."""
    (tmp_path / "picture").write_bytes(encode_image(make_noise(size), form))
    told = f"only {size[0]}x{size[1]} px; give a picture of at least 64 px in width and height"
    assert await refused("picture", base_dir=tmp_path) == told


async def test_the_smallest_picture_is_taken(tmp_path: Path) -> None:
    reference = await load_bytes(tmp_path, encode_image(make_noise((64, 64))))
    assert (reference.width, reference.height, reference.is_one_colour) == (64, 64, False)


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("image", "is_one_colour"),
    [
        pytest.param(Image.new("RGB", (160, 80), RED), True, id="one-colour"),
        pytest.param(Image.new("L", (160, 80), 255), True, id="white"),
        pytest.param(Image.new("RGBA", (160, 80), (*RED, 128)), True, id="evenly-translucent"),
        pytest.param(make_halves((160, 80)), False, id="two-colours"),
        pytest.param(
            with_alpha(Image.new("RGB", (160, 80), RED), make_halves((160, 80)).convert("L")), False, id="silhouette"
        ),
    ],
)
async def test_a_picture_of_one_colour_is_known(image: Image.Image, is_one_colour: bool, tmp_path: Path) -> None:
    """The shape of a figure that is cut out shows, even if the figure has one colour."""
    assert (await load_bytes(tmp_path, encode_image(image))).is_one_colour == is_one_colour


async def test_a_jpeg_of_one_colour_is_known(tmp_path: Path) -> None:
    data = encode_image(Image.new("RGB", (160, 80), (201, 33, 77)), "JPEG", quality=30)
    assert (await load_bytes(tmp_path, data)).is_one_colour


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (160, 80), 1)
    image.putpalette([0, 0, 0, *colour])
    return image


def adobe_cmyk() -> Image.Image:
    return Image.new("CMYK", (160, 80), (0, 0, 0, 135))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_image(Image.new("L", (160, 80), 120)), id="grey"),
        pytest.param(encode_image(Image.new("L", (160, 80), 120), "JPEG"), id="grey-jpeg"),
        pytest.param(encode_image(Image.new("LA", (160, 80), (120, 255))), id="grey-opaque-alpha"),
        pytest.param(encode_image(Image.new("I;16", (160, 80), 120 * 257)), id="16-bit-grey"),
        pytest.param(png_16_bit_colour(), id="16-bit-colour"),
        pytest.param(encode_image(palette(GREY)), id="palette"),
        pytest.param(encode_image(adobe_cmyk(), "JPEG"), id="cmyk"),
    ],
)
async def test_every_kind_of_pixel_becomes_the_same_grey(tmp_path: Path, data: bytes) -> None:
    """Not clipped to white, not inverted, not an index taken for a colour."""
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.has_alpha, image.mode) == (False, "RGB")
    assert image.getpixel((20, 10)) == pytest.approx(GREY, abs=3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_image(palette(RED), transparency=0), id="palette"),
        pytest.param(encode_image(Image.new("RGB", (160, 80), RED), transparency=(0, 0, 0)), id="colour-key"),
    ],
)
async def test_transparency_that_no_pixel_uses_is_no_cut_out(tmp_path: Path, data: bytes) -> None:
    """It is said in the header, but the picture is opaque."""
    assert not (await load_bytes(tmp_path, data)).has_alpha


async def test_a_palette_with_a_hole_is_a_cut_out(tmp_path: Path) -> None:
    """Half of it shows through."""
    image = palette(RED)
    image.paste(0, (0, 0, 20, 20))
    reference = await load_bytes(tmp_path, encode_image(image, transparency=0))
    assert reference.has_alpha
    assert [picture_of(reference).getpixel(spot) for spot in ((5, 5), (35, 5))] == [(0, 0, 0, 0), (*RED, 255)]


async def test_a_colour_profile_is_applied_before_it_is_dropped(tmp_path: Path) -> None:
    """A picture whose profile says otherwise must not change its looks when the profile goes."""
    lab = ImageCms.createProfile("sRGB")
    profile = bytearray(ImageCms.ImageCmsProfile(lab).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = Image.new("RGB", (160, 80), (220, 20, 20))
    reference = await load_bytes(tmp_path, encode_image(image, icc_profile=bytes(profile)))
    pixel = picture_of(reference).getpixel((20, 10))
    assert isinstance(pixel, tuple)
    assert pixel[2] > 200
    assert pixel[0] < 60
    assert "icc_profile" not in picture_of(reference).info


async def test_a_broken_colour_profile_is_left_aside(tmp_path: Path) -> None:
    """The picture is whole without it."""
    reference = await load_bytes(tmp_path, encode_image(Image.new("RGB", (160, 80), RED), icc_profile=b"nonsense"))
    assert picture_of(reference).getpixel((20, 10)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
async def test_a_truncated_picture_is_refused(tmp_path: Path, form: str, share: float) -> None:
    """Wherever it was cut; a half grey picture would cost a whole clip."""
    data = encode_image(make_noise((160, 80)), form)
    (tmp_path / "picture").write_bytes(data[: int(len(data) * share)])
    assert "damaged or cut" in await refused("picture", tmp_path)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
async def test_an_animation_is_refused(tmp_path: Path, form: str) -> None:
    """Which of its pictures is meant, nobody said."""
    frames = [Image.new("RGB", (160, 80), colour) for colour in (RED, GREEN)]
    (tmp_path / "picture").write_bytes(
        encode_image(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
    )
    assert "animated" in await refused("picture", tmp_path)


async def test_a_phones_two_in_one_jpeg_is_its_first_picture(tmp_path: Path) -> None:
    """MPO is what phones write for depth or gain maps; it is no animation."""
    data = encode_image(
        Image.new("RGB", (160, 80), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (20, 10))]
    )
    reference = await load_bytes(tmp_path, data)
    assert picture_of(reference).getpixel((20, 10)) == pytest.approx(RED, abs=6)


def box(brand: bytes) -> bytes:
    return struct.pack(">I4s4sI8s", 24, b"ftyp", brand, 0, b"mif1" + brand) + bytes(400)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "GIF"), "but GIF: save it as JPEG or PNG", id="gif"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "BMP"), "but BMP: save it as JPEG or PNG", id="bmp"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "TIFF"), "but TIFF: save it as JPEG or PNG", id="tiff"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "ICO", sizes=[(16, 16)]), "but ICO: save it", id="ico"),
        pytest.param(box(b"heic"), "but HEIC: a phone's own format; save it as JPEG or PNG", id="heic"),
        pytest.param(box(b"mif1"), "but HEIC: a phone's own format; save it as JPEG or PNG", id="heif"),
        pytest.param(box(b"avif"), "but AVIF: save it as JPEG or PNG", id="avif"),
        pytest.param(box(b"isom"), "but a video: take a picture out of it", id="video"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "but SVG, a drawing: export it as PNG", id="svg"),
        pytest.param(b'<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "but SVG, a drawing", id="svg-with-a-head"),
        pytest.param(
            b"\n<!DOCTYPE html><title>Virus scan warning</title>", "but HTML: a web page was saved", id="html"
        ),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "run `git lfs pull`", id="lfs"),
        pytest.param(b"%PDF-1.7", "but PDF: export the page as PNG", id="pdf"),
        pytest.param(b"PK\x03\x04....", "but ZIP: unpack it", id="zip"),
        pytest.param(b"8BPS\0\1", "but PSD: export it as PNG", id="psd"),
        pytest.param(b"Dear Sir or Madam", "not a PNG, JPEG or WEBP but text", id="text"),
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(encode_image(Image.new("RGB", (160, 80)), "PPM"), "its format is unknown", id="ppm"),
    ],
)
async def test_what_is_no_picture_is_called_by_its_name(tmp_path: Path, data: bytes, says: str) -> None:
    """A name that ends in .png changes nothing; what to do is said, what the file says is not."""
    (tmp_path / "picture.png").write_bytes(data)
    message = await refused("picture.png", tmp_path)
    assert message.startswith("not a PNG, JPEG or WEBP")
    assert says in message
    assert "Sir" not in message
    assert "Virus" not in message


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
async def test_a_name_is_found_however_its_accents_are_spelled(
    tmp_path: Path, disk: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    """A file from a Mac, named by a job from a PC, and the reverse."""
    (tmp_path / unicodedata.normalize(disk, "Brücke")).mkdir()
    (tmp_path / unicodedata.normalize(disk, "Brücke/café.png")).write_bytes(PNG)
    assert (await load(unicodedata.normalize(asked, "Brücke/café.png"), tmp_path)).width == 160


@pytest.mark.parametrize("source", [f" {URL}", f"{URL}\n", f"\t{URL} "])
async def test_blanks_around_an_address_are_not_part_of_it(source: str) -> None:
    """It was pasted."""
    web = Web()
    loaded = await load_references([source], base_dir=None, resolve=Names([PUBLIC]), transport=web.transport())
    assert loaded[source].url == URL
    assert web.asked[0].url.path == "/keeper.png"


@pytest.mark.parametrize("source", ["", "  "])
async def test_an_empty_address_is_called_empty(tmp_path: Path, source: str) -> None:
    """Not a folder that is no regular file."""
    assert "an empty address" in await refused(source, tmp_path)


async def test_a_wholly_transparent_picture_is_refused(tmp_path: Path) -> None:
    """There is nobody in it."""
    (tmp_path / "picture").write_bytes(encode_image(Image.new("RGBA", (160, 80))))
    assert "transparent" in await refused("picture", tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(png_bomb(9000, 9000), "81 megapixels; a PNG may have 40", id="below-pillows-own-guard"),
        pytest.param(png_bomb(60000, 60000), "3600 megapixels", id="far-above"),
        pytest.param(png_bomb(8000, 5008), "40 megapixels", id="just-above"),
        pytest.param(
            encode_image(Image.new("L", (6200, 5000)), "WEBP"), "31 megapixels; a WEBP may have 30", id="webp"
        ),
        pytest.param(
            encode_image(Image.new("L", (6000, 5200)), "JPEG", progressive=True),
            "31 megapixels; a progressive JPEG may have 30",
            id="progressive",
        ),
    ],
)
async def test_a_bomb_is_refused_by_its_header(tmp_path: Path, data: bytes, says: str) -> None:
    """Nothing of it is decoded."""
    (tmp_path / "picture").write_bytes(data)
    assert says in await refused("picture", tmp_path)


PEAK = """
import asyncio, sys
from pathlib import Path
from videogen.references.fetch import load_references
asyncio.run(load_references(sys.argv[2:], base_dir=Path(sys.argv[1])))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def large_webp(size: tuple[int, int], mode: str, **options: object) -> bytes:
    image = Image.new(mode, size, (30, 60, 200, 120)[: len(mode)])
    image.paste((220, 30, 30, 255)[: len(mode)], (size[0] // 2, 0, *size))
    return encode_image(image, "WEBP", method=0, **options)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(encode_image(make_halves((6000, 4000)), "JPEG", quality=70), (3000, 2000), id="24-megapixel-jpeg"),
        pytest.param(
            encode_image(make_halves((6000, 4000)), "JPEG", quality=70, progressive=True),
            (3000, 2000),
            id="progressive",
        ),
        pytest.param(
            encode_image(make_halves((8400, 6000)), "JPEG", quality=30), (4200 // 2, 3000 // 2), id="50-megapixel-jpeg"
        ),
        pytest.param(large_webp((4096, 4096), "RGB", quality=40), (4096, 4096), id="17-megapixel-webp"),
        pytest.param(large_webp((6000, 4000), "RGB", lossless=True), (3000, 2000), id="24-megapixel-lossless"),
        pytest.param(large_webp((4200, 3000), "RGBA", quality=40), (2100, 1500), id="see-through"),
    ],
)
async def test_what_cameras_and_upscalers_make_is_taken(tmp_path: Path, data: bytes, size: tuple[int, int]) -> None:
    """It is reduced while it is decoded; the digest is that of the original."""
    reference = await load_bytes(tmp_path, data)
    image = picture_of(reference)
    assert (reference.width, reference.height) == image.size == size
    assert reference.digest == hashlib.sha256(data).hexdigest()
    left, right = image.getpixel((size[0] // 4, size[1] // 2)), image.getpixel((size[0] * 3 // 4, size[1] // 2))
    assert left == pytest.approx((30, 60, 200, 120)[: len(image.mode)], abs=8)
    assert right == pytest.approx((220, 30, 30, 255)[: len(image.mode)], abs=8)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
async def test_a_large_webp_that_is_cut_is_refused(tmp_path: Path, share: float) -> None:
    """As a small one is."""
    data = encode_image(make_noise((512, 512)).resize((4000, 3000)), "WEBP", quality=60, method=0)
    (tmp_path / "picture").write_bytes(data[: int(len(data) * share)])
    assert "damaged or cut" in await refused("picture", tmp_path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("order", ["abcde", "ecadb", "bec", "cdeab"])
async def test_the_largest_pictures_stay_under_300_mb(tmp_path: Path, order: str) -> None:
    """Forty megapixels of four bytes, on their side: decoded one after the other, never copied whole, and what one
    needed is given back before the next."""
    wide = Image.new("RGBA", (8000, 5000), (9, 9, 9, 99))
    wide.save(tmp_path / "a.png", compress_level=1, exif=make_exif(6))
    Image.new("CMYK", (8000, 5000), (9, 9, 9, 99)).save(tmp_path / "b.jpg", exif=make_exif(6))
    make_halves((6000, 5000)).save(tmp_path / "c.jpg", progressive=True, subsampling=0)
    make_halves((12_000, 10_000)).save(tmp_path / "d.jpg", quality=30)
    (tmp_path / "e.webp").write_bytes(large_webp((7000, 4200), "RGBA", quality=10))
    names = sorted((path.name for path in tmp_path.iterdir() if path.name[0] in order), key=lambda n: order.index(n[0]))
    command = [sys.executable, "-c", PEAK, str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) * 1024 < 300_000_000


async def test_a_large_picture_is_reduced(tmp_path: Path) -> None:
    """No model takes more, and what is kept for a whole job has to be small."""
    image = Image.new("RGB", (5000, 1000), BLUE)
    image.paste(RED, (3000, 600, 5000, 1000))
    image.save(tmp_path / "a.png")
    reference = await load("a.png", tmp_path)
    assert (reference.width, reference.height) == picture_of(reference).size == (2500, 500)
    assert spot(picture_of(reference), RED) == pytest.approx((1500, 300, 2500, 500), abs=1)


# --- start frames


def reference(image: Image.Image) -> ReferenceImage:
    has_alpha = image.mode == "RGBA"
    data = encode_image(image) if has_alpha else encode_image(image, "JPEG", quality=95)
    digest = hashlib.sha256(data).hexdigest()
    return ReferenceImage("x", digest, *image.size, has_alpha, data, "image/png" if has_alpha else "image/jpeg")


def cut_out(colour: tuple[int, int, int], size: tuple[int, int] = (100, 200)) -> ReferenceImage:
    """An upright block of one colour amid wide empty margins."""
    image = Image.new("RGBA", (size[0] + 120, size[1] + 160))
    image.paste((*colour, 255), (60, 30, 60 + size[0], 30 + size[1]))
    return reference(image)


def card(colour: tuple[int, int, int], size: tuple[int, int] = (300, 300)) -> ReferenceImage:
    return reference(Image.new("RGB", size, colour))


def white(size: tuple[int, int] = (1600, 900)) -> ReferenceImage:
    return reference(Image.new("RGB", size, (255, 255, 255)))


def opened(frame: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(frame))
    image.load()
    return image


def spot(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The box around everything that is nearly of `colour`."""
    red, green, blue = ImageChops.difference(image, Image.new("RGB", image.size, colour)).split()
    difference = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return difference.point(lambda value: 255 if value < 25 else 0).getbbox()


SIZES = [
    pytest.param((1280, 720), id="16:9"),
    pytest.param((720, 1280), id="9:16"),
    pytest.param((960, 960), id="1:1"),
    pytest.param((1024, 576), id="small"),
]


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_without_characters_is_the_crop(size: tuple[int, int]) -> None:
    """The background covers the frame from its centre, with no bars and no squeeze."""
    image = Image.new("RGB", (1600, 900), BLUE)
    ImageDraw.Draw(image).ellipse((700, 350, 900, 550), fill=RED)
    frame = opened(compose_frame(size=size, background=reference(image), characters=[]))
    assert (frame.format, frame.size) == ("JPEG", size)
    box = spot(frame, RED)
    assert box is not None
    left, top, right, bottom = box
    assert (left + right) / 2 == pytest.approx(size[0] / 2, abs=3)
    assert (top + bottom) / 2 == pytest.approx(size[1] / 2, abs=3)
    assert right - left == pytest.approx(bottom - top, abs=4)
    assert frame.getpixel((1, 1)) == pytest.approx(BLUE, abs=6)


@pytest.mark.parametrize("size", SIZES)
def test_a_cut_out_stands_on_the_lower_edge(size: tuple[int, int]) -> None:
    """60 to 75 % of the height, in the middle, without the empty margins of its file."""
    frame = opened(compose_frame(size=size, background=white(), characters=[cut_out(RED)]))
    box = spot(frame, RED)
    assert box is not None
    left, top, right, bottom = box
    assert bottom == size[1]
    assert 0.6 <= (bottom - top) / size[1] <= 0.75
    assert (left + right) / 2 == pytest.approx(size[0] / 2, abs=3)
    assert (right - left) / (bottom - top) == pytest.approx(0.5, abs=0.02)


COLOURS = [(220, 30, 30), (30, 170, 60), (30, 60, 200), (230, 200, 20), (160, 30, 160), (20, 180, 190)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [cut_out, card])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_characters_never_cover_each_other(
    size: tuple[int, int], make: Callable[[tuple[int, int, int]], ReferenceImage], count: int
) -> None:
    """Left to right in the order of the job, all inside the frame, however many and however narrow."""
    characters = [make(colour) for colour in COLOURS[:count]]
    frame = opened(compose_frame(size=size, background=white(), characters=characters))
    boxes = [spot(frame, colour) for colour in COLOURS[:count]]
    edges = [edge for box in boxes if box is not None for edge in (box[0], box[2])]
    assert len(edges) == 2 * count
    assert all(later - earlier > 2 for earlier, later in itertools.pairwise(edges))
    assert edges[0] > 0
    assert edges[-1] < size[0]


def test_faint_specks_do_not_count_as_the_figure() -> None:
    """Background removers leave some; counted in, they would make the figure small and let it float."""
    image = picture_of(cut_out(RED))
    image.putpixel((0, image.height - 1), (0, 0, 0, 5))
    clean, specked = ([cut_out(RED)], [reference(image)])
    frames = [compose_frame(size=(640, 360), background=white(), characters=each) for each in (clean, specked)]
    assert frames[0] == frames[1]


def test_a_very_wide_cut_out_still_fits() -> None:
    """A lying figure is scaled by its width."""
    frame = opened(compose_frame(size=(720, 1280), background=white(), characters=[cut_out(RED, (900, 60))]))
    box = spot(frame, RED)
    assert box is not None
    assert 0 < box[0] < box[2] < 720
    assert box[3] == 1280


def test_no_fringe_around_a_cut_out() -> None:
    """The colour that hides under full transparency does not bleed into the edge."""
    image = Image.new("RGBA", (300, 600), (0, 255, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 20, 280, 580), fill=(*RED, 255))
    background = card(RED, (640, 360))
    frame = opened(compose_frame(size=(640, 360), background=background, characters=[reference(image)]))
    difference = ImageChops.difference(frame, Image.new("RGB", frame.size, RED))
    assert max(band.getextrema()[1] for band in difference.split()) < 12  # type: ignore[operator]


def test_an_opaque_picture_hangs_as_a_card() -> None:
    """With round corners and a thin light line, above the lower edge."""
    frame = opened(compose_frame(size=(1280, 720), background=card(GREY, (1280, 720)), characters=[card(RED)]))
    box = spot(frame, RED)
    assert box is not None
    left, top, _, bottom = box
    assert bottom < 700
    line = frame.getpixel((left - 2, (top + bottom) // 2))
    assert line == pytest.approx((250, 250, 248), abs=30)
    assert frame.getpixel((left - 4, top - 4)) == pytest.approx(GREY, abs=25)
    assert frame.getpixel((left + 40, top + 40)) == pytest.approx(RED, abs=8)
    assert frame.getpixel((left + 1, top + 1)) != pytest.approx(RED, abs=60)


def test_without_a_background_the_backdrop_is_soft_and_of_their_colours() -> None:
    """Light above, darker below, a hint of the characters, nothing loud."""
    frame = opened(compose_frame(size=(640, 360), background=None, characters=[cut_out(RED)]))
    above, below = frame.getpixel((5, 5)), frame.getpixel((5, 355))
    assert isinstance(above, tuple)
    assert isinstance(below, tuple)
    assert sum(above) > sum(below) + 60
    assert above[0] > above[2] + 5
    assert below[0] > below[2] + 20
    assert min(below) > 60


def test_one_opaque_picture_alone_is_the_frame() -> None:
    """A portrait photo animates as itself; a card on an empty wall would animate as a card."""
    alone = compose_frame(size=(640, 360), background=None, characters=[card(RED)])
    assert alone == compose_frame(size=(640, 360), background=card(RED), characters=[])


def test_a_see_through_background_is_laid_on_white() -> None:
    """Not on whatever colour hides under its transparency."""
    frame = opened(compose_frame(size=(640, 360), background=reference(Image.new("RGBA", (64, 36))), characters=[]))
    assert frame.getpixel((320, 180)) == (255, 255, 255)


def test_the_same_pictures_make_the_same_bytes() -> None:
    """So that a composed frame, uploaded twice, is one frame."""
    recipe = {"size": (640, 360), "background": white(), "characters": [cut_out(RED), card(BLUE)]}
    assert compose_frame(**recipe) == compose_frame(**recipe)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (3840, 2160)])
def test_a_busy_frame_keeps_its_quality(size: tuple[int, int]) -> None:
    """What is too large for a `data:` URL is uploaded; only what no photo matches is pressed."""
    busy = reference(make_noise((320, 320)).resize((1280, 1280), Image.Resampling.BICUBIC))
    frame = compose_frame(size=size, background=busy, characters=[])
    assert 250_000 < len(frame) <= MAX_FRAME_BYTES
    image, full = opened(frame), opened(encode_image(Image.new("RGB", (8, 8)), "JPEG", quality=92))
    assert isinstance(image, JpegImageFile)
    assert isinstance(full, JpegImageFile)
    assert image.quantization == full.quantization


def test_a_frame_of_noise_is_pressed_until_it_fits() -> None:
    """A provider takes no upload without end."""
    frame = compose_frame(size=(3840, 2160), background=reference(make_noise((1280, 720))), characters=[])
    assert len(frame) <= MAX_FRAME_BYTES


def test_an_easy_frame_keeps_its_quality() -> None:
    """Quality is spent only where the size asks for it."""
    easy = opened(compose_frame(size=(640, 360), background=white(), characters=[cut_out(RED)]))
    full = opened(encode_image(Image.new("RGB", (8, 8)), "JPEG", quality=92))
    assert isinstance(easy, JpegImageFile)
    assert isinstance(full, JpegImageFile)
    assert easy.quantization == full.quantization
