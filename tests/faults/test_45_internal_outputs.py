"""Row 45: an output, or a redirect of it, that leads into our own network is neither fetched nor shown."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from tests.support.servers import Answer, Loopback, answer
from videogen.addresses import Resolver, is_loopback, resolve_host
from videogen.errors import BadOutputError, NotSentError, TransientError
from videogen.providers.downloads import Downloads

CLIP = b"clip" * 1000
SECRET = "canary-of-the-metadata-service"
API = "http://api.example"
"""Speaks http, so that the tests need no certificates for names that are not theirs."""
PUBLIC = "93.184.215.14"

INSIDE = {
    "loopback": "127.0.0.1",
    "all-of-loopback": "127.8.8.8",
    "this-host": "0.0.0.0",
    "private-10": "10.0.0.8",
    "private-172": "172.16.0.1",
    "private-192": "192.168.1.1",
    "carrier": "100.64.0.1",
    "metadata": "169.254.169.254",
    "metadata-oracle": "192.0.0.192",
    "multicast": "224.0.0.1",
    "v6-loopback": "::1",
    "v6-link-local": "fe80::1",
    "v6-unique-local": "fd00:ec2::254",
    "v4-mapped": "::ffff:127.0.0.1",
    "v4-compatible": "::7f00:1",
    "nat64": "64:ff9b::a9fe:a9fe",
    "6to4": "2002:7f00:1::",
}


class Wires(httpcore.AsyncNetworkBackend):
    """Connects to the servers of a test, whatever the address, and keeps where to."""

    def __init__(self, port: int) -> None:
        self.connected: list[str] = []
        self._port, self._network = port, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        if host.startswith("198.18."):  # nobody is there
            raise httpcore.ConnectError("refused")
        return await self._network.connect_tcp("127.0.0.1", self._port)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def names(**addresses: Sequence[str] | str) -> Resolver:
    """DNS in which `cdn` stands for `cdn.example`; what is an address already is its own."""

    async def look_up(host: str, port: int) -> Sequence[str]:
        known = addresses.get(host.removesuffix(".example").replace("-", "_"))
        return await resolve_host(host, port) if known is None else [known] if isinstance(known, str) else known

    return look_up


@asynccontextmanager
async def downloads_from(
    *answers: Answer, dns: Resolver, home: str = API
) -> AsyncIterator[tuple[Downloads, Wires, Loopback]]:
    async with Loopback(*answers) as server:
        wires = Wires(httpx.URL(server.url).port or 0)
        downloads = Downloads(httpx.URL(home), stalled_s=2, most_bytes=10**6, resolve=dns, network=wires)
        try:
            yield downloads, wires, server
        finally:
            await downloads.aclose()


@pytest.mark.parametrize("address", INSIDE.values(), ids=INSIDE)
@pytest.mark.parametrize("named", [False, True], ids=["as-it-is", "by-name"])
async def test_45_an_output_inside_is_not_fetched(tmp_path: Path, address: str, named: bool) -> None:
    """Refused before anything connects, in a message without a byte of it."""
    literal = f"[{address}]" if ":" in address else address
    url = f"http://{'evil.example' if named else literal}/latest/meta-data"
    async with downloads_from(answer(200, SECRET), dns=names(evil=address)) as (downloads, wires, server):
        with pytest.raises(BadOutputError, match="not public") as caught:
            await downloads.fetch(url, tmp_path / "part")
    assert (wires.connected, server.asked) == ([], [])
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize("address", INSIDE.values(), ids=INSIDE)
async def test_45_a_redirect_that_leads_inside_is_not_followed(tmp_path: Path, address: str) -> None:
    literal = f"[{address}]" if ":" in address else address
    hop = answer(302, SECRET, location=f"http://{literal}/latest/meta-data")
    async with downloads_from(hop, answer(200, SECRET), dns=names(cdn=PUBLIC)) as (downloads, wires, server):
        with pytest.raises(BadOutputError, match="not public") as caught:
            await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")
    assert wires.connected == [PUBLIC]
    assert [asked.target for asked in server.asked] == ["/clip.mp4"]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "127.1", "localhost", "LOCALHOST.", "0x7f.1"])
async def test_45_other_ways_to_write_loopback_are_loopback(tmp_path: Path, host: str) -> None:
    """The system's own reading of a host is what is checked."""
    async with downloads_from(answer(200, SECRET), dns=resolve_host) as (downloads, wires, _):
        with pytest.raises((BadOutputError, NotSentError)):
            await downloads.fetch(f"http://{host}/", tmp_path / "part")
    assert wires.connected == []


async def test_45_one_address_inside_is_enough(tmp_path: Path) -> None:
    """A name that has a public one beside it could be tried until the other one answers."""
    async with downloads_from(answer(200, SECRET), dns=names(evil=[PUBLIC, "10.0.0.8"])) as (downloads, wires, _):
        with pytest.raises(BadOutputError, match=r"10\.0\.0\.8"):
            await downloads.fetch("http://evil.example/", tmp_path / "part")
    assert wires.connected == []


async def test_45_a_name_cannot_change_its_mind(tmp_path: Path) -> None:
    """It is asked for once, and the connection goes to the address that was checked."""
    asked = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    async with downloads_from(answer(200, CLIP), dns=rebinding) as (downloads, wires, server):
        await downloads.fetch("http://evil.example/clip.mp4", tmp_path / "part")
    assert (asked, wires.connected) == (["evil.example"], [PUBLIC])
    assert server.asked[0].headers["host"] == "evil.example"
    assert (tmp_path / "part").read_bytes() == CLIP


async def test_45_the_next_address_is_tried(tmp_path: Path) -> None:
    """As a browser does, where the first one refuses the connection."""
    dns = names(cdn=["93.184.215.1", PUBLIC])

    class FirstIsDown(Wires):
        async def connect_tcp(self, host: str, *arguments: Any, **more: Any) -> httpcore.AsyncNetworkStream:
            if host == "93.184.215.1":
                self.connected.append(host)
                raise httpcore.ConnectError("refused")
            return await super().connect_tcp(host, *arguments, **more)

    async with Loopback(answer(200, CLIP)) as server:
        wires = FirstIsDown(httpx.URL(server.url).port or 0)
        downloads = Downloads(httpx.URL(API), stalled_s=2, most_bytes=10**6, resolve=dns, network=wires)
        await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")
        await downloads.aclose()
    assert wires.connected == ["93.184.215.1", PUBLIC]


async def test_45_a_redirect_between_public_hosts_is_followed(tmp_path: Path) -> None:
    """Each host is looked up and checked on its own."""
    hop = answer(307, "", location="http://cdn-two.example/clip.mp4")
    dns = names(cdn=PUBLIC, cdn_two="93.184.215.99")
    async with downloads_from(hop, answer(200, CLIP), dns=dns) as (downloads, wires, server):
        await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")
    assert wires.connected == [PUBLIC, "93.184.215.99"]
    assert [asked.headers["host"] for asked in server.asked] == ["cdn.example", "cdn-two.example"]


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/clip.mp4",
        "ftp://cdn.example/clip.mp4",
        "file:///etc/passwd",
        "gopher://cdn.example/",
        "//cdn.example/clip.mp4",
        "/etc/passwd",
        "clip.mp4",
        "https:///clip.mp4",
        "https://user:secret@cdn.example/clip.mp4",
        "https://cdn.example:99999/clip.mp4",
        "https://cdn.example:port/clip.mp4",
        "https://xn--0.com/clip.mp4",
        "https://cdn.example/\0",
        "https://cdn.example/\ud83d",
        "https://" + "x" * 70_000,
        "https://" + "x" * 300 + ".example/",
        "",
    ],
    ids=lambda url: f"{url[:30]}-{len(url)}",
)
async def test_45_what_is_no_https_address_is_a_bad_output(tmp_path: Path, url: str) -> None:
    """Under an API that speaks https; nothing is connected to, and no text of any length gets into the message."""
    async with downloads_from(dns=names(cdn=PUBLIC), home="https://api.example") as (downloads, wires, _):
        with pytest.raises((BadOutputError, NotSentError)) as caught:
            await downloads.fetch(url, tmp_path / "part")
    assert wires.connected == []
    assert len(str(caught.value)) < 400
    assert "secret" not in str(caught.value)


async def test_45_a_redirect_to_another_scheme_is_not_followed(tmp_path: Path) -> None:
    """The scheme of each hop is checked."""
    async with Loopback(answer(302, "", location="ftp://cdn.example/clip.mp4")) as server:
        wires = Wires(httpx.URL(server.url).port or 0)
        downloads = Downloads(httpx.URL(API), stalled_s=2, most_bytes=10**6, resolve=names(cdn=PUBLIC), network=wires)
        with pytest.raises(BadOutputError):
            await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")
        await downloads.aclose()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("home", "host"),
    [
        ("http://127.0.0.1:8473", "127.0.0.1"),
        ("http://localhost:8473", "127.0.0.1"),
        ("http://[::1]:8473", "10.0.0.8"),
        ("http://10.0.0.5", "10.0.0.5"),
        ("http://emulator:80", "emulator"),
    ],
)
async def test_45_the_providers_own_host_is_fetched_from(tmp_path: Path, home: str, host: str) -> None:
    """An API on loopback may name any host: an emulator, a tunnel. One elsewhere inside may name itself."""
    async with downloads_from(answer(200, CLIP), dns=names(emulator="172.18.0.3"), home=home) as (downloads, _, _2):
        await downloads.fetch(f"http://{host}/clip.mp4", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == CLIP


@pytest.mark.parametrize("url", ["http://10.0.0.6/", "http://10.0.0.5:9200/", "http://169.254.169.254/"])
async def test_45_an_api_inside_opens_no_other_host_or_port(tmp_path: Path, url: str) -> None:
    async with downloads_from(answer(200, SECRET), dns=resolve_host, home="http://10.0.0.5") as (downloads, wires, _):
        with pytest.raises(BadOutputError, match="not public"):
            await downloads.fetch(url, tmp_path / "part")
    assert wires.connected == []


async def test_45_a_host_that_is_not_known_may_be_in_a_moment(tmp_path: Path) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    async with downloads_from(dns=unknown) as (downloads, _, _2):
        with pytest.raises(NotSentError, match=r"cdn\.example is not known"):
            await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")


async def test_45_no_address_at_all_is_no_connection(tmp_path: Path) -> None:
    async with downloads_from(dns=names(cdn=[])) as (downloads, _, _2):
        with pytest.raises(NotSentError, match="no address"):
            await downloads.fetch("http://cdn.example/clip.mp4", tmp_path / "part")


async def test_16_a_rest_that_begins_elsewhere_is_not_appended(tmp_path: Path) -> None:
    """206 with other bytes than were asked for would make a file that nobody has sent."""
    part = tmp_path / "part"
    part.write_bytes(b"x" * 100)
    wrong = answer(206, CLIP[50:], content_range=f"bytes 50-{len(CLIP) - 1}/{len(CLIP)}")
    async with downloads_from(wrong, dns=names(cdn=PUBLIC)) as (downloads, _, _2):
        with pytest.raises(TransientError, match="from the start"):
            await downloads.fetch("http://cdn.example/clip.mp4", part)
    assert not part.exists()


@pytest.mark.parametrize(("host", "local"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("x.dev", False)])
def test_45_loopback_is_told_by_what_is_written(host: str, local: bool) -> None:
    assert is_loopback(host) is local
