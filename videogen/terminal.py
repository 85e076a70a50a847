"""Print the results of the commands: plans, the progress and outcome of runs, models and settings."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from videogen.bootstrap import Listener, PreparedJob, RunOptions, check_local_references, hand_over, prepare_job
from videogen.checking import load_and_validate, plan_offline
from videogen.clip import RunResult
from videogen.endpoints import Snapshots
from videogen.errors import (
    JournalError,
    RunInterruptedError,
    ValidationError,
    VideogenError,
    escape_json,
    escape_unprintable,
)
from videogen.events import ClipEnded, RunCompleted, RunEvent, RunStarted
from videogen.models import Durations, ModelInfo, Prices, describe_model, describe_models
from videogen.planning import Plan
from videogen.progress import ProgressLines, format_clock
from videogen.registry import read_registry
from videogen.scene import Job
from videogen.settings import Settings, find_effective_settings, read_settings

if TYPE_CHECKING:
    from asyncio import Task

    from videogen.conformance import ModelCheck

MAX_PARAMETER_BYTES = 400_000
"""Limit of a job as a flow parameter. Prefect refuses parameters of 524,288 bytes or more in its own JSON."""
REPORT_TIMEOUT_S = 30.0
"""How long Prefect's server may take to record the final state of a run."""
STOP_TIMEOUT_S = 15.0
"""How long an interrupted run may take to cancel its predictions and to report its final state to Prefect."""
ACCOUNT_CODES = {"authentication", "billing"}


# -- plan -------------------------------------------------------------------------------------------------------------


def show_plan(job: Job, options: RunOptions, *, as_json: bool, frames: Path | None = None) -> int:
    """Print the plan of a job, and write its start frames to `frames` unless that is None. Return the exit code."""
    asyncio.run(_show_plan(job, options, as_json=as_json, frames=frames))
    return 0


async def _show_plan(job: Job, options: RunOptions, *, as_json: bool, frames: Path | None) -> None:
    """Print the plan. Return nothing, because `asyncio.run` takes the `repr` of a result, which could be large."""
    prepared = await prepare_job(job, options)
    plan = prepared.plan
    written = _write_frames(prepared, frames) if frames else []
    if as_json:
        print(escape_json(json.dumps(plan.summary(), indent=2)))
        return
    console = _make_console(stderr=False)
    _print_line(console, _describe_provider(prepared))
    console.print(_make_plan_table(plan))
    for model, inputs in {request.model: request.ratio_inputs for request in plan.requests}.items():
        _print_line(console, f"sent to {model} for {plan.aspect_ratio}: {_format_inputs(inputs)}")
    _print_totals(console, plan)
    if prepared.provider == "replicate" and plan.to_create:
        _print_line(console, f"expected to take about {format_clock(plan.expected_s)} with {plan.concurrency} at once")
    if frames:
        _print_line(console, f"{len(written)} start frames written to {frames}: look at them before you run the job")


def _write_frames(prepared: PreparedJob, folder: Path) -> list[Path]:
    from videogen.adapters.images import write_frames

    return write_frames(prepared.plan.requests, prepared.references, folder)


def _make_plan_table(plan: Plan) -> Table:
    table = _make_table("scene", "target s", "buffered s", "request s", "adds %", "cost $", "references")
    for request in plan.requests:
        table.add_row(
            request.scene.id,
            f"{request.scene.target_duration:g}",
            f"{request.buffered_duration:g}",
            f"{request.requested_duration:g}",
            f"{request.buffer_cost_impact:g}",
            "reused" if request.scene.id in plan.reused else _format_price(request.cost, request.cost_is_exact),
            ", ".join(f"{len(uses)} {name}" for name, uses in request.references if uses),
        )
    return table


def _format_price(cost: Decimal, exact: bool) -> str:
    return f"{cost}" if exact else f"≈ {cost}"


def _print_totals(console: Console, plan: Plan) -> None:
    for warning in plan.warnings:
        _print_line(console, f"warning: {warning}")
    if not plan.to_create:
        _print_line(
            console, f"{plan.job_id}: all {len(plan.requests)} clips were delivered before and are reused, for $0"
        )
        return
    if plan.spent_before:
        cap = "" if plan.max_cost is None else f" of ${plan.max_cost}"
        _print_line(console, f"{plan.job_id}: ${plan.spent_before}{cap} spent by earlier runs")
    about = "" if plan.cost_is_exact else "about "
    _print_line(
        console,
        f"{plan.job_id}: {len(plan.to_create)} of {len(plan.requests)} clips to make with {plan.model} "
        f"at {plan.aspect_ratio} for {about}${plan.total_cost}; ${plan.worst_case_cost} if every attempt is needed; "
        f"the buffer adds {plan.buffer_cost_impact:g} % on average",
    )


def _describe_provider(prepared: PreparedJob) -> str:
    place = "" if prepared.provider == "local" else f" at {prepared.origin}"
    return f"provider: {prepared.provider}{place} ({prepared.provider_reason})"


# -- check ------------------------------------------------------------------------------------------------------------


def check_job(path: Path, registry: Path | None, *, as_json: bool) -> int:
    """Print the problems of the job and the registry, or one line that sums up the job. Return the exit code."""
    settings = read_settings()
    try:
        checked = load_and_validate(path, registry or settings.registry)
        try:
            asyncio.run(check_local_references(checked.job, path.absolute().parent))
        except ValidationError as exc:
            raise checked.source.with_positions(exc) from None
    except ValidationError as exc:
        if not as_json:
            raise
        print(escape_json(json.dumps({"problems": [problem.summary() for problem in exc.problems]}, indent=2)))
        return 2
    planned = plan_offline(checked, buffer=settings.duration_buffer)
    if as_json:
        names = {"job_id", "model", "aspect_ratio", "total_cost", "cost_is_exact"}
        told = {name: value for name, value in planned.summary().items() if name in names}
        print(escape_json(json.dumps({"problems": [], "scenes": len(planned.requests), **told}, indent=2)))
        return 0
    scenes = f"{len(planned.requests)} scene{'' if len(planned.requests) == 1 else 's'}"
    about = "" if planned.cost_is_exact else "about "
    at = f"{planned.model} at {planned.aspect_ratio}"
    _print_line(
        _make_console(stderr=False), f"{path.name}: {scenes} for {at}, {about}${planned.total_cost}; no problems found"
    )
    return 0


# -- run --------------------------------------------------------------------------------------------------------------


OutputFormat = Literal["text", "json", "jsonl"]
"""Format of standard output: lines for people, the manifest as JSON, or each event as a line of JSON. With the latter
two, the lines for people go to standard error."""


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
    console = _make_console(stderr=output != "text")
    prepared = await prepare_job(job, options)
    await _check_account(prepared)
    _print_line(console, _describe_provider(prepared))
    _print_totals(console, prepared.plan)
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
        _print_line(
            console,
            f"could not report the final state to Prefect: {report_error}; the manifest and the journal are complete",
        )
        _exit_now(
            _get_exit_code(batch)
        )  # otherwise Prefect's client would spend 7 s on each event that it cannot deliver
    return _get_exit_code(batch)


async def _check_account(prepared: PreparedJob) -> None:
    """Raise `AccountError` if the token is refused, before Prefect is started."""
    token = prepared.settings.replicate_api_token
    if prepared.provider == "replicate" and prepared.plan.to_create and token:
        from videogen.adapters.replicate import ReplicateProvider
        from videogen.calls import ProviderGate

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
    from flows.server import start_own_server, wait_until_recorded, wait_until_server_ready

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
    console = _make_console(stderr=False)
    return lambda event, payload: _print_line(console, escape_json(json.dumps({"event": event.type, **payload})))


async def _find_flow_failure(state: Any) -> Exception:
    """Return the error for which a flow run ended without a verdict."""
    if state.is_cancelled():
        return RunInterruptedError(state.message or "cancelled")
    error = await state.aresult(raise_on_failure=False)
    return error if isinstance(error, Exception) else VideogenError(state.message or f"the flow run is {state.name}")


def _has_own_server() -> bool:
    """Return whether Prefect's server was started for this run."""
    from flows.server import has_own_server

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
    table = _make_table("scene", "target s", "actual s", "size", "fps", "tries", "cost $", "status")
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
    cost = f"${batch.total_cost} of ${prepared.plan.total_cost} planned"
    _print_line(console, f"{batch.verdict.status}: {batch.verdict.reason}; {cost}, {batch.total_generation_time:.1f} s")
    _print_line(console, f"clips, manifest.json and index.html are in {prepared.folder}")


def _get_exit_code(batch: RunResult) -> int:
    if any(clip.error and clip.error.code in ACCOUNT_CODES for clip in batch.clips):
        return 3
    return 1 if batch.verdict.status == "failed" else 0


class Interruption:
    """Handles Ctrl-C and SIGTERM.

    The first signal ends the run and cancels its predictions, or leaves them running. The second exits at once.
    """

    def __init__(self, *, leaves_running: bool) -> None:
        self.exit_code = 130
        self.stop = asyncio.Event()
        """Set when the run has to stop making clips."""
        self.is_making_clips = False
        """Whether clips are being made. Before and after that only the command itself has to be stopped."""
        self.is_interrupted = False
        self._leaves_running = leaves_running
        self._journal_url = ""
        self._task: Task[Any] | None = None
        self._lines: ProgressLines | None = None

    def watch(self, task: "Task[Any] | None", lines: ProgressLines, journal_url: str) -> None:
        self._task, self._lines, self._journal_url = task, lines, journal_url
        self.arm()

    def arm(self) -> None:
        with suppress(NotImplementedError):  # on Windows, where Ctrl-C cancels the main task anyway
            for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt, code)

    def _interrupt(self, code: int) -> None:
        self.exit_code = code
        if self.is_interrupted:
            self._exit_at_once()
        self.is_interrupted = True
        what = "leaving predictions running" if self._leaves_running else "cancelling running predictions"
        cost = self._describe_cancel_cost()
        print(f"interrupted: {what}; press Ctrl-C again to quit at once{cost}", file=sys.stderr)
        if self.is_making_clips:
            self.stop.set()
        elif self._task:
            self._task.cancel()

    def _describe_cancel_cost(self) -> str:
        """Return what it costs to cancel the running predictions, or an empty string if there are none."""
        running = self._lines.progress.running_cost() if self._lines else {}
        if not running:
            return ""
        number, cost = len(running), sum(running.values(), Decimal(0))
        are = "1 prediction is" if number == 1 else f"{number} predictions are"
        if self._leaves_running:
            return f" ({are} left running, for up to ${cost}: the next run continues them within an hour)"
        hint = "--on-interrupt leave would keep them for the next run"
        return f" ({are} running, cancelling is billed up to ${cost}; {hint})"

    def exit_unreported(self) -> NoReturn:
        """Exit the process of a run that has ended, without waiting for Prefect any longer."""
        self.report_end()
        print("could not report the final state to Prefect", file=sys.stderr)
        _exit_now(self.exit_code)

    def report_end(self) -> None:
        """Print the result and cost of an interrupted run, and the predictions that may still be running."""
        from videogen.journal import Journal

        cause = "interrupted" if self.is_interrupted else "cancelled in Prefect"
        progress = self._lines.progress if self._lines else None
        with suppress(JournalError):
            if progress and progress.run_id:
                journal = Journal(self._journal_url, read_only=True)
                for attempt in journal.find_running_attempts(progress.run_id):
                    what = attempt.prediction_id or "whose id was never received; the next run looks for it"
                    print(f"may still be running: prediction {what}", file=sys.stderr)
                spent, _ = journal.get_spending(progress.run_id)
                cancelled = journal.get_interrupted_cost(progress.run_id)
                journal.close()
                done = f"{progress.completed - progress.failed} of {progress.total} delivered"
                print(
                    f"{cause}: {done}, ${spent} spent, of which ${cancelled} for cancelled predictions", file=sys.stderr
                )
        print(f"{cause}: delivered clips are kept, run the same command again to continue", file=sys.stderr)

    def _exit_at_once(self) -> NoReturn:
        if self._lines:
            self._lines.close()
            for clip in self._lines.progress.in_progress.values():
                print(f"may still be running: prediction {escape_unprintable(clip.prediction_id)}", file=sys.stderr)
        _exit_now(self.exit_code)


def _exit_now(code: int) -> NoReturn:
    """Exit the process without waiting for anything."""
    if "flows.server" in sys.modules:
        from flows.server import terminate_own_server

        terminate_own_server()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# -- models -----------------------------------------------------------------------------------------------------------


def show_models(extension: Path | None, *, as_json: bool) -> None:
    """Print the models of the registry."""
    listed = describe_models(read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(listed.model_dump_json(indent=2)))
        return
    table = _make_table("model", "seconds", "price $", "as of", "refs", "run s", "ratios")
    table.padding = 0  # columns are separated by spaces, so that the table just fits into 80
    for column, width in zip(table.columns[1:], (8, 13, 10, 8, 5, 11), strict=True):
        column.width, column.no_wrap = width, False
    for model in listed.models:
        table.add_row(
            escape_unprintable(model.id),
            _format_lengths(model.durations),
            "\n".join(_format_prices(model.price)),
            str(model.price.as_of),
            "\n".join(_list_reference_uses(model)),
            f"{model.typical_run_seconds:g}",
            ", ".join(model.aspect_ratios),
        )
    console = _make_console(stderr=False)
    console.print(table)
    _print_line(
        console, "≈ estimated; references are taken as they are (native), as one start frame (composed), or dropped"
    )


def show_model(name: str, extension: Path | None, *, as_json: bool) -> None:
    """Print all properties of one model."""
    model = describe_model(name, read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(model.model_dump_json(indent=2)))
        return
    console = _make_console(stderr=False)
    for title, text in _list_model_facts(model):
        _print_line(console, f"{title:<14}{text}")


def _list_model_facts(model: ModelInfo) -> Iterator[tuple[str, str]]:
    yield "model", model.id
    yield "replicate", model.replicate + (f":{model.version}" if model.version else "")
    yield "source", model.source
    yield "seconds", f"{_format_lengths(model.durations)} ({model.durations.mode})"
    yield "price", f"{', '.join(_format_prices(model.price))} USD, {_format_price_basis(model.price)}"
    if model.audio_price:
        yield (
            "with sound",
            f"{', '.join(_format_prices(model.audio_price))} USD, {_format_price_basis(model.audio_price)}",
        )
    yield "typically", f"{model.typical_run_seconds:g} s, given up after {model.timeout_seconds:g} s"
    inputs = {
        "prompt": model.takes_prompt,
        "negative_prompt": model.takes_negative_prompt,
        "seed": model.takes_seed,
        "image (required)": model.image_required,
        "image (taken)": model.takes_image and not model.image_required,
    }
    yield "takes", ", ".join(name for name, is_taken in inputs.items() if is_taken)
    needs = (
        [f"with {_format_inputs(model.references.requires)}"] if model.references and model.references.requires else []
    )
    first, *otherwise = _list_reference_uses(model)
    yield "references", ", else ".join([" ".join([first, *needs]), *otherwise])
    if model.fixed_inputs:
        yield "always sent", _format_inputs(model.fixed_inputs)
    for ratio, ratio_inputs in model.ratio_inputs.items():
        yield f"sent for {ratio}", _format_inputs(ratio_inputs) or "nothing more"
    if model.ignored_inputs:
        yield "ignored", f"{', '.join(model.ignored_inputs)} (by the endpoint)"


def _format_lengths(durations: Durations) -> str:
    if not durations.lengths:
        return f"{durations.min:g} to {durations.max:g}"
    whole = range(round(durations.min), round(durations.max) + 1)
    if len(whole) > 3 and durations.lengths == tuple(map(float, whole)):
        return f"{durations.min:g}, {durations.min + 1:g} … {durations.max:g}"
    return ", ".join(f"{seconds:g}" for seconds in durations.lengths)


def _format_prices(price: Prices) -> list[str]:
    """Return each price with its unit; one for each length if the price depends on it."""
    about = "" if price.basis == "exact" else "≈"
    if isinstance(price.per_clip, dict):
        return [f"{about}{_format_usd(cost)} for {seconds:g} s" for seconds, cost in price.per_clip.items()]
    units = ((price.per_second, "s"), (price.per_clip, "clip"), (price.per_gpu_second, "GPU s"))
    return [f"{about}{_format_usd(cost)}/{unit}" for cost, unit in units if cost is not None]


def _format_usd(cost: Decimal) -> str:
    """Format USD with at least two decimals, and no trailing zeros beyond."""
    short = cost.normalize()
    return f"{max(short, short.quantize(Decimal('0.01')), key=lambda each: -int(each.as_tuple().exponent)):f}"


def _format_price_basis(price: Prices) -> str:
    return ", ".join(filter(None, [f"{price.basis}, as of {price.as_of}", price.note]))


def _list_reference_uses(model: ModelInfo) -> list[str]:
    """Return how many references are used and in which way, the preferred way first."""
    native = [f"{model.references.max} native"] if model.references else []
    return [*native, *(["composed"] if model.composes_references else [])] or ["dropped"]


def _format_inputs(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in inputs.items())


def show_model_checks(
    names: Sequence[str],
    extension: Path | None,
    snapshots: Snapshots,
    *,
    offline: bool,
    snapshot: bool,
    as_json: bool,
) -> int:
    """Print the differences between the registry and Replicate. Return the exit code."""
    from videogen import conformance

    settings = read_settings()
    settings = settings.model_copy(update={"registry": extension or settings.registry})
    checked = asyncio.run(
        conformance.compare_with_endpoints(names, settings, snapshots, offline=offline, keep=snapshot)
    )
    drifted = [model for model in checked if model.drift]
    if as_json:
        shown = {"drift": bool(drifted), "models": [model.summary() for model in checked]}
        print(escape_json(json.dumps(shown, indent=2)))
        return 1 if drifted else 0
    console = _make_console(stderr=False)
    for model in checked:
        _print_line(console, f"{model.id}: {_describe_check(model)}")
        for problem in model.drift:
            _print_line(console, f"  {problem}")
    place = f"the snapshots in {snapshots.folder}" if offline else "Replicate"
    agree = f"{len(drifted)} drifted" if drifted else "all agree"
    _print_line(console, f"{len(checked)} models compared with {place}: {agree}")
    return 1 if drifted else 0


def _describe_check(model: "ModelCheck") -> str:
    found = len(model.drift)
    verdict = f"drifted from {model.replicate} in {found} place{'s' * (found > 1)}" if found else "agrees"
    return verdict + (f"; ignored by the endpoint: {', '.join(model.ignored_inputs)}" if model.ignored else "")


# -- settings ---------------------------------------------------------------------------------------------------------


def show_settings(*, as_json: bool) -> None:
    """Print the effective settings and the source of each."""
    found = find_effective_settings(read_settings())
    if as_json:
        shown = {each.variable: {"value": each.value, "from": each.origin} for each in found}
        print(escape_json(json.dumps(shown, indent=2)))
        return
    console = _make_console(stderr=False)
    for each in found:
        _print_line(
            console, f"{each.variable:<{max(len(one.variable) for one in found)}}  {each.value or '-'}  ({each.origin})"
        )


def _make_table(*columns: str) -> Table:
    """Return a table for 80 columns. Its first and last columns are text, the others numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, name in enumerate(columns):
        text = index in (0, len(columns) - 1)
        table.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=index > 0)
    return table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Become silent when the reader has gone (`… | head`). The run goes on, because it is paid for."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _make_console(*, stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _print_line(console: Console, line: str) -> None:
    """Print a line literally: it is neither wrapped nor parsed as markup, and control characters are escaped."""
    console.print(escape_unprintable(line), soft_wrap=True)
