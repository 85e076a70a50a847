"""Prefect's server ends while a run goes on. One server of this module's own: two tests kill it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Stage, manifest, wait_for_creates
from tests.flows.conftest import CommandLine
from tests.support.prefect_api import call_prefect
from tests.support.servers import free_port, prefect_server


@dataclass
class Server:
    """A Prefect server that can be killed, and started again at the same address with what it knew."""

    home: Path
    port: int = field(default_factory=free_port)
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.api, self._process = self.stack.enter_context(prefect_server(self.home, self.port))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def flow_run(self) -> dict[str, Any]:
        (run,) = call_prefect("POST", f"{self.api}/flow_runs/filter", {})
        return dict(run)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect-of-28"))
    with server.stack:
        server.start()
        yield server


@pytest.mark.long
def test_28_a_prefect_server_that_restarts_hears_how_the_run_ended(
    stage: Stage, command: CommandLine, server: Server
) -> None:
    """Down while the clips are made, and back before the run looks for them: completed, with its artifacts."""
    command.environment["PREFECT_API_URL"] = server.api
    stage.emulate(latency_s=(2.0, 2.0))
    process = command.start(command.quick_job(2, timeout_seconds=600))
    wait_for_creates(stage, 2)
    server.kill()  # which ends the connections of the run at once
    process.send_signal(signal.SIGSTOP)  # for however long the server takes
    server.start()
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=250)
    assert (process.returncode, err) == (0, "")
    assert "could not report" not in out
    assert manifest(command)["verdict"]["status"] == "complete"
    assert server.flow_run()["state"]["name"] == "Completed"
    artifacts = call_prefect("POST", f"{server.api}/artifacts/filter", {})
    assert {artifact["key"] for artifact in artifacts} == {"film-verdict", "film-clips", "film-progress"}
    stage.books(creates=2, billed=2)


@pytest.mark.long
def test_28_a_run_whose_prefect_server_is_gone_ends_as_its_clips_did(
    stage: Stage, command: CommandLine, server: Server
) -> None:
    """The exit code is the verdict's, manifest and journal are complete, and the last line says what is not."""
    command.environment |= {"PREFECT_API_URL": server.api, "PREFECT_CLIENT_MAX_RETRIES": "0"}
    stage.emulate('do = "fail"\nerror = "flagged as sensitive"', latency_s=(2.0, 2.0))
    process = command.start(command.quick_job(2))
    wait_for_creates(stage, 2)
    server.kill()
    out, err = process.communicate(timeout=250)
    assert (process.returncode, err) == (1, "")
    assert "could not report the final state to Prefect: " in out.splitlines()[-1]
    assert manifest(command)["successful_clips"] == 1
    again = command.run(command.folder / "film.json", "--dry-run", "--json").manifest
    assert [row["reused"] for row in again["scenes"]].count(True) == 1
    stage.books(creates=2, billed=1)
