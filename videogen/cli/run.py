"""Run a job from the command line, as a flow of Prefect."""

import asyncio
import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console

from videogen.app import prepare_job
from videogen.cli.confirm import confirm_cost, needs_confirmation
from videogen.cli.console import OutputFormat, make_console, make_table, print_line
from videogen.cli.exit_codes import FAILED, get_exit_code
from videogen.cli.interrupt import Interruption, exit_now
from videogen.cli.plan import describe_provider, print_totals
from videogen.cli.progress import ProgressLines
from videogen.errors import (
    RunInterruptedError,
)
from videogen.events import ClipEnded, RunCompleted, RunEvent, RunStarted
from videogen.execution.options import PreparedJob, RunOptions
from videogen.execution.recorder import Listener
from videogen.job.model import Job
from videogen.results.run_result import RunResult
from videogen.settings import Settings
from videogen.text import escape_json, format_money


def run_job_file(
    job: Job,
    options: RunOptions,
    *,
    file: Path,
    output: OutputFormat = "text",
    serve: bool = False,
    asks: bool = True,
    flags: Sequence[str] = (),
) -> int:
    """Run the job of a file, print its result, and return the exit code.

    Args:
        serve: let browsers watch the run.
        asks: have a price above `VIDEOGEN_CONFIRM_ABOVE` confirmed.
        flags: those of the command line that change the job, for the command that goes on.
    """
    interruption = Interruption(leaves_running=options.on_interrupt == "leave")
    with _serve_gateway(options.resolve_settings()) if serve else nullcontext() as address:
        try:
            code = asyncio.run(_run(job, options, file, output, address, interruption, asks=asks, flags=flags))
        except (asyncio.CancelledError, RunInterruptedError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is cancelled: nothing could end sooner
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
    job: Job,
    options: RunOptions,
    file: Path,
    output: OutputFormat,
    address: str | None,
    interruption: "Interruption",
    *,
    asks: bool,
    flags: Sequence[str],
) -> int:
    console = make_console(stderr=output != "text")
    prepared = await prepare_job(job, options)
    await _check_account(prepared)
    print_line(console, describe_provider(prepared))
    print_totals(console, prepared.plan)
    if asks and needs_confirmation(prepared) and not confirm_cost(prepared):
        return FAILED
    lines = ProgressLines(console, prepared.plan)
    if address:
        lines.print_line(f"watch it at {address}")
    interruption.watch(asyncio.current_task(), lines, prepared.settings.get_journal_url())
    listeners = [_make_terminal_listener(lines, interruption, rough_cut=options.rough_cut)]
    if output == "jsonl":
        listeners.append(_make_event_printer())
    from videogen.flows.command import StopTimeoutError, run_as_flow

    try:
        outcome = await run_as_flow(
            prepared, str(file), listeners=listeners, stop=interruption.stop, say=lines.print_line
        )
    except StopTimeoutError:
        interruption.exit_unreported()
    finally:
        lines.close()
    batch = outcome.result
    if output == "json":
        print(escape_json(batch.manifest()), end="")
    elif output == "text":
        _print_result(console, batch, prepared)
    if advice := describe_next_run(batch, prepared, file, flags, max_cost=lines.progress.max_cost):
        print_line(console, advice)
    if outcome.report_error:
        print_line(
            console,
            f"could not report the final state to Prefect: {outcome.report_error}; the manifest and the journal are "
            "complete",
        )
        exit_now(get_exit_code(batch))  # otherwise Prefect's client would try to deliver each event for 7 s
    return get_exit_code(batch)


async def _check_account(prepared: PreparedJob) -> None:
    """Raise `AccountError` if the token is refused, before Prefect is started."""
    token = prepared.settings.replicate_api_token
    if prepared.provider == "replicate" and prepared.plan.to_make and token:
        from videogen.execution.rate_limit_gate import ProviderGate
        from videogen.providers.replicate import ReplicateProvider

        provider = ReplicateProvider(token.get_secret_value(), base_url=prepared.settings.replicate_base_url)
        try:
            await ProviderGate().call_with_retries(provider.check_account, tries=4)
        finally:
            await provider.aclose()


def _make_terminal_listener(lines: ProgressLines, interruption: Interruption, *, rough_cut: bool) -> Listener:
    """Return a listener that shows the run's progress, and tells the interruption whether clips are being made."""

    def show(event: RunEvent, payload: Mapping[str, Any]) -> None:
        if isinstance(event, RunStarted):
            interruption.arm()  # Prefect has replaced the handler meanwhile
        interruption.is_making_clips = not isinstance(event, RunCompleted)
        lines.show(event, payload)
        if rough_cut and isinstance(event, ClipEnded) and payload["completed"] == payload["total"]:
            lines.print_line("cutting rough_cut.mp4 …")

    return show


def _make_event_printer() -> Listener:
    """Return a listener that prints every event on standard output, as a JSON object on a line of its own."""
    console = make_console(stderr=False)
    return lambda event, payload: print_line(console, escape_json(json.dumps({"event": event.type, **payload})))


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
            clip.error.code if clip.error else clip.outcome,
        )
    console.print(table)
    cost = f"{format_money(batch.total_cost - batch.paid_before)} of {format_money(prepared.plan.total_cost)} planned"
    if batch.paid_before:
        cost += f", and {format_money(batch.paid_before)} that earlier runs had paid"
    print_line(console, f"{batch.verdict.status}: {batch.verdict.reason}; {cost}, {batch.total_generation_time:.1f} s")
    for warning in batch.verdict.warnings:
        print_line(console, f"warning: {warning}")
    print_line(console, f"clips, manifest.json and index.html are in {prepared.folder}")


def describe_next_run(
    batch: RunResult, prepared: PreparedJob, file: Path, flags: Sequence[str], *, max_cost: Decimal | None
) -> str | None:
    """Return the line with the command that makes the clips that the cap or a shared budget stopped; None if none was.

    Its cap covers all clips that are missing after the cost of the job so far.

    Args:
        flags: those of this run, without its cap.
        max_cost: the cap that held in the end, in USD; None if there was none.
    """
    plan, missing = prepared.plan, [clip.scene_id for clip in batch.clips if clip.error]
    cost = sum((plan.get_remaining_cost(each) for each in plan.requests if each.scene.id in missing), Decimal(0))
    spent = plan.spent_before + batch.total_cost if batch.job_cost is None else batch.job_cost
    reasons = [clip.error.message for clip in batch.clips if clip.error and clip.error.code == "budget"]
    is_above_cap = max_cost is not None and spent + cost > max_cost
    waits_for_budget = any(reason.startswith("budget ") for reason in reasons)
    if not reasons or not (is_above_cap or waits_for_budget):
        return None
    words = ["videogen", "run", str(file), *flags]
    if prepared.options.fresh:
        words += ["--fresh", "--only", ",".join(missing)]
    elif prepared.options.only:
        words += ["--only", ",".join(prepared.options.only)]
    scenes = "the scene" if len(missing) == 1 else f"the {len(missing)} scenes"
    if is_above_cap:
        words += ["--max-cost", format_money(spent + cost).removeprefix("$")]
    whose = "its" if len(missing) == 1 else "their"
    once = f" once {whose} budget allows it" if waits_for_budget else ""
    return f"to make {scenes} left{once}: {shlex.join(words)}"
