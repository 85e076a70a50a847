"""Prefect's server of a run's own, which ends with it; in its process: `python -m flows.server PORT`.

It begins to start at once, beside all that is still to be imported, and not in Prefect's own way: that imports the
whole server here as well, which takes two seconds, and leaves it behind when this process is killed.
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

STARTS_S = 120.0
ANSWERS_S = 30.0
"""How long a server that is there already may take for its first answer."""
LOOK_EVERY_S = 0.1
STOPS_S = 5.0


@dataclass
class _Server:
    address: str = ""
    process: "subprocess.Popen[bytes] | None" = None
    """None where there is none."""


_own = _Server()


def start_own_server() -> bool:
    """Starts the server that Prefect would start for this process; False where it is told of one, by the environment or
    its profile."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        return False
    port = _free_port()
    _own.address, password = f"http://127.0.0.1:{port}", secrets.token_urlsafe()
    locked = {
        "PREFECT_SERVER_API_AUTH_STRING": password,  # else other users of this machine, and web pages, could use it
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": _own.address,
    }
    _own.process = _started([sys.executable, "-m", "flows.server", str(port)], locked)
    atexit.register(_stop)
    os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"] = f"{_own.address}/api", password
    for name in ("NO_PROXY", "no_proxy"):  # no proxy reaches what is on this machine
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))
    refresh_global_settings_context()
    return True


def has_own_server() -> bool:
    return _own.process is not None


async def server_answers() -> None:
    """Return when Prefect's server does. Raises `RuntimeError` when its own does not start, or another is silent."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    if _own.process is not None:
        return await _own_server_answers(_own.process)
    try:
        async with asyncio.timeout(ANSWERS_S), get_client() as client:
            if problem := await client.api_healthcheck():
                raise problem
    except TimeoutError:
        address = get_current_settings().api.url
        raise RuntimeError(f"its server at {address} did not answer within {ANSWERS_S:g} s") from None


async def _own_server_answers(process: "subprocess.Popen[bytes]") -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(round(STARTS_S / LOOK_EVERY_S)):
            if (code := process.poll()) is not None:
                raise RuntimeError(f"its server ended with exit code {code}")
            with suppress(httpx.TransportError):
                if (await client.get(f"{_own.address}/api/health")).is_success:
                    return
            await asyncio.sleep(LOOK_EVERY_S)
    raise RuntimeError(f"its server did not answer within {STARTS_S:g} s")


async def recorded(flow_run_id: UUID | None, task_runs: int, *, within_s: float) -> bool:
    """Whether the server knows the end of that many task runs, waiting for it for at most `within_s` seconds.

    Prefect's server records task runs from a queue in its memory, some 24 a second: what is in there when it ends is
    lost.
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
            while not await client.read_task_runs(  # the last of them: a page has 200 at most
                flow_run_filter=wanted, task_run_filter=states, limit=1, offset=task_runs - 1
            ):
                await asyncio.sleep(LOOK_EVERY_S)
            return True
    return False


def end_own_server() -> None:
    """Ends it, if there is one, without waiting: for who leaves at once."""
    if _own.process:
        _own.process.terminate()


def _stop() -> None:
    assert _own.process
    _own.process.terminate()
    try:
        _own.process.wait(STOPS_S)
    except subprocess.TimeoutExpired:
        _own.process.kill()
        _own.process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _started(command: list[str], settings: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Ctrl-C at a terminal goes to every process there, but we have to tell the server how the run ended: what is
    blocked here is blocked in the processes that begin meanwhile."""
    can_block = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_block else set()
    environment = {**os.environ, **settings, "PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    try:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603 - our own
    finally:
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(port: int) -> None:
    """Until whoever holds the other end of standard input is gone, however that came."""
    import uvicorn

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=end_with_parent, daemon=True).start()
    app = "prefect.server.api.server:create_app"
    uvicorn.run(app, factory=True, host="127.0.0.1", port=port, log_level="error", lifespan="on")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
