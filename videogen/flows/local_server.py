"""Start a Prefect server for one run and end it with the run.

Its process runs `python -m videogen.flows.local_server PORT`.

The server starts in parallel to the remaining imports. Prefect's own way to start one is not used, because it imports
the whole server into this process as well, which takes two seconds, and leaves the server behind when this process is
killed.
"""

import asyncio
import atexit
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from uuid import UUID

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 30.0
"""How long a server that is already running may take to answer."""
_ADVICE = "Start it, or correct PREFECT_API_URL; without that setting, the run starts a server of its own"
POLL_INTERVAL_S = 0.1
STOP_TIMEOUT_S = 5.0


@dataclass
class _Server:
    address: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    """None when no server was started."""


_own = _Server()


def start_own_server() -> bool:
    """Start a server for this process. Return False, without starting one, when the environment or Prefect's profile
    names a server."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        return False
    port = _find_free_port()
    _own.address = f"http://127.0.0.1:{port}"
    password = secrets.token_urlsafe()
    locked = {
        "PREFECT_SERVER_API_AUTH_STRING": password,  # otherwise other users of this machine and web pages could use it
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": _own.address,
    }
    _own.process = _spawn([sys.executable, "-m", "videogen.flows.local_server", str(port)], locked)
    atexit.register(_stop_own_server)
    os.environ["PREFECT_API_URL"] = f"{_own.address}/api"
    os.environ["PREFECT_API_AUTH_STRING"] = password
    for name in ("NO_PROXY", "no_proxy"):  # a proxy could not reach a server on this machine
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    refresh_global_settings_context()
    return True


def has_own_server() -> bool:
    """Return whether this process has started a server."""
    return _own.process is not None


async def wait_until_server_ready() -> None:
    """Wait until Prefect's server answers.

    Raises:
        RuntimeError: the server of this run does not start, or another one does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    if _own.process is not None:
        await _wait_until_own_server_ready(_own.process)
        return
    address = get_current_settings().api.url
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S), get_client() as client:
            problem = await client.api_healthcheck()
    except TimeoutError:
        raise RuntimeError(f"its server at {address} did not answer within {ANSWER_TIMEOUT_S:g} s. {_ADVICE}") from None
    if problem:
        reason = (str(problem) or type(problem).__name__).partition("\n")[0].rstrip(".")
        raise RuntimeError(f"its server at {address} cannot be reached: {reason}. {_ADVICE}") from problem


async def _wait_until_own_server_ready(process: "subprocess.Popen[bytes]") -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(round(START_TIMEOUT_S / POLL_INTERVAL_S)):
            if (code := process.poll()) is not None:
                raise RuntimeError(f"its server ended with exit code {code}")
            with suppress(httpx.TransportError):
                if (await client.get(f"{_own.address}/api/health")).is_success:
                    return
            await asyncio.sleep(POLL_INTERVAL_S)
    raise RuntimeError(f"its server did not answer within {START_TIMEOUT_S:g} s")


async def wait_until_recorded(flow_run_id: UUID | None, task_runs: int, *, within_s: float) -> bool:
    """Wait until the server has recorded the end of that many task runs, for at most `within_s` seconds.

    Return whether it has. Prefect's server records task runs from a queue in memory, some 24 a second, and loses those
    that are still in the queue when it ends.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
    from prefect.client.schemas.objects import TERMINAL_STATES

    if task_runs == 0:
        return True
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id] if flow_run_id else []))
    states = TaskRunFilter.model_validate({"state": {"type": {"any_": sorted(TERMINAL_STATES)}}})
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s), get_client() as client:
            while not await client.read_task_runs(  # asks for the last one, because a page has 200 at most
                flow_run_filter=wanted, task_run_filter=states, limit=1, offset=task_runs - 1
            ):
                await asyncio.sleep(POLL_INTERVAL_S)
            return True
    return False


def terminate_own_server() -> None:
    """Terminate the server of this run, if any, without waiting, for a process that exits immediately."""
    if _own.process:
        _own.process.terminate()


def _stop_own_server() -> None:
    assert _own.process
    _own.process.terminate()
    try:
        _own.process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _own.process.kill()
        _own.process.wait()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _spawn(command: list[str], settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process in which SIGINT is blocked.

    Ctrl-C at a terminal reaches all processes there, but the server must survive it to record how the run ended. A new
    process inherits the signals that are blocked while it is started.
    """
    can_block = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
    environment = {**os.environ, **settings, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    try:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603 - our own
    finally:
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(port: int) -> None:
    """Serve until the parent process ends, for whatever reason: then standard input is closed."""
    import uvicorn

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=end_with_parent, daemon=True).start()
    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
