"""Run a job from the command line, as a flow of Prefect."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from videogen.app import hand_over, prepare_job
from videogen.cli.progress import ProgressLines
from videogen.errors import (
    RunInterruptedError,
    VideogenError,
)
from videogen.events import ClipEnded, RunCompleted, RunEvent, RunStarted
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.recorder import Listener
from videogen.job.model import Job
from videogen.results.run_result import RunResult
from videogen.settings import Settings
from videogen.text import escape_json, format_money

if TYPE_CHECKING:
    pass
from videogen.cli.console import OutputFormat, make_console, make_table, print_line
from videogen.cli.interrupt import Interruption, exit_now
from videogen.cli.plan import describe_provider, print_totals

MAX_PARAMETER_BYTES = 400_000
"""Limit of a job as a flow parameter. Prefect refuses parameters of 524,288 bytes or more in its own JSON."""
REPORT_TIMEOUT_S = 30.0
"""How long Prefect's server may take to record the final state of a run."""
STOP_TIMEOUT_S = 15.0
"""How long an interrupted run may take to cancel its predictions and to report its final state to Prefect."""
ACCOUNT_CODES = {"authentication", "billing"}


def run_job(job: Job, options: RunOptions, *, file: Path, output: OutputFormat = "text", serve: bool = False) -> int:
    """Run the job of a file, print its result, and return the exit code. With `serve`, browsers can watch the run."""
    interruption = Interruption(leaves_running=options.on_interrupt == "leave")
    with _serve_gateway(options.resolve_settings()) if serve else nullcontext() as address:
        try:
            code = asyncio.run(_run(job, options, file, output, address, interruption))
        except (asyncio.CancelledError, RunInterruptedError):
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # everything is cancelled, so a second Ctrl-C could not speed up anything
            interruption.report_end()
            return interruption.exit_code
        if address and sys.stdin.isatty():
            print(f"the run is still shown at {address}; press Ctrl-C to stop", file=sys.stderr)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    return code


@contextmanager
def _serve_gateway(settings: Settings) -> Iterator[str]:
    """Run a gateway for the runs of these settings while the block lasts, and provide its address."""
    from videogen.gateway import GatewaySettings, run_gateway_in_thread

    shown = GatewaySettings(settings.local_out, settings.get_journal_url(), settings.registry, port=0)
    with run_gateway_in_thread(shown) as gateway:
        yield gateway.url


async def _run(
    job: Job, options: RunOptions, file: Path, output: OutputFormat, address: str | None, interruption: "Interruption"
) -> int:
    console = make_console(stderr=output != "text")
    prepared = await prepare_job(job, options)
    await _check_account(prepared)
    print_line(console, describe_provider(prepared))
    print_totals(console, prepared.plan)
    lines = ProgressLines(console, prepared.plan)
    if address:
        lines.print_line(f"watch it at {address}")
    interruption.watch(asyncio.current_task(), lines, prepared.settings.get_journal_url())
    try:
        listeners = [_make_event_printer()] if output == "jsonl" else []
        batch, report_error = await _call_flow(prepared, str(file), lines, interruption, listeners)
    finally:
        lines.close()
    if output == "json":
        print(escape_json(batch.manifest()), end="")
    elif output == "text":
        _print_result(console, batch, prepared)
    if report_error:
        print_line(
            console,
            f"could not report the final state to Prefect: {report_error}; the manifest and the journal are complete",
        )
        exit_now(
            _get_exit_code(batch)
        )  # otherwise Prefect's client would spend 7 s on each event that it cannot deliver
    return _get_exit_code(batch)


async def _check_account(prepared: PreparedJob) -> None:
    """Raise `AccountError` if the token is refused, before Prefect is started."""
    token = prepared.settings.replicate_api_token
    if prepared.provider == "replicate" and prepared.plan.to_make and token:
        from videogen.execution.gate import ProviderGate
        from videogen.providers.replicate import ReplicateProvider

        provider = ReplicateProvider(token.get_secret_value(), base_url=prepared.settings.replicate_base_url)
        try:
            await ProviderGate().call_with_retries(provider.check_account, tries=4)
        finally:
            await provider.aclose()


async def _call_flow(
    prepared: PreparedJob,
    file: str,
    lines: ProgressLines,
    interruption: "Interruption",
    listeners: Sequence[Listener],
) -> tuple[RunResult, str]:
    """Run the flow. Return its batch, and why its final state was not reported to Prefect, or an empty string."""
    _set_up_prefect(prepared.settings.local_out)
    began = time.monotonic()
    from flows.local_server import (
        start_own_server,
        wait_until_recorded,
        wait_until_server_ready,
    )

    if start_own_server():
        lines.print_line("starting Prefect's own server for this run: about 5 s, the first time up to a minute …")
    from flows.generate import generate

    verdict = _KnownVerdict()

    def on_event(event: RunEvent, payload: Mapping[str, Any]) -> None:
        verdict.on_event(event)
        if isinstance(event, RunStarted):
            lines.print_line(f"Prefect's server is ready ({time.monotonic() - began:.1f} s)")
            interruption.arm()  # Prefect has replaced the handler meanwhile
        interruption.is_making_clips = not isinstance(event, RunCompleted)
        lines.show(event, payload)
        if prepared.options.rough_cut and isinstance(event, ClipEnded) and payload["completed"] == payload["total"]:
            lines.print_line("cutting rough_cut.mp4 …")

    try:
        await wait_until_server_ready()
        with hand_over(prepared, on_event, *listeners, file=file, stop=interruption.stop):
            fits = len(prepared.job.model_dump_json()) < MAX_PARAMETER_BYTES
            flow = generate(prepared.job if fits else file, prepared.options, return_state=True)
            state = await _wait_for_flow(asyncio.ensure_future(flow), verdict, interruption)
        of_run, task_runs = state.state_details.flow_run_id, len(prepared.plan.requests) - len(prepared.kept)
        if (
            verdict.batch
            and _has_own_server()
            and not await wait_until_recorded(of_run, task_runs, within_s=5 + task_runs / 10)
        ):
            return verdict.batch, "not every task run was recorded in time"
    except Exception as exc:  # an error of Prefect itself: errors of the flow are in its state
        reason = str(exc) or type(exc).__name__
        if verdict.batch is None:
            raise VideogenError(f"Prefect cannot be used: {reason}") from exc
        return verdict.batch, reason
    if verdict.batch is None:
        raise await _find_flow_failure(state)
    return verdict.batch, ""


class _KnownVerdict:
    """The batch with the verdict, as soon as the run is completed."""

    def __init__(self) -> None:
        self.batch: RunResult | None = None
        self.known = asyncio.Event()

    def on_event(self, event: RunEvent) -> None:
        if isinstance(event, RunCompleted):
            self.batch = event.result
            self.known.set()


async def _wait_for_flow(flow: "asyncio.Future[Any]", verdict: _KnownVerdict, interruption: "Interruption") -> Any:
    """Wait for the flow run and return its final state, unless Prefect's server does not answer.

    Once the verdict is known, wait for `REPORT_TIMEOUT_S` at most, then raise `TimeoutError`. Once the run is
    interrupted, wait for `STOP_TIMEOUT_S`, in which predictions are cancelled, too, then exit the process.
    """
    ending = [asyncio.create_task(event.wait()) for event in (verdict.known, interruption.stop)]
    try:
        waited_for: list[asyncio.Future[Any]] = [flow, *ending]
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([flow], timeout=STOP_TIMEOUT_S if interruption.stop.is_set() else REPORT_TIMEOUT_S)
    except asyncio.CancelledError:
        flow.cancel()
        await asyncio.wait([flow], timeout=STOP_TIMEOUT_S)
        if flow.done():
            raise
    for event in ending:
        event.cancel()
    if flow.done():
        return flow.result()
    if interruption.is_interrupted:
        interruption.exit_unreported()
    raise TimeoutError(f"its server did not answer within {REPORT_TIMEOUT_S:g} s")


def _make_event_printer() -> Listener:
    """Return a listener that prints every event on standard output, as a JSON object on a line of its own."""
    console = make_console(stderr=False)
    return lambda event, payload: print_line(console, escape_json(json.dumps({"event": event.type, **payload})))


async def _find_flow_failure(state: Any) -> Exception:
    """Return the error for which a flow run ended without a verdict."""
    if state.is_cancelled():
        return RunInterruptedError(state.message or "cancelled")
    error = await state.aresult(raise_on_failure=False)
    return error if isinstance(error, Exception) else VideogenError(state.message or f"the flow run is {state.name}")


def _has_own_server() -> bool:
    """Return whether Prefect's server was started for this run."""
    from flows.local_server import has_own_server

    return has_own_server()


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


def _set_up_prefect(out: Path) -> None:
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


def _print_result(console: Console, batch: RunResult, prepared: PreparedJob) -> None:
    table = make_table("scene", "target s", "actual s", "size", "fps", "tries", "cost $", "status")
    for clip in batch.clips:
        table.add_row(
            clip.scene_id,
            f"{clip.target_duration:g}",
            "" if clip.actual_duration is None else f"{clip.actual_duration:.2f}",
            f"{clip.width}x{clip.height}" if clip.width else "",
            f"{clip.fps:g}" if clip.fps else "",
            str(clip.attempts),
            str(clip.cost),
            "reused" if clip.reused else clip.error.code if clip.error else "delivered",
        )
    console.print(table)
    cost = f"{format_money(batch.total_cost - batch.paid_before)} of {format_money(prepared.plan.total_cost)} planned"
    if batch.paid_before:
        cost += f", and {format_money(batch.paid_before)} that earlier runs had paid"
    print_line(console, f"{batch.verdict.status}: {batch.verdict.reason}; {cost}, {batch.total_generation_time:.1f} s")
    print_line(console, f"clips, manifest.json and index.html are in {prepared.folder}")


def _get_exit_code(batch: RunResult) -> int:
    if any(clip.error and clip.error.code in ACCOUNT_CODES for clip in batch.clips):
        return 3
    return 1 if batch.verdict.status == "failed" else 0
