"""What the commands show a person: the plan, a run as it goes on, its result."""

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

from videogen.bootstrap import Listener, Options, Prepared, check_local_references, handing_over, prepare
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
from videogen.progress import ProgressLines, clock
from videogen.registry import read_registry
from videogen.scene import Job
from videogen.settings import Settings, find_effective_settings, read_settings

if TYPE_CHECKING:
    from asyncio import Task

    from videogen.conformance import ModelCheck

MAX_PARAMETER_BYTES = 400_000
"""Of a job as a flow's parameter: Prefect refuses what takes 524,288 bytes in its own JSON."""
HEARS_S = 30.0
"""How long Prefect's server may take to hear how a run ended."""
STOPS_S = 15.0
"""How long an interrupted run may take: to cancel its predictions, and then to tell Prefect's server."""
ACCOUNT_CODES = {"authentication", "billing"}


# -- plan -------------------------------------------------------------------------------------------------------------


def show_plan(job: Job, options: Options, *, as_json: bool, frames: Path | None = None) -> int:
    """Prints what the job would ask for and cost, and writes its start frames to a folder. Returns the exit code."""
    asyncio.run(_show_plan(job, options, as_json=as_json, frames=frames))
    return 0


async def _show_plan(job: Job, options: Options, *, as_json: bool, frames: Path | None) -> None:
    """Prints the plan and returns nothing: `asyncio.run` asks for the `repr` of what it returns, which can be large."""
    prepared = await prepare(job, options)
    plan = prepared.plan
    written = _write_frames(prepared, frames) if frames else []
    if as_json:
        print(escape_json(json.dumps(plan.summary(), indent=2)))
        return
    console = _console(stderr=False)
    _say(console, _provider_line(prepared))
    console.print(_plan_table(plan))
    for model, inputs in {request.model: request.ratio_inputs for request in plan.requests}.items():
        _say(console, f"sent to {model} for {plan.aspect_ratio}: {_inputs(inputs)}")
    _print_totals(console, plan)
    if prepared.provider == "replicate" and plan.to_create:
        _say(console, f"expected to take about {clock(plan.expected_s)} with {plan.concurrency} at once")
    if frames:
        _say(console, f"{len(written)} start frames written to {frames}: look at them before you run the job")


def _write_frames(prepared: Prepared, folder: Path) -> list[Path]:
    from videogen.adapters.images import write_frames

    return write_frames(prepared.plan.requests, prepared.references, folder)


def _plan_table(plan: Plan) -> Table:
    table = _table("scene", "target s", "buffered s", "request s", "adds %", "cost $", "references")
    for request in plan.requests:
        table.add_row(
            request.scene.id,
            f"{request.scene.target_duration:g}",
            f"{request.buffered_duration:g}",
            f"{request.requested_duration:g}",
            f"{request.buffer_cost_impact:g}",
            "reused" if request.scene.id in plan.reused else _price(request.cost, request.cost_is_exact),
            ", ".join(f"{len(uses)} {name}" for name, uses in request.references if uses),
        )
    return table


def _price(cost: Decimal, exact: bool) -> str:
    return f"{cost}" if exact else f"≈ {cost}"


def _print_totals(console: Console, plan: Plan) -> None:
    for warning in plan.warnings:
        _say(console, f"warning: {warning}")
    if not plan.to_create:
        _say(console, f"{plan.job_id}: all {len(plan.requests)} clips were delivered before and are reused, for $0")
        return
    if plan.spent_before:
        cap = "" if plan.max_cost is None else f" of ${plan.max_cost}"
        _say(console, f"{plan.job_id}: ${plan.spent_before}{cap} spent by earlier runs")
    about = "" if plan.cost_is_exact else "about "
    _say(
        console,
        f"{plan.job_id}: {len(plan.to_create)} of {len(plan.requests)} clips to make with {plan.model} "
        f"at {plan.aspect_ratio} for {about}${plan.total_cost}; ${plan.worst_case_cost} if every attempt is needed; "
        f"the buffer adds {plan.buffer_cost_impact:g} % on average",
    )


def _provider_line(prepared: Prepared) -> str:
    place = "" if prepared.provider == "local" else f" at {prepared.origin}"
    return f"provider: {prepared.provider}{place} ({prepared.why})"


# -- check ------------------------------------------------------------------------------------------------------------


def check_job(path: Path, registry: Path | None, *, as_json: bool) -> int:
    """Says what is wrong with the job and the registry, or in a line what was looked at. Returns the exit code."""
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
    _say(_console(stderr=False), f"{path.name}: {scenes} for {at}, {about}${planned.total_cost}; nothing is wrong")
    return 0


# -- run --------------------------------------------------------------------------------------------------------------


Output = Literal["text", "json", "jsonl"]
"""What standard output gets: lines for a person; the manifest; each event as a line of JSON. With the latter two, what
a person reads goes to standard error."""


def run_job(job: Job, options: Options, *, file: Path, output: Output = "text", serve: bool = False) -> int:
    """Runs the flow on a file's job and prints its result; with `serve`, browsers can watch. Returns the exit code."""
    interruption = Interruption(leaves_running=options.on_interrupt == "leave")
    with _served(options.settings()) if serve else nullcontext() as address:
        try:
            code = asyncio.run(_run(job, options, file, output, address, interruption))
        except (asyncio.CancelledError, RunInterruptedError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is cancelled: a second Ctrl-C has nothing left to hurry
            interruption.tell_the_end()
            return interruption.exit_code
        if address and sys.stdin.isatty():
            print(f"still to be seen at {address}; Ctrl-C ends it", file=sys.stderr)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    return code


@contextmanager
def _served(settings: Settings) -> Iterator[str]:
    """The address of a gateway on this machine that shows the runs of these settings."""
    from videogen.gateway import GatewaySettings, running

    shown = GatewaySettings(settings.local_out, settings.get_journal_url(), settings.registry, port=0)
    with running(shown) as gateway:
        yield gateway.url


async def _run(
    job: Job, options: Options, file: Path, output: Output, address: str | None, interruption: "Interruption"
) -> int:
    console = _console(stderr=output != "text")
    prepared = await prepare(job, options)
    await _check_account(prepared)
    _say(console, _provider_line(prepared))
    _print_totals(console, prepared.plan)
    lines = ProgressLines(console, prepared.plan)
    if address:
        lines.say(f"watch it at {address}")
    interruption.watch(asyncio.current_task(), lines, prepared.settings.get_journal_url())
    try:
        listeners = [_event_lines()] if output == "jsonl" else []
        batch, unheard = await _call_flow(prepared, str(file), lines, interruption, listeners)
    finally:
        lines.close()
    if output == "json":
        print(escape_json(batch.manifest()), end="")
    elif output == "text":
        _print_result(console, batch, prepared)
    if unheard:
        _say(console, f"Prefect did not hear how this run ended: {unheard}; the manifest and the journal are complete")
        _leave(_exit_code(batch))  # else its client would try to deliver what it has, 7 s for each event
    return _exit_code(batch)


async def _check_account(prepared: Prepared) -> None:
    """A refused token is said before Prefect is started, in one line."""
    token = prepared.settings.replicate_api_token
    if prepared.provider == "replicate" and prepared.plan.to_create and token:
        from videogen.adapters.replicate import ReplicateProvider
        from videogen.calls import Calls

        provider = ReplicateProvider(token.get_secret_value(), base_url=prepared.settings.replicate_base_url)
        try:
            await Calls().repeat(provider.check_account, tries=4)
        finally:
            await provider.aclose()


async def _call_flow(
    prepared: Prepared,
    file: str,
    lines: ProgressLines,
    interruption: "Interruption",
    listeners: Sequence[Listener],
) -> tuple[RunResult, str]:
    """What came of the run, and why Prefect does not know it; empty when it does."""
    _set_up_prefect(prepared.settings.local_out)
    began = time.monotonic()
    from flows.server import recorded, server_answers, start_own_server

    if start_own_server():
        lines.say("starting Prefect's own server for this run: about 5 s, the first time up to a minute …")
    from flows.generate import generate

    verdict = _Verdict()

    def on_event(event: RunEvent, payload: Mapping[str, Any]) -> None:
        verdict.hear(event)
        if isinstance(event, RunStarted):
            lines.say(f"Prefect is there after {time.monotonic() - began:.1f} s")
            interruption.arm()  # Prefect has put its own handler in place
        interruption.is_making = not isinstance(event, RunCompleted)
        lines.show(event, payload)
        if prepared.options.rough_cut and isinstance(event, ClipEnded) and payload["completed"] == payload["total"]:
            lines.say("cutting rough_cut.mp4 …")

    try:
        await server_answers()
        with handing_over(prepared, on_event, *listeners, file=file, stop=interruption.stop):
            fits = len(prepared.job.model_dump_json()) < MAX_PARAMETER_BYTES
            flow = generate(prepared.job if fits else file, prepared.options, return_state=True)
            state = await _until_silent(asyncio.ensure_future(flow), verdict, interruption)
        of_run, task_runs = state.state_details.flow_run_id, len(prepared.plan.requests) - len(prepared.kept)
        if verdict.batch and _has_own_server() and not await recorded(of_run, task_runs, within_s=5 + task_runs / 10):
            return verdict.batch, "not every task run was recorded in time"
    except Exception as exc:  # what the flow raises is in its state: this is Prefect's own
        reason = str(exc) or type(exc).__name__
        if verdict.batch is None:
            raise VideogenError(f"Prefect cannot be used: {reason}") from exc
        return verdict.batch, reason
    if verdict.batch is None:
        raise await _reason(state)
    return verdict.batch, ""


class _Verdict:
    """What came of the run, as soon as it is known."""

    def __init__(self) -> None:
        self.batch: RunResult | None = None
        self.known = asyncio.Event()

    def hear(self, event: RunEvent) -> None:
        if isinstance(event, RunCompleted):
            self.batch = event.result
            self.known.set()


async def _until_silent(flow: "asyncio.Future[Any]", verdict: _Verdict, interruption: "Interruption") -> Any:
    """Return the state that the flow run ends in, unless Prefect's server leaves it waiting for an answer.

    Once the run is judged it waits for `HEARS_S` at most and raises `TimeoutError`. Once it is interrupted it waits for
    `STOPS_S`, in which predictions are cancelled, too; then it ends the process.
    """
    ending = [asyncio.create_task(event.wait()) for event in (verdict.known, interruption.stop)]
    try:
        waited_for: list[asyncio.Future[Any]] = [flow, *ending]
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([flow], timeout=STOPS_S if interruption.stop.is_set() else HEARS_S)
    except asyncio.CancelledError:
        flow.cancel()
        await asyncio.wait([flow], timeout=STOPS_S)
        if flow.done():
            raise
    for event in ending:
        event.cancel()
    if flow.done():
        return flow.result()
    if interruption.is_interrupted:
        interruption.leave()
    raise TimeoutError(f"its server did not answer within {HEARS_S:g} s")


def _event_lines() -> Listener:
    """Prints every event on standard output, as a JSON object on a line of its own."""
    console = _console(stderr=False)
    return lambda event, payload: _say(console, escape_json(json.dumps({"event": event.type, **payload})))


async def _reason(state: Any) -> Exception:
    """Why a flow run ended without a verdict."""
    if state.is_cancelled():
        return RunInterruptedError(state.message or "cancelled")
    error = await state.aresult(raise_on_failure=False)
    return error if isinstance(error, Exception) else VideogenError(state.message or f"the flow run is {state.name}")


def _has_own_server() -> bool:
    """Whether Prefect's server is one that was started for this run."""
    from flows.server import has_own_server

    return has_own_server()


def choose_prefect_home(environment: Mapping[str, str], out: Path) -> str | None:
    """Return a folder for Prefect's own files where the user's home cannot be written; None leaves it to Prefect."""
    if environment.get("PREFECT_HOME"):
        return None
    home = Path(environment.get("HOME") or Path.home())
    own = home / ".prefect"
    place = own if own.exists() else home
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return None
    return str(out.absolute() / ".prefect")


def _set_up_prefect(out: Path) -> None:
    """Defaults that suit a run at a terminal; what the environment or a Prefect profile says wins."""
    if home := choose_prefect_home(os.environ, out):
        with suppress(OSError):  # Prefect, which makes no parents, says what is wrong with it
            Path(home).mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = home
    for name, value in {
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # 14 s a call: a restart is waited for, a server that is gone is left
        "PREFECT_API_REQUEST_TIMEOUT": "20",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_ROOT_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)


def _print_result(console: Console, batch: RunResult, prepared: Prepared) -> None:
    table = _table("scene", "target s", "actual s", "size", "fps", "tries", "cost $", "status")
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
    _say(console, f"{batch.verdict.status}: {batch.verdict.reason}; {cost}, {_seconds(batch)}")
    _say(console, f"clips, manifest.json and index.html are in {prepared.folder}")


def _seconds(batch: RunResult) -> str:
    return f"{batch.total_generation_time:.1f} s"


def _exit_code(batch: RunResult) -> int:
    if any(clip.error and clip.error.code in ACCOUNT_CODES for clip in batch.clips):
        return 3
    return 1 if batch.verdict.status == "failed" else 0


class Interruption:
    """Ctrl-C and SIGTERM: the first ends the run and cancels its predictions, or leaves them running; the second leaves
    at once."""

    def __init__(self, *, leaves_running: bool) -> None:
        self.exit_code = 130
        self.stop = asyncio.Event()
        """Set when the run is to stop making clips."""
        self.is_making = False
        """Whether it makes clips: before and after that there is nothing to stop but the command itself."""
        self.is_interrupted = False
        self._leaves_running = leaves_running
        self._journal_url = ""
        self._task: Task[Any] | None = None
        self._lines: ProgressLines | None = None

    def watch(self, task: "Task[Any] | None", lines: ProgressLines, journal_url: str) -> None:
        self._task, self._lines, self._journal_url = task, lines, journal_url
        self.arm()

    def arm(self) -> None:
        with suppress(NotImplementedError):  # not on Windows, where Ctrl-C cancels the main task as it is
            for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
                asyncio.get_running_loop().add_signal_handler(number, self._interrupt, code)

    def _interrupt(self, code: int) -> None:
        self.exit_code = code
        if self.is_interrupted:
            self._leave_at_once()
        self.is_interrupted = True
        what = "leaving" if self._leaves_running else "cancelling"
        print(f"interrupted: {what} what runs; once more to leave at once{self._price()}", file=sys.stderr)
        if self.is_making:
            self.stop.set()
        elif self._task:
            self._task.cancel()

    def _price(self) -> str:
        """Say what it costs to cancel what runs now; empty where nothing runs."""
        running = self._lines.progress.running_cost() if self._lines else {}
        if not running:
            return ""
        number, cost = len(running), sum(running.values(), Decimal(0))
        are = "1 prediction is" if number == 1 else f"{number} predictions are"
        if self._leaves_running:
            return f" ({are} left running, for up to ${cost}: the next run continues them within an hour)"
        hint = "--on-interrupt leave would leave them to the next run"
        return f" ({are} running, cancelling is billed up to ${cost}; {hint})"

    def leave(self) -> NoReturn:
        """End the process of a run that has ended, but waits for Prefect."""
        self.tell_the_end()
        print("Prefect did not hear how this run ended", file=sys.stderr)
        _leave(self.exit_code)

    def tell_the_end(self) -> None:
        """Say what came of an interrupted run and what it cost, and which predictions may still be running."""
        from videogen.journal import Journal

        told = "interrupted" if self.is_interrupted else "cancelled in Prefect"
        progress = self._lines.progress if self._lines else None
        with suppress(JournalError):
            if progress and progress.run_id:
                journal = Journal(self._journal_url, for_watching=True)
                for attempt in journal.open_attempts(progress.run_id):
                    what = attempt.prediction_id or "one whose answer did not come; the next run looks for it"
                    print(f"may still be running: prediction {what}", file=sys.stderr)
                (spent, _), cancelled = journal.spending(progress.run_id), journal.interrupted_cost(progress.run_id)
                journal.close()
                done = f"{progress.completed - progress.failed} of {progress.total} delivered"
                print(
                    f"{told}: {done}, ${spent} spent, of which ${cancelled} for cancelled predictions", file=sys.stderr
                )
        print(f"{told}: what was delivered is kept, run the same command again to go on", file=sys.stderr)

    def _leave_at_once(self) -> NoReturn:
        if self._lines:
            self._lines.close()
            for clip in self._lines.progress.making.values():
                print(f"may still be running: prediction {escape_unprintable(clip.prediction_id)}", file=sys.stderr)
        _leave(self.exit_code)


def _leave(code: int) -> NoReturn:
    """Ends the process without waiting for anything."""
    if "flows.server" in sys.modules:
        from flows.server import end_own_server

        end_own_server()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# -- models -----------------------------------------------------------------------------------------------------------


def show_models(extension: Path | None, *, as_json: bool) -> None:
    """Prints the registry."""
    listed = describe_models(read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(listed.model_dump_json(indent=2)))
        return
    table = _table("model", "seconds", "price $", "as of", "refs", "run s", "ratios")
    table.padding = 0  # the lines between columns are spaces: all just fits into 80
    for column, width in zip(table.columns[1:], (8, 13, 10, 8, 5, 11), strict=True):
        column.width, column.no_wrap = width, False
    for model in listed.models:
        table.add_row(
            escape_unprintable(model.id),
            _lengths(model.durations),
            "\n".join(_model_prices(model.price)),
            str(model.price.as_of),
            "\n".join(_references(model)),
            f"{model.typical_run_seconds:g}",
            ", ".join(model.aspect_ratios),
        )
    console = _console(stderr=False)
    console.print(table)
    _say(console, "≈ estimated; references are taken as they are (native), as one start frame (composed), or dropped")


def show_model(name: str, extension: Path | None, *, as_json: bool) -> None:
    """Prints all that is to be known of one model."""
    model = describe_model(name, read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(model.model_dump_json(indent=2)))
        return
    console = _console(stderr=False)
    for title, text in _facts(model):
        _say(console, f"{title:<14}{text}")


def _facts(model: ModelInfo) -> Iterator[tuple[str, str]]:
    yield "model", model.id
    yield "replicate", model.replicate + (f":{model.version}" if model.version else "")
    yield "source", model.source
    yield "seconds", f"{_lengths(model.durations)} ({model.durations.mode})"
    yield "price", f"{', '.join(_model_prices(model.price))} USD, {_price_basis(model.price)}"
    if model.audio_price:
        yield "with sound", f"{', '.join(_model_prices(model.audio_price))} USD, {_price_basis(model.audio_price)}"
    yield "typically", f"{model.typical_run_seconds:g} s, given up after {model.timeout_seconds:g} s"
    image = "required" if model.image_required else "taken" if model.takes_image else ""
    given = {"prompt": model.takes_prompt, "negative_prompt": model.takes_negative_prompt, "seed": model.takes_seed}
    yield "takes", ", ".join([*(what for what, taken in given.items() if taken), *([f"image ({image})"] * bool(image))])
    needs = [f"with {_inputs(model.references.requires)}"] if model.references and model.references.requires else []
    first, *otherwise = _references(model)
    yield "references", ", else ".join([" ".join([first, *needs]), *otherwise])
    if model.fixed_inputs:
        yield "always sent", _inputs(model.fixed_inputs)
    for ratio, inputs in model.ratio_inputs.items():
        yield f"sent for {ratio}", _inputs(inputs) or "nothing more"
    if model.ignored_inputs:
        yield "ignored", f"{', '.join(model.ignored_inputs)} (by the endpoint)"


def _lengths(durations: Durations) -> str:
    if not durations.lengths:
        return f"{durations.min:g} to {durations.max:g}"
    whole = range(round(durations.min), round(durations.max) + 1)
    if len(whole) > 3 and durations.lengths == tuple(map(float, whole)):
        return f"{durations.min:g}, {durations.min + 1:g} … {durations.max:g}"
    return ", ".join(f"{seconds:g}" for seconds in durations.lengths)


def _model_prices(price: Prices) -> list[str]:
    """Each with its unit; of a price by length one for each length."""
    about = "" if price.basis == "exact" else "≈"
    if isinstance(price.per_clip, dict):
        return [f"{about}{_usd(cost)} for {seconds:g} s" for seconds, cost in price.per_clip.items()]
    units = ((price.per_second, "s"), (price.per_clip, "clip"), (price.per_gpu_second, "GPU s"))
    return [f"{about}{_usd(cost)}/{unit}" for cost, unit in units if cost is not None]


def _usd(cost: Decimal) -> str:
    """With as many decimals as it has, at least two."""
    short = cost.normalize()
    return f"{max(short, short.quantize(Decimal('0.01')), key=lambda each: -int(each.as_tuple().exponent)):f}"


def _price_basis(price: Prices) -> str:
    return ", ".join(filter(None, [f"{price.basis}, as of {price.as_of}", price.note]))


def _references(model: ModelInfo) -> list[str]:
    """How many references are taken and as what, the preferred way first."""
    native = [f"{model.references.max} native"] if model.references else []
    return [*native, *(["composed"] if model.composes_references else [])] or ["dropped"]


def _inputs(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in inputs.items())


def check_models(
    names: Sequence[str],
    extension: Path | None,
    snapshots: Snapshots,
    *,
    offline: bool,
    snapshot: bool,
    as_json: bool,
) -> int:
    """Prints where the registry and Replicate contradict each other. Returns the exit code."""
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
    console = _console(stderr=False)
    for model in checked:
        _say(console, f"{model.id}: {_verdict(model)}")
        for problem in model.drift:
            _say(console, f"  {problem}")
    place = f"the snapshots in {snapshots.folder}" if offline else "Replicate"
    agree = f"{len(drifted)} drifted" if drifted else "all agree"
    _say(console, f"{len(checked)} models compared with {place}: {agree}")
    return 1 if drifted else 0


def _verdict(model: "ModelCheck") -> str:
    found = len(model.drift)
    verdict = f"drifted from {model.replicate} in {found} place{'s' * (found > 1)}" if found else "agrees"
    return verdict + (f"; ignored by the endpoint: {', '.join(model.ignored_inputs)}" if model.ignored else "")


# -- settings ---------------------------------------------------------------------------------------------------------


def show_settings(*, as_json: bool) -> None:
    """Prints what applies and where it comes from."""
    found = find_effective_settings(read_settings())
    if as_json:
        shown = {each.variable: {"value": each.value, "from": each.origin} for each in found}
        print(escape_json(json.dumps(shown, indent=2)))
        return
    console = _console(stderr=False)
    for each in found:
        _say(
            console, f"{each.variable:<{max(len(one.variable) for one in found)}}  {each.value or '-'}  ({each.origin})"
        )


def _table(*columns: str) -> Table:
    """A table narrow enough for 80 columns: the first and the last one are text, the others numbers."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for index, name in enumerate(columns):
        text = index in (0, len(columns) - 1)
        table.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=index > 0)
    return table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Nobody listens any more (`… | head`): the run goes on in silence, for it is paid for."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _console(*, stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _say(console: Console, line: str) -> None:
    """One line as it is: neither wrapped, nor read as markup, nor obeyed by the terminal."""
    console.print(escape_unprintable(line), soft_wrap=True)
