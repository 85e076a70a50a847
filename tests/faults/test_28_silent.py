"""A Prefect server that takes connections and never answers, from some moment of a run on."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.faults.conftest import Stage, manifest, wait_for_creates, wait_for_starts
from tests.flows.conftest import CommandLine
from videogen.flows import command
from videogen.flows import local_server as server


class Proxy:
    """In front of a server: passes on what both sides say, until it is silenced. Then it still takes connections, and
    keeps those that it has."""

    def __init__(self, api: str) -> None:
        self._target = int(api.removesuffix("/api").rsplit(":", 1)[1])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._silent = threading.Event()
        self._held: list[socket.socket] = []
        self.api = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        threading.Thread(target=self._serve, daemon=True).start()

    def silence(self) -> None:
        self._silent.set()

    def close(self) -> None:
        for each in (self._listener, *self._held):
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._held.append(client)
                if self._silent.is_set():
                    continue
                target = socket.create_connection(("127.0.0.1", self._target))
                self._held.append(target)
                for source, sink in ((client, target), (target, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._silent.is_set():
                    return
                sink.sendall(data)
            if not self._silent.is_set():
                sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(prefect_api: str) -> Iterator[Proxy]:
    with closing(Proxy(prefect_api)) as proxy:
        yield proxy


@pytest.mark.long
@pytest.mark.parametrize(("text", "code", "billed"), [("", 0, 2), ("a failed verdict", 1, 0)])
def test_28_a_silent_prefect_server_does_not_keep_a_finished_run(
    text: str, code: int, billed: int, stage: Stage, command: CommandLine, proxy: Proxy
) -> None:
    """It ends within its time-outs, by its verdict, and says what was not reported to Prefect."""
    command.environment["PREFECT_API_URL"] = proxy.api
    stage.emulate(
        *(['do = "fail"\ntimes = "always"\nerror = "flagged as sensitive"'] if text else []), latency_s=(4, 4)
    )
    process = command.start(command.quick_job(2))
    wait_for_creates(stage, 2)
    proxy.silence()
    out, err = process.communicate(timeout=250)
    assert (process.returncode, err) == (code, "")
    assert "could not report the final state to Prefect: its server did not answer within 30 s" in out.splitlines()[-1]
    assert manifest(command)["successful_clips"] == billed
    stage.books(creates=2, billed=billed)


@pytest.mark.long
def test_28_a_silent_prefect_server_does_not_keep_an_interrupted_run(
    stage: Stage, command: CommandLine, proxy: Proxy
) -> None:
    """Its predictions are cancelled, and it says what it has cost."""
    command.environment["PREFECT_API_URL"] = proxy.api
    stage.emulate(latency_s=(60, 60))
    process = command.start(command.quick_job(2))
    wait_for_starts(stage, 2)
    proxy.silence()
    process.terminate()
    _, err = process.communicate(timeout=250)
    assert process.returncode == 143, err
    assert "interrupted: 0 of 2 delivered" in err
    assert err.splitlines()[-1] == "could not report the final state to Prefect"
    stage.books(creates=2, cancels=2, billed=2)


@pytest.mark.long
def test_28_a_prefect_server_that_is_silent_from_the_start_is_said_before_anything_is_created(
    stage: Stage, command: CommandLine, proxy: Proxy
) -> None:
    """In one line."""
    proxy.silence()
    command.environment["PREFECT_API_URL"] = proxy.api
    stage.emulate()
    done = command.run(command.quick_job(2))
    assert done.code == 1
    assert done.err == (
        f"error: Prefect cannot be used: its server at {proxy.api} did not answer within 30 s. Start it, or correct "
        "PREFECT_API_URL; without that setting, the run starts a server of its own\n"
    )
    stage.books(creates=0, billed=0)


async def test_28_the_first_answer_is_not_waited_for_without_end(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that is not the run's own."""
    monkeypatch.setattr(server, "ANSWER_TIMEOUT_S", 0.5)
    proxy.silence()
    with (
        temporary_settings({PREFECT_API_URL: proxy.api}),
        pytest.raises(RuntimeError, match=r"did not answer within .*PREFECT_API_URL"),
    ):
        await server.wait_until_server_ready()


async def test_28_the_task_runs_are_not_waited_for_without_end(proxy: Proxy) -> None:
    """Also when the question after them gets no answer."""
    proxy.silence()
    with temporary_settings({PREFECT_API_URL: proxy.api}):
        assert not await server.wait_until_recorded(None, 1, within_s=0.5)


@pytest.mark.parametrize("moment", ["judged", "stopped", "cancelled"])
async def test_28_a_flow_that_hangs_is_left(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the run is judged its exit code follows; when it was interrupted the process ends."""
    monkeypatch.setattr(command, "REPORT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(command, "STOP_TIMEOUT_S", 0.2)
    verdict, stop = command._Verdict(), asyncio.Event()
    released = asyncio.Event()
    flow = asyncio.ensure_future(hang(released))
    waiting = asyncio.create_task(command._wait_for_state(flow, verdict, stop))
    await asyncio.sleep(0)
    if moment == "cancelled":
        waiting.cancel()
    else:
        (verdict.known if moment == "judged" else stop).set()
    with pytest.raises(TimeoutError if moment == "judged" else command.StopTimeoutError):
        await waiting
    released.set()
    await flow


async def hang(released: asyncio.Event) -> Any:
    """As Prefect's engine does that waits for an answer: to be cancelled is no reason to stop."""
    while not released.is_set():
        with suppress(asyncio.CancelledError):
            await released.wait()
