"""Requests that nobody sends in good faith, and crowds that bring no request at all."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.gateway.conftest import Shown, Streamed, gateway, read_complaints, watching
from videogen.gateway import GatewaySettings, connections, run_gateway_in_thread
from videogen.gateway.connections import RepeatLimit
from videogen.journal.store import Journal

TOKEN = "correct-horse"
FILES = 256
"""So many files the gateway may open, where it meets more connections than that."""
CROWD = 300


def connect(url: str) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=20)


def answer(url: str, line: bytes, *headers: bytes) -> bytes:
    """The first line of what comes back; empty when the connection is closed without one."""
    with connect(url) as sock:
        sock.sendall(b"\r\n".join([line, b"Host: localhost", b"Connection: close", *headers, b"", b""]))
        return sock.makefile("rb").readline()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a gateway on a journal with run `r1`, in either kind of database."""
    from tests.support.servers import database

    out = tmp_path_factory.mktemp("hostile")
    url = f"sqlite:///{out / 'journal.db'}"
    if request.param == "postgresql":
        url = database(request.getfixturevalue("postgresql"), "postgresql+psycopg")
    with run_gateway_in_thread(GatewaySettings(out, url, port=0)) as seen, closing(Journal(url)) as journal:
        journal.start_run("r1", job_id="film", origin="local", folder=str(out / "film"))
        yield seen.url


@pytest.mark.parametrize(
    ("line", "header"),
    [
        pytest.param(b"GET /runs/%00 HTTP/1.1", b"", id="nul-as-run"),
        pytest.param(b"GET /runs/r1%00/events HTTP/1.1", b"", id="nul-after-run"),
        pytest.param(b"GET /runs/r1/clips/a%00.mp4 HTTP/1.1", b"", id="nul-in-scene"),
        pytest.param(b"GET /models/%00 HTTP/1.1", b"", id="nul-as-model"),
        pytest.param(b"GET /%00 HTTP/1.1", b"", id="nul-in-path"),
        pytest.param(b"GET /runs?before=%00 HTTP/1.1", b"", id="nul-in-query"),
        pytest.param(b"GET /runs/%0d%0aSet-Cookie:x=y/ HTTP/1.1", b"", id="line-break-in-path"),
        pytest.param(b"GET /runs/%ff%fe HTTP/1.1", b"", id="bad-utf8"),
        pytest.param(b"GET /runs/%ed%a0%80 HTTP/1.1", b"", id="surrogate"),
        pytest.param(b"GET /runs\xff HTTP/1.1", b"", id="raw-byte"),
        pytest.param(b"GET /runs/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", b"", id="dots"),
        pytest.param(b"GET /runs/r1/clips/%2e%2e%2f%2e%2e%2fetc%2fpasswd.mp4 HTTP/1.1", b"", id="dots-and-slashes"),
        pytest.param(b"GET /runs/" + b"a" * 20_000 + b" HTTP/1.1", b"", id="long-path"),
        pytest.param(b"GET /runs?before=" + b"a" * 20_000 + b" HTTP/1.1", b"", id="long-query"),
        pytest.param(b"GET / HTTP/1.1", b"X-Filler: " + b"a" * 70_000, id="huge-header"),
        pytest.param(b"GET / HTTP/1.1", b"\r\n".join(b"X%d: a" % n for n in range(8000)), id="many-headers"),
        pytest.param(b"GET /runs/r1/events HTTP/1.1", b"Last-Event-ID: x", id="event-id-word"),
        pytest.param(b"GET /runs/r1/events HTTP/1.1", b"Last-Event-ID: -" + b"9" * 40, id="event-id-negative"),
        pytest.param(b"GET /runs/r1/events HTTP/1.1", b"Last-Event-ID: " + b"9" * 5000, id="event-id-endless"),
        pytest.param(b"GET /runs/r1/events HTTP/1.1", b"Last-Event-ID: \xff\xfe", id="event-id-bytes"),
        pytest.param(b"GET /runs/r1/events?after=-1 HTTP/1.1", b"", id="after-negative"),
        pytest.param(b"GET /runs?limit=" + b"9" * 40 + b" HTTP/1.1", b"", id="limit"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: bytes=abc-", id="range-word"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: bytes=5-1", id="range-backwards"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: bytes=" + b"9" * 40 + b"-", id="range-beyond"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: bytes=-" + b"9" * 5000, id="range-endless"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: lines=1-2", id="range-of-lines"),
        pytest.param(b"GET /style.css HTTP/1.1", b"Range: bytes=\xb2-", id="range-superscript"),
        pytest.param(b"GET http://[::1/ HTTP/1.1", b"", id="target-broken-url"),
        pytest.param(b"OPTIONS * HTTP/1.1", b"", id="target-star"),
        pytest.param(b"POST /runs HTTP/1.1", b"Content-Length: -1", id="negative-length"),
        pytest.param(b"POST /runs HTTP/1.1", b"Transfer-Encoding: gzip", id="coded-body"),
        pytest.param(b"BREW / HTTP/1.1", b"", id="odd-method"),
        pytest.param(b"NOT HTTP AT ALL", b"", id="no-http"),
        pytest.param(b"GET /docs HTTP/1.1", b"", id="docs"),
    ],
)
def test_an_odd_request_is_the_askers_fault(watched: str, line: bytes, header: bytes) -> None:
    """4xx: nothing is found to have failed on our side, with either database; the next request is answered."""
    status = answer(watched, line, *([header] if header else []))
    assert status.startswith(b"HTTP/1.1 4"), status
    assert answer(watched, b"GET /runs HTTP/1.1") == b"HTTP/1.1 200 OK\r\n"


def test_the_fields_are_described(finished: Shown) -> None:
    """At the address that the docs name: each of the gateway's own, and what events are sent as."""
    described = finished.get("/openapi.json")["paths"]
    assert {"/runs", "/runs/{run_id}", "/runs/{run_id}/events", "/models"} <= set(described)
    assert "text/event-stream" in described["/runs/{run_id}/events"]["get"]["responses"]["200"]["content"]


def test_half_a_character_in_what_a_provider_said_breaks_nothing(live: Shown) -> None:
    """It is shown as what is no character, in the run and in its events."""
    live.begin("r1", "a")
    live.tell("r1", "clip.failed", clip_index=0, scene_id="a", error={"message": "bad \ud83d", "\udc00": ["\ud800"]})
    live.tell("r1", "run.completed", completed=1)
    shown = {"message": "bad �", "�": ["�"]}
    assert live.get("/runs/r1")["clips"][0]["error"] == shown
    assert next(told for told in live.events("r1", 0) if told.event == "clip.failed").data["error"] == shown


HALVES = {
    "nothing": b"",
    "half-a-line": b"GET /runs HT",
    "half-the-headers": b"GET /runs HTTP/1.1\r\nHost: localhost\r\nX-Filler: ",
    "no-body": b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
    "no-token": b"GET /runs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "then-half-a-request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /runs HTTP/1.1\r\nX-Filler: ",
}


@pytest.mark.long_variants
@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES)
async def test_who_brings_no_request_that_is_let_in_is_hung_up_on(
    sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has come before, and although a byte comes now and then; who is let in stays."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.5)
    with watching(tmp_path / "out", token=TOKEN) as gateway:
        gateway.begin("r1", "a")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with gateway.http.stream("GET", "/runs/r1/events", headers=headers) as stream:
            events = iter(Streamed(stream))
            assert next(events).event == "snapshot"
            url = urlsplit(str(gateway.http.base_url))
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(sent)
            dripping = asyncio.create_task(drip(writer))
            async with asyncio.timeout(250):
                await read_to_the_end(reader)
            dripping.cancel()
            writer.transport.abort()
            gateway.tell("r1", "clip.completed", clip_index=0, scene_id="a", completed=1)
            assert await asyncio.to_thread(lambda: next(event for event in events if event.id)) is not None


async def drip(writer: asyncio.StreamWriter) -> None:
    """Sends a byte now and then, as who wants to hold a connection does."""
    while True:
        await asyncio.sleep(0.1)
        writer.write(b"a")


async def read_to_the_end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1000):
            pass
    except ConnectionResetError:
        pass


@contextmanager
def crowd(url: str, number: int) -> Iterator[None]:
    """So many connections that bring half of a request, of each kind in turn."""
    kinds = list(HALVES.values())
    with ExitStack() as held:
        for each in range(number):
            sock = held.enter_context(connect(url))
            sock.sendall(kinds[each % len(kinds)])
        yield


def test_a_crowd_of_half_requests_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than the gateway may open files: who watches goes on watching, who comes is let in, and after they
    have left all is as before. They cannot fill the log."""
    monkeypatch.setenv("VIDEOGEN_GATEWAY_TOKEN", TOKEN)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with gateway(tmp_path, most_files=FILES) as (process, url), httpx.Client(base_url=url, trust_env=False) as http:
        with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
            journal.start_run("r1", job_id="film", origin="local", folder=str(tmp_path))
            with http.stream("GET", "/runs/r1/events", headers=headers, timeout=20) as stream:
                events = iter(Streamed(stream))
                assert next(events).event == "snapshot"
                with crowd(url, CROWD):
                    assert httpx.get(f"{url}/runs", headers=headers, trust_env=False, timeout=20).status_code == 200
                    journal.add_event("r1", "clip.progress", {"scene_id": "a"})
                    assert next(event for event in events if event.id).event == "clip.progress"
        for _ in range(100):
            assert answer(url, b"NOT HTTP AT ALL").startswith(b"HTTP/1.1 400")
        assert http.get("/runs", headers=headers).status_code == 200
        said = read_complaints(process)
    assert len(said.splitlines()) < 20, said


def test_above_the_most_connections_further_ones_are_told_to_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are let in are counted, too: files are left for the journal."""
    with gateway(tmp_path, most_files=FILES) as (_, url), ExitStack() as held:
        with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
            journal.start_run("r1", job_id="film", origin="local", folder=str(tmp_path))
        told = []
        for _ in range(FILES // 2):
            sock = held.enter_context(connect(url))
            sock.sendall(b"GET /runs/r1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told.append(sock.makefile("rb").readline().split()[1])
        assert told == sorted(told)
        assert set(told) == {b"200", b"503"}
        held.close()
        until_answered(url)


def until_answered(url: str) -> None:
    while answer(url, b"GET /runs HTTP/1.1") != b"HTTP/1.1 200 OK\r\n":
        pass


def test_a_log_says_the_same_a_few_times_a_minute_only(caplog: pytest.LogCaptureFixture) -> None:
    """Other things are still said, and the last of a kind says that there are more."""
    minutes = [0.0]
    logger = logging.getLogger("tests.repeats")
    limit = RepeatLimit(most=3, window_s=60, now=lambda: minutes[0])
    logger.addFilter(limit)
    for number in range(50):
        logger.warning("refused %d", number)
    logger.warning("something else")
    minutes[0] = 60.0
    logger.warning("refused again")
    logger.warning("refused %d", 51)
    logger.removeFilter(limit)
    assert [record.getMessage() for record in caplog.records] == [
        "refused 0",
        "refused 1",
        "refused 2 (more of these within 60 s are left out)",
        "something else",
        "refused again",
        "refused 51",
    ]
