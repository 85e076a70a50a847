"""Run a prepared job as a flow from the command line: Prefect's defaults, its server, and the wait for the end."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videogen.errors import RunInterruptedError, VideogenError
from videogen.events import RunCompleted, RunEvent, RunStarted
from videogen.execution.options import PreparedJob
from videogen.execution.recorder import Listener
from videogen.flows.handover import hand_over
from videogen.flows.local_server import has_own_server, start_own_server, wait_until_recorded, wait_until_server_ready
from videogen.results.run_result import RunResult

MAX_PARAMETER_BYTES = 400_000
"""Limit of a job as a flow parameter. Prefect refuses parameters of 524,288 bytes or more in its own JSON."""
REPORT_TIMEOUT_S = 30.0
"""How long Prefect's server may take to record the final state of a run."""
STOP_TIMEOUT_S = 15.0
"""How long an interrupted run may take to cancel its predictions and to report its final state to Prefect."""


class StopTimeoutError(Exception):
    """An interrupted run could not report its end to Prefect within `STOP_TIMEOUT_S`."""


@dataclass(frozen=True)
class FlowOutcome:
    """The result of a flow run."""

    result: RunResult
    report_error: str = ""
    """Why Prefect does not know the final state. Empty if it does."""


async def run_as_flow(
    prepared: PreparedJob,
    file: str,
    *,
    listeners: Sequence[Listener],
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> FlowOutcome:
    """Run a prepared job as the flow `videogen.flows.generate.generate`.

    Args:
        file: the job's file.
        listeners: receive the events of the run.
        stop: ends the run when it is set.
        say: receives a line for people whenever Prefect makes them wait.

    Raises:
        VideogenError: Prefect cannot be used, or the run ended without a verdict.
        RunInterruptedError: the run was stopped, or cancelled in Prefect.
        StopTimeoutError: the run was stopped, or this call was cancelled, and Prefect does not answer.
    """
    _set_prefect_defaults(prepared.settings.local_out)
    began = time.monotonic()
    if start_own_server():
        say("starting Prefect's own server for this run: about 5 s, the first time up to a minute …")
    from videogen.flows.generate import generate

    verdict = _Verdict()

    def report_start(event: RunEvent, _payload: Mapping[str, Any]) -> None:
        if isinstance(event, RunStarted):
            say(f"Prefect's server is ready ({time.monotonic() - began:.1f} s)")

    try:
        await wait_until_server_ready()
        with hand_over(prepared, verdict.listen, report_start, *listeners, file=file, stop=stop):
            fits = len(prepared.job.model_dump_json()) < MAX_PARAMETER_BYTES
            flow = generate(prepared.job if fits else file, prepared.options, return_state=True)
            state = await _wait_for_state(asyncio.ensure_future(flow), verdict, stop)
        if verdict.result and not await _is_recorded(state, _count_task_runs(prepared, verdict.result)):
            return FlowOutcome(verdict.result, "not every task run was recorded in time")
    except StopTimeoutError:
        raise
    except Exception as exc:  # an error of Prefect itself: errors of the flow are in its state
        reason = str(exc) or type(exc).__name__
        if verdict.result is None:
            raise VideogenError(f"Prefect cannot be used: {reason}") from exc
        return FlowOutcome(verdict.result, reason)
    if verdict.result is None:
        raise await _find_failure(state)
    return FlowOutcome(verdict.result)


@dataclass
class _Verdict:
    """The result with the verdict, as soon as the run is completed."""

    result: RunResult | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, event: RunEvent, _payload: Mapping[str, Any]) -> None:
        if isinstance(event, RunCompleted):
            self.result = event.result
            self.known.set()


async def _wait_for_state(flow: "asyncio.Future[Any]", verdict: _Verdict, stop: asyncio.Event) -> Any:
    """Return the final state of the flow run.

    Once the verdict is known, wait for `REPORT_TIMEOUT_S` at most, then raise `TimeoutError`. Once the run is stopped
    or this call is cancelled, wait for `STOP_TIMEOUT_S`, in which predictions are cancelled, too, then raise
    `StopTimeoutError`.
    """
    ending = [asyncio.create_task(event.wait()) for event in (verdict.known, stop)]
    try:
        await asyncio.wait([flow, *ending], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([flow], timeout=STOP_TIMEOUT_S if stop.is_set() else REPORT_TIMEOUT_S)
    except asyncio.CancelledError:
        flow.cancel()
        await asyncio.wait([flow], timeout=STOP_TIMEOUT_S)
        if flow.done():
            raise
        raise StopTimeoutError from None
    finally:
        for event in ending:
            event.cancel()
    if flow.done():
        return flow.result()
    if stop.is_set():
        raise StopTimeoutError
    raise TimeoutError(f"its server did not answer within {REPORT_TIMEOUT_S:g} s")


def _count_task_runs(prepared: PreparedJob, result: RunResult) -> int:
    """Return the number of clips that have certainly been tried, and therefore have a task run that ended."""
    is_untried = (
        clip.status == "blocked" or (clip.error is not None and clip.error.code == "cancelled" and not clip.attempts)
        for clip in result.clips
    )
    untried = sum(is_untried)
    return len(prepared.plan.requests) - len(prepared.kept) - untried


async def _is_recorded(state: Any, task_runs: int) -> bool:
    """Return whether the server has recorded all task runs. Only this run's own server, which ends with it, may lose
    them."""
    if not has_own_server():
        return True
    return await wait_until_recorded(state.state_details.flow_run_id, task_runs, within_s=5 + task_runs / 10)


async def _find_failure(state: Any) -> Exception:
    """Return the error for which a flow run ended without a verdict."""
    if state.is_cancelled():
        return RunInterruptedError(state.message or "cancelled")
    error = await state.aresult(raise_on_failure=False)
    return error if isinstance(error, Exception) else VideogenError(state.message or f"the flow run is {state.name}")


def choose_prefect_home(environment: Mapping[str, str], out: Path) -> str | None:
    """Return a folder for Prefect's files when the user's home is not writable; None keeps Prefect's default."""
    if environment.get("PREFECT_HOME"):
        return None
    home = Path(environment.get("HOME") or Path.home())
    own = home / ".prefect"
    place = own if own.exists() else home
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return None
    return str(out.absolute() / ".prefect")


def _set_prefect_defaults(out: Path) -> None:
    """Set defaults of Prefect for a run at a terminal. The environment and Prefect's profile take precedence."""
    if home := choose_prefect_home(os.environ, out):
        with suppress(OSError):  # Prefect, which makes no parents, says what is wrong with it
            Path(home).mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = home
    for name, value in {
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s a call: long enough for a restart of the server
        "PREFECT_API_REQUEST_TIMEOUT": "20",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)
