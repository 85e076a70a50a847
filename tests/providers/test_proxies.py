"""Where a proxy is the only way out, it is taken; what is on this machine is asked directly."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.servers import https_server
from videogen.certificates import load_certificates
from videogen.errors import BadOutputError, NotSentError, SettingsError
from videogen.providers import downloads, replicate
from videogen.providers.proxies import find_proxy
from videogen.providers.replicate import ReplicateProvider

pytestmark = pytest.mark.integration

CLIP = b'{"type": "organization", "username": "film"}'
"""The answer of the server behind the proxy, whatever it is asked for."""


class Proxy:
    """A proxy that takes every tunnel to one server, or refuses all."""

    def __init__(self, target: tuple[str, int] | None) -> None:
        self.target = target
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def proxying(target: tuple[str, int] | None) -> Iterator[Proxy]:
    proxy = Proxy(target)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.request.recv(4096)
            proxy.asked.append(head.split(b"\r\n")[0].decode())
            if proxy.target is None:
                self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(proxy.target) as there:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(there, self.request))
                back.start()
                pump(self.request, there)
                back.join()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def only_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that HTTPS_PROXY names, behind which a server answers for every host."""
    folder = tmp_path / "authority"
    folder.mkdir()
    with https_server(folder, CLIP) as (url, authority):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        tls = load_certificates()
        monkeypatch.setattr(replicate, "get_tls_context", lambda: tls)
        monkeypatch.setattr(downloads, "get_tls_context", lambda: tls)
        with proxying(("localhost", httpx.URL(url).port or 0)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            yield proxy


async def test_replicate_and_its_outputs_are_reached_by_way_of_the_proxy(only_way_out: Proxy, tmp_path: Path) -> None:
    provider = ReplicateProvider("r8_x", base_url="https://api.example")
    await provider.check_account()
    await provider.download("https://cdn.example/clip.mp4", tmp_path / "part")
    await provider.aclose()
    assert (tmp_path / "part").read_bytes() == CLIP
    assert only_way_out.asked == ["CONNECT api.example:443 HTTP/1.1", "CONNECT cdn.example:443 HTTP/1.1"]


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "[::1]", "10.0.0.1", "localhost", "127.0.0.1"),
        *("2130706433", "0x7f000001", "0x7f.0.0.1", "10.1"),
    ],
)
async def test_what_is_inside_is_not_fetched_by_way_of_the_proxy(
    only_way_out: Proxy, tmp_path: Path, host: str
) -> None:
    """The proxy may reach what nobody else does."""
    provider = ReplicateProvider("r8_x", base_url="https://api.example")
    with pytest.raises(BadOutputError, match="not public"):
        await provider.download(f"https://{host}/latest/meta-data", tmp_path / "part")
    await provider.aclose()
    assert only_way_out.asked == []


async def test_a_proxy_that_refuses_is_named_and_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password."""
    with proxying(None) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("//", "//us:secret@"))
        provider = ReplicateProvider("r8_x", base_url="https://api.example")
        with pytest.raises(NotSentError) as caught:
            await provider.create("kling/kling", None, {"prompt": "a pier"}, cancel_after_s=60)
        await provider.aclose()
    assert str(caught.value) == (
        f"cannot connect to api.example by way of the proxy {proxy.url}: 407 Proxy Authentication Required. "
        "Check the network and the proxy, which HTTPS_PROXY or ALL_PROXY names"
    )


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.example", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https://api.example", "http://p:1"),
        ({"ALL_PROXY": "p:1"}, "https://api.example", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://api.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://127.0.0.1:8473", None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://localhost:8473", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.b, .example"}, "https://api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, "https://api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other"}, "https://api.example", "http://p:1"),
        ({"HTTPS_PROXY": ""}, "https://api.example", None),
    ],
)
def test_the_environment_says_which_proxy(
    variables: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = find_proxy(httpx.URL(url))
    assert (found and str(found)) == proxy


@pytest.mark.parametrize("value", ["socks5://p:1", "http://", "http://p:x", "ftp://p"])
def test_what_is_no_proxy_is_a_wrong_setting(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(SettingsError, match="HTTPS_PROXY: not the address of an HTTP proxy"):
        find_proxy(httpx.URL("https://api.example"))
