"""The command `videogen`. Prefect, PyAV and the provider's client are imported only by the commands that need them."""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from videogen.errors import (
    DISTRIBUTION,
    AccountError,
    InvalidError,
    StorageError,
    ValidationError,
    VideogenError,
    escape_unprintable,
)

if TYPE_CHECKING:
    from videogen.bootstrap import Options
    from videogen.scene import Job


def _read_version() -> str:
    from importlib.metadata import version

    return version(DISTRIBUTION)


app = App(
    name="videogen",
    help="Scenes in, verified clips out: a declarative batch runner for video models on Replicate.",
    version=_read_version,
    version_flags=["--version"],
)

MAX_SLOTS = 1000
OK, FAILED, INVALID, NO_ACCOUNT = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line. Exit code: 0 accepted, 1 failed, 2 invalid, 3 account, 130 or 143 interrupted."""
    _let_any_console_show()
    try:
        result = app(
            sys.argv[1:] if argv is None else argv, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as exc:
        return _complain(_advise(str(exc)), INVALID)
    except InvalidError as exc:
        return _complain(str(exc), INVALID)
    except AccountError as exc:
        return _complain(str(exc), NO_ACCOUNT)
    except VideogenError as exc:
        return _complain(str(exc), FAILED)
    except OSError as exc:  # without a file it is of the standard output: a full disk, say
        where = exc.filename or "the output cannot be written"
        return _complain(f"{where}: {exc.strerror or exc}", FAILED)
    return result if isinstance(result, int) else OK


def _let_any_console_show() -> None:
    """What a console of another encoding than UTF-8 cannot show is written as an escape, in place of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


def _advise(message: str) -> str:
    """The message about a flag that is not known, without the suggestion to pay for everything again, and with what
    somebody who wants to go on with a run should type."""
    known, _, suggestion = message.partition(" Did you mean")
    flag = re.search(r"Unknown option: \"?(--[\w-]+)", message)
    word = flag[1].lower() if flag else ""
    if word and any(part in word for part in ("resume", "continue", "retry", "restart", "again", "failed")):
        return (
            f"{known} To go on with a run, run the same command again: what is delivered is reused. "
            "--retry-failed makes only the clips that the last run has not."
        )
    return known if "--fresh" in suggestion and "fresh" not in word else message


def _complain(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"error: {escape_unprintable(line)}", file=sys.stderr)
    return code


@Parameter(name="*")
@dataclass(frozen=True)
class JobFlags:
    """Flags that say what to run a job as; None leaves it to the job file or the environment."""

    model: str | None = None
    """Use this model of the registry instead of the job's."""
    models: str | None = None
    """Compare these models, separated by commas: each makes every scene."""
    takes: int | None = None
    """Make so many versions of every scene."""
    aspect_ratio: str | None = None
    """Use this ratio instead of the job's, such as 9:16."""
    out: str | None = None
    """Folder in which the job gets its own, or an address such as s3://bucket/prefix; `out` by default
    (VIDEOGEN_OUT)."""
    max_cost: str | None = None
    """Refuse a plan that costs more than this many USD."""
    min_clips: int | str | None = None
    """Accept the run when at least this many clips are delivered, or this share ("60%") of the scenes; 3 by default."""
    concurrency: int | None = None
    """How many clips are in the making at once; 5 by default."""
    provider: Literal["replicate", "local"] | None = None
    """`replicate`, or `local` for the emulator on this machine. By default Replicate when REPLICATE_API_TOKEN is
    set."""
    registry: Path | None = None
    """A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY)."""
    fresh: Annotated[bool, Parameter(negative="")] = False
    """Make every clip anew, also those that were delivered before."""
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    """Make only the clips that the last run of this job has not; the others stay, whatever the job file says now."""

    def overrides(self) -> dict[str, Any]:
        """The fields of the job that are given."""
        names = ("model", "takes", "aspect_ratio", "max_cost", "min_clips", "concurrency")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.models is not None:
            if self.model is not None:
                raise InvalidError("--models compares models, --model takes one: use one of them")
            given["models"] = tuple(name.strip() for name in self.models.split(","))
            if not all(given["models"]):
                raise InvalidError(f"--models: {self.models!r} has an empty name; separate names by commas")
        elif self.model is not None:
            given["models"] = ()
        return given

    def options(self, job: Path, **more: Any) -> "Options":
        from videogen.bootstrap import Options

        if self.fresh and self.retry_failed:
            raise InvalidError("--fresh makes every clip anew, --retry-failed only the failed ones: use one of them")
        return Options(
            out=self.out,
            provider=self.provider,
            registry=self.registry,
            fresh=self.fresh,
            retry_failed=self.retry_failed,
            folder=str(job.absolute().parent),
            **more,
        )


@app.command
def run(
    job: Path,
    /,
    *,
    flags: JobFlags = JobFlags(),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    rough_cut: Annotated[bool, Parameter(negative="")] = False,
    music: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    jsonl: Annotated[bool, Parameter(negative="")] = False,
    serve: Annotated[bool, Parameter(negative="")] = False,
    on_interrupt: Literal["cancel", "leave"] = "cancel",
) -> int:
    """Make the clips of a job. What was delivered by an earlier run is reused, what was in flight is continued.

    Exit code: 0 accepted (complete or partial), 1 too few clips, 2 invalid job, registry or flag, 3 token or credit
    refused, 130 or 143 interrupted.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    dry_run:
        Show the plan and its price, then stop, as `plan` does: nothing is created.
    rough_cut:
        Also write rough_cut.mp4: the film as far as it is made, every scene as long as its target; a scene without a
        clip is a slate.
    music:
        Put the sound of this file under rough_cut.mp4, which is then written too.
    json:
        Print one JSON object on standard output, the manifest or the plan; all else goes to standard error.
    jsonl:
        Print every event of the run on standard output as it happens, a JSON object a line; all else as with --json.
    serve:
        Show the run in the browser too, on this machine; prints the address.
    on_interrupt:
        What Ctrl-C, SIGTERM and a cancel in Prefect do with the predictions that are running: `cancel` cancels them,
        which is billed for the time they ran; `leave` lets them run for the next run, which continues them.
    """
    from videogen import terminal

    if dry_run and (jsonl or serve):
        raise InvalidError("--dry-run makes nothing that --jsonl or --serve could show: leave them out")
    if dry_run:
        return plan(job, flags=flags, json=json)
    if jsonl and json:
        raise InvalidError("--json prints what came of a run, --jsonl its events: use one of them")
    output: terminal.Output = "jsonl" if jsonl else "json" if json else "text"
    options = flags.options(
        job,
        rough_cut=rough_cut or music is not None,
        music=_checked_music(music),
        on_interrupt=on_interrupt,
    )
    with _job(job, flags) as asked:
        return terminal.run_job(asked, options, file=job, output=output, serve=serve)


def _checked_music(path: Path | None) -> Path | None:
    """The file with the music, which is looked at before anything is paid for. Raises `InvalidError`."""
    if path is None:
        return None
    from videogen.media import check_music

    try:
        check_music(path)
    except StorageError as exc:
        raise InvalidError(f"--music: {exc}") from None
    return path.absolute()


@app.command
def plan(
    job: Path,
    /,
    *,
    flags: JobFlags = JobFlags(),
    frames: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show what a run of the job would ask for, what it would cost, and how long it would take. Nothing is created.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    frames:
        Write the start frames that are composed of reference pictures to this folder, as the models would see them.
    json:
        Print one JSON object.
    """
    from videogen import terminal

    options = flags.options(job)
    with _job(job, flags) as asked:
        return terminal.show_plan(asked, options, as_json=json, frames=frames)


@contextmanager
def _job(path: Path, flags: JobFlags) -> Iterator["Job"]:
    """The job in the file, with what the flags say over it; what turns out wrong with it is said by line and column."""
    from videogen.checking import attribute_to_flags, load_and_validate
    from videogen.settings import read_settings

    overrides = flags.overrides()
    checked = load_and_validate(path, flags.registry or read_settings().registry, overrides)
    try:
        yield checked.job
    except ValidationError as exc:
        raise checked.source.with_positions(attribute_to_flags(exc, overrides)) from None


@app.command
def check(job: Path, /, *, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Say everything that is wrong with a job and the registry, by line and column. Nothing is fetched or created.

    Exit code: 0 nothing is wrong, 2 something is.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print one JSON object on standard output, also of what is wrong.
    """
    from videogen import terminal

    return terminal.check_job(job, registry, as_json=json)


models = App(name="models", help="Show the models of the registry, or check them against Replicate.")
app.command(models)


@models.default
def list_models(*, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the models of the registry: lengths, prices, references, typical times and ratios.

    Parameters
    ----------
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object instead of a table.
    """
    from videogen import terminal

    terminal.show_models(registry, as_json=json)


@app.command
def settings(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the settings as they apply here and where each comes from; tokens and passwords are not shown.

    Parameters
    ----------
    json:
        Print a JSON object instead of a table.
    """
    from videogen import terminal

    terminal.show_settings(as_json=json)


@models.command
def show(model: str, /, *, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show what can be asked of one model, what is sent for it, and what it costs.

    Parameters
    ----------
    model:
        As `videogen models` lists it.
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object.
    """
    from videogen import terminal

    terminal.show_model(model, registry, as_json=json)


@models.command(name="check")
def check_models(
    *names: str,
    offline: Annotated[bool, Parameter(negative="")] = False,
    snapshot: Annotated[bool, Parameter(negative="")] = False,
    schemas: Path | None = None,
    registry: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare the registry with the input schemas of its models on Replicate. Nothing is created.

    Exit code: 0 they agree, 1 they do not or Replicate cannot be asked, 2 invalid registry or flag, 3 token refused.

    Parameters
    ----------
    names:
        Check these models; by default all.
    offline:
        Compare with the snapshots of the schemas instead: needs no token and no network.
    snapshot:
        Keep the schemas that Replicate shows now as snapshots.
    schemas:
        Folder of the snapshots; those that came with videogen by default, in a checkout cassettes/schemas.
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object.
    """
    from videogen import terminal
    from videogen.endpoints import Snapshots

    if offline and snapshot:
        raise InvalidError("--snapshot keeps what Replicate shows, --offline does not ask it: use one of them")
    return terminal.check_models(names, registry, Snapshots(schemas), offline=offline, snapshot=snapshot, as_json=json)


@app.command
def limit(name: str, slots: int | None = None, /) -> None:
    """Create or change the number of predictions that all runs on this journal may have running, or show who has them.

    Parameters
    ----------
    name:
        `replicate` is the one that runs on a PostgreSQL journal use by themselves; others by VIDEOGEN_LIMIT.
    slots:
        How many, from now on, also for runs that are going on; 0 lets what runs finish and nothing begin.
    """
    from videogen.journal import Journal
    from videogen.limits import check_limit
    from videogen.settings import MAX_LIMIT_NAME, read_settings

    if not 1 <= len(name.strip()) <= MAX_LIMIT_NAME:
        raise InvalidError(f"NAME: {name[:20]!r} is not 1 to {MAX_LIMIT_NAME} characters")
    if slots is not None and not 0 <= slots <= MAX_SLOTS:
        raise InvalidError(f"SLOTS: {slots} is not 0 to {MAX_SLOTS}")
    journal = Journal(read_settings().get_journal_url())
    try:
        if slots is not None:
            journal.set_limit(name, slots)
        found = check_limit(journal, name)
    finally:
        journal.close()
    print(f"{name}: {found.slots} slots, {sum(use.held for use in found.used_by)} held")
    for use in found.used_by:
        print(f"  run {use.run_id} of {use.job_id}: {use.held} held, {use.waiting} waiting")


@app.command
def gateway(*, host: str = "127.0.0.1", port: int = 8474, token: str | None = None, out: str | None = None) -> None:
    """Show runs as they happen, in the browser and as server-sent events; also those of other processes.

    Parameters
    ----------
    host:
        Address to listen on; one that others can reach needs a token.
    port:
        Port to listen on; 0 takes a free one.
    token:
        Show runs only to who has it (VIDEOGEN_GATEWAY_TOKEN, which other users of this machine cannot read).
    out:
        Folder with the runs' clips and journal; `out` by default (VIDEOGEN_OUT).
    """
    from videogen.gateway import GatewaySettings, serve
    from videogen.settings import read_settings

    given = {"VIDEOGEN_GATEWAY_TOKEN": token, "VIDEOGEN_OUT": out}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    secret = settings.gateway_token
    serve(
        GatewaySettings(
            out=settings.local_out,
            journal_url=settings.get_journal_url(),
            registry=settings.registry,
            host=host,
            port=port,
            token=secret.get_secret_value() if secret else None,
        ),
        on_ready=lambda url: print(f"listening on {url}{', open it with /?token=…' if secret else ''}", flush=True),
    )


@app.command
def emulator(
    *,
    host: str = "127.0.0.1",
    port: int = 8473,
    seed: int = 0,
    time_scale: float = 1.0,
    latency: str | None = None,
    render: Literal["quick", "smooth"] = "quick",
    creates_per_minute: int | None = None,
    faults: Path | None = None,
    exit_with_parent: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Serve the Replicate API on this machine: same wire, real clips, no cost. Point REPLICATE_BASE_URL at it.

    Parameters
    ----------
    host:
        Address to listen on.
    port:
        Port to listen on; 0 takes a free one.
    seed:
        Decides latencies and pictures.
    time_scale:
        Multiplies all simulated times; 0.01 makes three minutes of waiting two seconds.
    latency:
        Seconds that every prediction takes, as LOW:HIGH, instead of what its model typically needs.
    render:
        `quick` repeats one camera move, `smooth` draws every frame.
    creates_per_minute:
        Refuse more creates than this with 429, as accounts without credit meet it.
    faults:
        A TOML file of faults to play, see videogen/emulator/README.md.
    exit_with_parent:
        End when standard input is closed.
    """
    from videogen.emulator import EmulatorSettings, serve

    settings = EmulatorSettings.from_flags(
        host=host,
        port=port,
        seed=seed,
        time_scale=time_scale,
        latency_s=_range(latency),
        mode=render,
        creates_per_minute=creates_per_minute,
        faults=faults,
    )
    serve(settings, on_ready=lambda url: print(f"listening on {url}", flush=True), exit_with_parent=exit_with_parent)


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise InvalidError(f"--latency: {text!r} is not LOW:HIGH in seconds") from None
