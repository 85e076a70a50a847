"""The command `videogen`. Prefect, PyAV and the provider's client are imported only by the commands that need them."""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from videogen.cli.exit_codes import FAILED, INVALID, OK, get_error_exit_code
from videogen.errors import (
    DISTRIBUTION,
    InvalidError,
    ValidationError,
    VideogenError,
)
from videogen.text import escape_unprintable, format_money, is_plain_number, is_whole_number

if TYPE_CHECKING:
    from cyclopts import Token

    from videogen.execution.options import RunOptions
    from videogen.job.model import Job

LogLevel = Literal["debug", "info", "warning", "error"]


def _read_version() -> str:
    from importlib.metadata import version

    return version(DISTRIBUTION)


app = App(
    name="videogen",
    help="Generate the video clips of a job file on Replicate, in parallel, and check every clip.",
    version=_read_version,
    version_flags=["--version"],
)

MAX_SLOTS = 1000
MAX_RETAKES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code, see `videogen.cli.exit_codes`."""
    _escape_unencodable_output()
    try:
        result = app(
            sys.argv[1:] if argv is None else argv, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as exc:
        return _print_errors(_add_advice(str(exc)), INVALID)
    except VideogenError as exc:
        return _print_errors(str(exc), get_error_exit_code(exc))
    except OSError as exc:  # without a file name it comes from standard output, such as a full disk
        where = exc.filename or "the output cannot be written"
        return _print_errors(f"{where}: {exc.strerror or exc}", FAILED)
    return result if isinstance(result, int) else OK


def _escape_unencodable_output() -> None:
    """Write characters that the console's encoding lacks as escapes, instead of failing with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


def _add_advice(message: str) -> str:
    """Improve the message about an unknown flag.

    Remove the suggestion of `--fresh`, which would pay for everything again, and explain how to continue a run.
    """
    known, _, suggestion = message.partition(" Did you mean")
    flag = re.search(r"Unknown option: \"?(--[\w-]+)", message)
    word = flag[1].lower() if flag else ""
    if word and any(part in word for part in ("resume", "continue", "retry", "restart", "again", "failed")):
        return (
            f"{known} To continue a run, run the same command again: delivered clips are reused. "
            "--retry-failed makes only the clips that failed in the last run."
        )
    return known if "--fresh" in suggestion and "fresh" not in word else message


def _print_errors(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"error: {escape_unprintable(line)}", file=sys.stderr)
    return code


def _parse_whole_number(_type: Any, tokens: Sequence["Token"], *, name: str = "") -> int:
    """Return the integer of a flag, or of the argument with this name. Cyclopts would also read `1_0` and `0x1`, and
    `1.4` as 1."""
    text = tokens[0].value
    if not is_whole_number(text):
        raise InvalidError(f"{tokens[0].keyword or name}: input should be a whole number such as 5, not {text!r}")
    return int(text)


def _parse_number(_type: Any, tokens: Sequence["Token"]) -> float:
    text = tokens[0].value
    if not is_plain_number(text):
        raise InvalidError(f"{tokens[0].keyword}: input should be a plain number such as 5 or 0.25, not {text!r}")
    return float(text)


def _parse_count_or_share(_type: Any, tokens: Sequence["Token"]) -> int | str:
    """Return the integer of a flag, or its text, which the job validates."""
    text = tokens[0].value
    return int(text) if is_whole_number(text) else text


_WHOLE_NUMBER = Parameter(converter=_parse_whole_number)
_RATING = Parameter(converter=partial(_parse_whole_number, name="RATING"))
_SLOTS = Parameter(converter=partial(_parse_whole_number, name="SLOTS"))
_NUMBER = Parameter(converter=_parse_number)


@Parameter(name="*")
@dataclass(frozen=True)
class JobFlags:
    """Flags that override the job file and the environment. None keeps their value."""

    model: str | None = None
    """Model of the registry to use instead of the job's."""
    models: str | None = None
    """Models to compare, separated by commas. Each one makes every scene."""
    takes: Annotated[int | None, _WHOLE_NUMBER] = None
    """Number of versions to make of every scene."""
    aspect_ratio: str | None = None
    """Aspect ratio to use instead of the job's, such as 9:16."""
    tier: str | None = None
    """Quality to use instead of the job's, such as draft: a name in the model's tiers."""
    out: str | None = None
    """Folder in which the job gets a folder of its own, or an address such as s3://bucket/prefix (VIDEOGEN_OUT;
    default: `out`)."""
    max_cost: str | None = None
    """Maximum cost in USD. A plan that costs more is refused."""
    min_clips: Annotated[int | str | None, Parameter(converter=_parse_count_or_share)] = None
    """Minimum number of delivered clips for the run to be accepted, or a share ("60%") of the scenes (default: 3)."""
    concurrency: Annotated[int | None, _WHOLE_NUMBER] = None
    """Maximum number of concurrent predictions (default: 5)."""
    provider: Literal["replicate", "local"] | None = None
    """`replicate`, or `local` for the emulator on this machine (default: Replicate if REPLICATE_API_TOKEN is set)."""
    registry: Path | None = None
    """A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY)."""
    fresh: Annotated[bool, Parameter(negative="")] = False
    """Regenerate every clip, including those already delivered."""
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    """Make only the clips that the last run of this job did not deliver. The others stay as they are, even if the job
    file has changed."""
    only: str | None = None
    """Scenes to make, separated by commas. The clips of all others stay as the last run left them, even if the job file
    has changed."""
    remake_stale: Annotated[bool, Parameter(negative="")] = False
    """Make a clip again if one that it continues, or ends on, has been made again."""
    log_level: LogLevel | None = None
    """Also write the log from this level on to standard error: what the run waits for, and why."""

    def overrides(self) -> dict[str, Any]:
        """Return the fields of the job that the flags set.

        Raises:
            InvalidError: --model and --models are both set, or --models has an empty name.
        """
        names = ("model", "takes", "aspect_ratio", "tier", "max_cost", "min_clips", "concurrency")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.models is not None:
            if self.model is not None:
                raise InvalidError("--models and --model cannot be combined: use one of them")
            given["models"] = tuple(name.strip() for name in self.models.split(","))
            if not all(given["models"]):
                raise InvalidError(f"--models: {self.models!r} has an empty name: separate names by commas")
        elif self.model is not None:
            given["models"] = ()
        return given

    def list_only(self) -> tuple[str, ...]:
        """Return the ids of --only. Raise `InvalidError` if one is empty."""
        names = tuple(name.strip() for name in self.only.split(",")) if self.only is not None else ()
        if not all(names):
            raise InvalidError(f"--only: {self.only!r} has an empty name: separate the ids of scenes by commas")
        return names

    def list_words(self) -> tuple[str, ...]:
        """Return the words of the flags that are set, without the cap and the flags that select clips of one run."""
        left_out = ("max_cost", "fresh", "only")
        words: list[str] = []
        for name, value in vars(self).items():
            if value and name not in left_out:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return tuple(words)

    def options(self, job: Path, **more: Any) -> "RunOptions":
        from videogen.execution.options import RunOptions

        if self.fresh and self.retry_failed:
            raise InvalidError("--fresh and --retry-failed cannot be combined: use one of them")
        return RunOptions(
            out=self.out,
            provider=self.provider,
            registry=self.registry,
            fresh=self.fresh,
            retry_failed=self.retry_failed,
            only=self.list_only(),
            remake_stale=self.remake_stale,
            folder=str(job.absolute().parent),
            **more,
        )


@Parameter(name="*")
@dataclass(frozen=True)
class PlaceFlags:
    """Flags of commands that work on the folder of a job. None keeps the value of the job file and the environment."""

    aspect_ratio: str | None = None
    """Aspect ratio with which the job was run instead of its own: it has a folder of its own."""
    out: str | None = None
    """Folder in which the job has its own, or an address such as s3://bucket/prefix (VIDEOGEN_OUT; default: `out`)."""
    provider: Literal["replicate", "local"] | None = None
    """`replicate`, or `local` for the emulator on this machine (default: Replicate if REPLICATE_API_TOKEN is set)."""
    registry: Path | None = None
    """A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY)."""
    max_cost: str | None = None
    """Maximum cost of the job in USD."""
    log_level: LogLevel | None = None
    """Also write the log from this level on to standard error."""

    def make_flags(self) -> JobFlags:
        """Return them as flags of a job."""
        return JobFlags(**vars(self))


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
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the clips of a job. Clips that an earlier run delivered are reused, its running predictions are continued.

    Exit code: 0 accepted (complete or partial), 1 too few clips, 2 invalid job, registry or flag, 3 token or credit
    refused, 130 or 143 interrupted.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    dry_run:
        Show the plan and its price like `plan`, then stop. Nothing is created.
    rough_cut:
        Also write rough_cut.mp4, a film of all clips in which every scene has its target duration. A scene without a
        clip becomes a slate.
    music:
        Use the sound of this file for rough_cut.mp4. Implies --rough-cut.
    json:
        Print the manifest, or the plan, as one JSON object on standard output. Everything else goes to standard error.
    jsonl:
        Print every event of the run on standard output as it happens, as a JSON object on a line. Everything else goes
        to standard error.
    serve:
        Also show the run in browsers on this machine, at an address that is printed.
    on_interrupt:
        Treatment of running predictions on Ctrl-C, SIGTERM or a cancel in Prefect. `cancel` cancels them; the time that
        they ran is billed. `leave` keeps them running, and the next run continues them.
    yes:
        Do not ask before a run that costs more than VIDEOGEN_CONFIRM_ABOVE.
    """
    from videogen.cli.console import OutputFormat
    from videogen.cli.run import run_job_file

    if dry_run and (jsonl or serve):
        raise InvalidError("--dry-run cannot be combined with --jsonl or --serve")
    if dry_run:
        return plan(job, flags=flags, json=json)
    if jsonl and json:
        raise InvalidError("--json and --jsonl cannot be combined: use one of them")
    output: OutputFormat = "jsonl" if jsonl else "json" if json else "text"
    options = flags.options(
        job,
        rough_cut=rough_cut or music is not None,
        music=music and music.absolute(),
        on_interrupt=on_interrupt,
    )
    with _load_job(job, flags) as asked:
        words = flags.list_words()
        return run_job_file(asked, options, file=job, output=output, serve=serve, asks=not yes, flags=words)


@app.command
def plan(
    job: Path,
    /,
    *,
    flags: JobFlags = JobFlags(),
    frames: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the requests of a job, their cost, and the expected duration of the run. Nothing is created.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    frames:
        Also write the start frames that are composed of reference pictures to this folder.
    json:
        Print one JSON object.
    """
    from videogen.cli.plan import show_plan

    options = flags.options(job)
    with _load_job(job, flags) as asked:
        return show_plan(asked, options, as_json=json, frames=frames)


@contextmanager
def _load_job(path: Path, flags: JobFlags) -> Iterator["Job"]:
    """Load the job in a file, overridden by flags, and add line and column to problems found in the block.

    The log of the block goes to standard error, from the level of the flags on.
    """
    from videogen.cli.logs import show_log
    from videogen.planning.validation import attribute_to_flags, load_and_validate
    from videogen.settings import read_settings

    overrides = flags.overrides()
    checked = load_and_validate(path, flags.registry or read_settings().registry, overrides)
    if checked.renamed_from and checked.job.max_cost is not None:
        print(
            f"--aspect-ratio {checked.job.aspect_ratio}: {checked.job.id} is a job of its own beside "
            f"{checked.renamed_from}, with a folder and a budget of {format_money(checked.job.max_cost)} of its own",
            file=sys.stderr,
        )
    try:
        with show_log(flags.log_level):
            yield checked.job
    except ValidationError as exc:
        raise checked.source.with_positions(attribute_to_flags(exc, overrides)) from None


@app.command
def retake(
    job: Path,
    scene: str,
    /,
    *,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    seed: Annotated[int | None, _WHOLE_NUMBER] = None,
    tier: str | None = None,
    model: str | None = None,
    takes: Annotated[int, _WHOLE_NUMBER] = 1,
    place: PlaceFlags = PlaceFlags(),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make another take of one scene, and keep the takes that are there. The newest take is in the film, unless you
    choose another one.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    scene:
        Id of the scene.
    prompt:
        Prompt of the take instead of the scene's.
    negative_prompt:
        Negative prompt of the take instead of the scene's.
    seed:
        Seed of the take instead of the scene's. Of several takes, each has the next higher one.
    tier:
        Quality of the take instead of the scene's, such as final.
    model:
        Model that makes the take instead of the scene's.
    takes:
        Number of takes to make.
    dry_run:
        Show the plan and its price, then stop.
    yes:
        Do not ask if it costs more than VIDEOGEN_CONFIRM_ABOVE.
    """
    from videogen.cli.review import retake_scene

    if not 1 <= takes <= MAX_RETAKES:
        raise InvalidError(f"--takes: {takes} is not 1 to {MAX_RETAKES}")
    said = {"prompt": prompt, "negative_prompt": negative_prompt, "seed": seed, "tier": tier, "model": model}
    changes = {name: value for name, value in said.items() if value is not None}
    flags = place.make_flags()
    with _load_job(job, flags) as asked:
        options, words = flags.options(job), flags.list_words()
        return retake_scene(
            asked, options, scene, changes, takes=takes, file=job, dry_run=dry_run, asks=not yes, flags=words
        )


@app.command
def finish(
    job: Path,
    /,
    *,
    tier: str | None = None,
    model: str | None = None,
    place: PlaceFlags = PlaceFlags(),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Make the chosen take of every scene again, at another tier or with another model. The drafts stay as takes.

    At a terminal, the price is shown and confirmed first.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    tier:
        Quality of the new takes, such as final.
    model:
        Model that makes the new takes.
    dry_run:
        Show the plan and its price, then stop.
    yes:
        Do not ask.
    """
    from videogen.cli.review import finish_job

    changes = {name: value for name, value in (("tier", tier), ("model", model)) if value is not None}
    if not changes:
        raise InvalidError("give --tier, --model, or both: what the final takes are made with")
    flags = place.make_flags()
    with _load_job(job, flags) as asked:
        options, words = flags.options(job), flags.list_words()
        return finish_job(asked, options, changes, file=job, dry_run=dry_run, asks=not yes, flags=words)


@app.command
def choose(job: Path, /, *choices: str, place: PlaceFlags = PlaceFlags()) -> int:
    """Choose the takes that are in the film, and list the takes of the last run. Without choices, only list.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    choices:
        SCENE=TAKE, such as storm=2, or storm=veo-3.1 if models were compared.
    """
    from videogen.cli.review import choose_takes

    flags = place.make_flags()
    with _load_job(job, flags) as asked:
        return choose_takes(asked, flags.options(job), choices)


@app.command
def rate(
    job: Path,
    take: str,
    rating: Annotated[int | None, _RATING] = None,
    /,
    *,
    note: str | None = None,
    place: PlaceFlags = PlaceFlags(),
) -> int:
    """Rate a take, or note something on it. Both are on the contact sheet and in the manifest.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    take:
        SCENE=TAKE, such as storm=2, or SCENE for its chosen take.
    rating:
        1 to 5; 0 removes the rating.
    note:
        Your note. An empty one removes it.
    """
    from videogen.cli.review import rate_take

    if rating is not None and not 0 <= rating <= 5:
        raise InvalidError(f"RATING: {rating} is not 1 to 5, nor 0, which removes the rating")
    flags = place.make_flags()
    with _load_job(job, flags) as asked:
        return rate_take(asked.id, flags.options(job), take, rating, note)


@app.command
def export(
    job: Path,
    /,
    *,
    media_root: str | None = None,
    rough_cut: Annotated[bool, Parameter(negative="")] = False,
    music: Path | None = None,
    place: PlaceFlags = PlaceFlags(),
) -> int:
    """Write the timelines of the last run for editing programs: film.otio, film.fcpxml and film.edl. No clip is made.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    media_root:
        The job's folder on the machine of the editor, as an absolute path of that machine such as /Volumes/films/storm,
        or an address. By default, the timelines look for the clips beside themselves.
    rough_cut:
        Also write rough_cut.mp4 anew.
    music:
        Use the sound of this file for rough_cut.mp4. Implies --rough-cut.
    """
    from videogen.cli.export import export_film
    from videogen.reports.media_root import parse_media_root

    root = None if media_root is None else parse_media_root(media_root)
    flags = place.make_flags()
    with _load_job(job, flags) as asked:
        return export_film(asked, flags.options(job), media_root=root, rough_cut=rough_cut, music=music)


@app.command(name="import")
def import_shots(shots: Path, /, *, model: str | None = None) -> int:
    """Print a job file with the scenes of a shot list: a table in CSV with a line of names at the top.

    Columns are matched with the fields of a scene by their names, such as scene, prompt, duration, continues and cast.

    Parameters
    ----------
    shots:
        A CSV file in UTF-8, with commas, semicolons or tabs between its columns.
    model:
        The model of the job.
    """
    from videogen.cli.shots import print_job_of_shots

    return print_job_of_shots(shots, model=model)


@app.command
def inspect(clip: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Show the properties of an mp4, and how it was made if it says so: model, predictions, seed, digest of its prompt.

    The whole file is decoded. Its C2PA manifest is verified if the extra `c2pa` is installed. Exit code: 0 whole, 1
    damaged or changed since it was signed.

    Parameters
    ----------
    clip:
        An mp4 file.
    json:
        Print one JSON object.
    """
    from videogen.cli.inspect import show_clip

    return show_clip(clip, as_json=json)


@app.command(name="check")
def check_file(
    job: Path, /, *, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> int:
    """List all problems of a job and the registry, with line and column. Nothing is fetched or created.

    Exit code: 0 no problems, 2 problems.

    Parameters
    ----------
    job:
        A TOML or JSON file of scenes.
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print one JSON object on standard output, including the problems.
    """
    from videogen.cli.plan import check_job

    return check_job(job, registry, as_json=json)


models = App(
    name="models", help="Show the models of the registry, check them against Replicate, find new ones and add them."
)
app.command(models)


@models.default
def list_registry_models(
    *, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """List the models of the registry: lengths, prices, references, typical times and ratios.

    Parameters
    ----------
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object instead of a table.
    """
    from videogen.cli.models import show_models

    show_models(registry, as_json=json)


@app.command
def settings(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the effective settings and the source of each. Tokens and passwords are hidden.

    Parameters
    ----------
    json:
        Print a JSON object instead of a table.
    """
    from videogen.cli.settings import show_settings

    show_settings(as_json=json)


@models.command
def show(model: str, /, *, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show one model: its options, the inputs that are sent to it, and its price.

    Parameters
    ----------
    model:
        Name of the model, as listed by `videogen models`.
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object.
    """
    from videogen.cli.models import show_model

    show_model(model, registry, as_json=json)


@models.command(name="check")
def check_registry(
    *names: str,
    offline: Annotated[bool, Parameter(negative="")] = False,
    snapshot: Annotated[bool, Parameter(negative="")] = False,
    schemas: Path | None = None,
    registry: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare the registry with the input schemas of its models on Replicate. Nothing is created.

    Exit code: 0 they agree, 1 they differ, a snapshot is missing or Replicate is unreachable, 2 invalid registry or
    flag, 3 token refused.

    Parameters
    ----------
    names:
        Models to check (default: all).
    offline:
        Compare with the snapshots of the schemas instead, without token and network.
    snapshot:
        Save the current schemas on Replicate as snapshots.
    schemas:
        Folder of the snapshots (default: those that came with videogen, or cassettes/schemas in a checkout).
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object.
    """
    from videogen.cli.models import show_model_checks
    from videogen.registry.endpoint_schema import Snapshots

    if offline and snapshot:
        raise InvalidError("--snapshot and --offline cannot be combined: use one of them")
    return show_model_checks(names, registry, Snapshots(schemas), offline=offline, snapshot=snapshot, as_json=json)


@models.command(name="new")
def list_new_models(*, registry: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List Replicate's official video models that the registry lacks, and its own that are gone or retire.

    Parameters
    ----------
    registry:
        A models.toml that adds models to the shipped ones or changes them (VIDEOGEN_REGISTRY).
    json:
        Print a JSON object.
    """
    from videogen.cli.models import show_model_news

    show_model_news(registry, as_json=json)


@models.command(name="add")
def add_registry_model(
    model: str, /, *, name: str | None = None, schema: Path | None = None, registry: Path | None = None
) -> int:
    """Draft the entry of a model from its input schema, and add it to your registry file.

    The draft marks what the schema does not say, such as the price. Exit code: 0 added, 1 added, but the schema
    contradicts the draft, or Replicate is unreachable, 2 unknown model, invalid file or flag, 3 token refused.

    Parameters
    ----------
    model:
        The model on Replicate, as owner/name.
    name:
        Name of the model in jobs (default: its name without the owner).
    schema:
        A file with the schema instead of Replicate: a snapshot, an OpenAPI document or the schema of the inputs.
    registry:
        Your models.toml, which is created if it is missing (VIDEOGEN_REGISTRY).
    """
    from videogen.cli.add_model import add_model

    return add_model(model, name=name, schema=schema, registry=registry)


@app.command
def limit(name: str, slots: Annotated[int | None, _SLOTS] = None, /) -> None:
    """Create, change or show a limit of concurrent predictions that all runs on this journal share.

    Parameters
    ----------
    name:
        Name of the limit. Runs on a PostgreSQL journal use `replicate` unless VIDEOGEN_LIMIT names another one.
    slots:
        New number of slots, which applies to current runs, too. With 0, running predictions finish and no others start.
        Leave it out to show the limit.
    """
    from videogen.execution.shared_limit import require_limit
    from videogen.journal.database import check_journal_url
    from videogen.journal.store import Journal
    from videogen.settings import MAX_LIMIT_NAME, read_settings

    if not 1 <= len(name.strip()) <= MAX_LIMIT_NAME:
        raise InvalidError(f"NAME: {name[:20]!r} is not 1 to {MAX_LIMIT_NAME} characters")
    if slots is not None and not 0 <= slots <= MAX_SLOTS:
        raise InvalidError(f"SLOTS: {slots} is not 0 to {MAX_SLOTS}")
    settings = read_settings()
    if settings.journal_url:
        check_journal_url(settings.journal_url)
    journal = Journal(settings.get_journal_url())
    try:
        if slots is not None:
            journal.set_limit(name, slots)
        found = require_limit(journal, name)
    finally:
        journal.close()
    print(f"{name}: {found.slots} slots, {sum(use.held for use in found.used_by)} held")
    for use in found.used_by:
        print(f"  run {use.run_id} of {use.job_id}: {use.held} held, {use.waiting} waiting")


spend = App(name="spend", help="Show what predictions have cost, and compare that with the provider's books.")
app.command(spend)


@Parameter(name="*")
@dataclass(frozen=True)
class SpendFlags:
    """Flags of commands about spending."""

    since: str | None = None
    """The first day, such as 2026-11-01, or 7d for today and the six days before it (default: from the beginning)."""
    until: str | None = None
    """The last day, in the same form (default: until now)."""
    time_zone: str | None = None
    """The time zone of days, such as Europe/Berlin (default: UTC)."""
    origin: str | None = None
    """Only this provider account, such as api.replicate.com (default: all accounts that cost money)."""
    out: str | None = None
    """Folder with the journal of the runs (VIDEOGEN_OUT; default: `out`), unless VIDEOGEN_JOURNAL_URL is set."""


@spend.default
def sum_up_spending(
    *,
    by: Literal["day", "job", "model", "scene", "run", "outcome", "origin"] | None = None,
    job: str | None = None,
    flags: SpendFlags = SpendFlags(),
    local: Annotated[bool, Parameter(negative="")] = False,
    csv: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show the planned and the billed cost of predictions, summed up by job or by another fact.

    Parameters
    ----------
    by:
        What to sum up by (default: job; with --csv and --json each prediction by itself).
    job:
        Only the predictions of the job with this id.
    local:
        Also show the predictions of the emulator on this machine, which cost nothing.
    csv:
        Print a table in CSV.
    json:
        Print one JSON object.
    """
    from videogen.cli.spend import show_spending
    from videogen.results.expenses import SpendPeriod
    from videogen.settings import read_settings

    if csv and json:
        raise InvalidError("--csv and --json cannot be combined: use one of them")
    return show_spending(
        read_settings(**({} if flags.out is None else {"VIDEOGEN_OUT": flags.out})),
        SpendPeriod.parse(flags.since, flags.until, flags.time_zone),
        by=by,
        job_id=job,
        origin=flags.origin,
        with_local=local,
        output="csv" if csv else "json" if json else "text",
    )


@spend.command(name="reconcile")
def reconcile_spending(
    invoice: Path,
    /,
    *,
    flags: SpendFlags = SpendFlags(),
    id_column: str | None = None,
    amount_column: str | None = None,
    date_column: str | None = None,
    model_column: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare the provider's invoice, a table in CSV, with the journal, and list the differences.

    Predictions are matched by their ids, or by day and model if the table has no ids. Exit code: 0 both agree, 1 they
    differ, 2 the table cannot be read.

    Parameters
    ----------
    invoice:
        A CSV file in UTF-8 with a line of names at the top, with commas, semicolons or tabs between its columns.
    id_column:
        Name of the column with the ids of predictions, unless it is recognised.
    amount_column:
        Name of the column with the amounts in USD, unless it is recognised.
    date_column:
        Name of the column with the dates, unless it is recognised.
    model_column:
        Name of the column with the models, unless it is recognised.
    json:
        Print one JSON object.
    """
    from videogen.cli.spend import reconcile_invoice
    from videogen.results.expenses import SpendPeriod
    from videogen.settings import read_settings

    return reconcile_invoice(
        read_settings(**({} if flags.out is None else {"VIDEOGEN_OUT": flags.out})),
        invoice,
        SpendPeriod.parse(flags.since, flags.until, flags.time_zone),
        columns={"id": id_column, "amount": amount_column, "date": date_column, "model": model_column},
        origin=flags.origin,
        as_json=json,
    )


@spend.command(name="account")
def list_unknown_predictions(
    *,
    days: Annotated[int, _WHOLE_NUMBER] = 14,
    out: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List the predictions in the Replicate account that the journal does not know. Nothing is created.

    Exit code: 0 the journal knows all, 1 it does not.

    Parameters
    ----------
    days:
        How many days to look back, 1 to 14.
    out:
        Folder with the journal of the runs (VIDEOGEN_OUT; default: `out`), unless VIDEOGEN_JOURNAL_URL is set.
    json:
        Print one JSON object.
    """
    from videogen.account import LISTED_DAYS
    from videogen.cli.spend import show_unknown_predictions
    from videogen.settings import read_settings

    if not 1 <= days <= LISTED_DAYS:
        raise InvalidError(f"--days: {days} is not 1 to {LISTED_DAYS}")
    settings = read_settings(**({} if out is None else {"VIDEOGEN_OUT": out}))
    return show_unknown_predictions(settings, days=days, as_json=json)


@app.command
def budget(
    name: str | None = None,
    amount: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    /,
    *,
    models: str | None = None,
    time_zone: str | None = None,
    out: str | None = None,
) -> None:
    """Create, change or show a budget that all runs on this journal share. Without a name, show all budgets.

    A run counts for the budgets in VIDEOGEN_BUDGET and those of its job. Nothing is created that could take one of them
    above its amount.

    Parameters
    ----------
    name:
        Name of the budget.
    amount:
        USD and a period, such as 200/month, 20/day or 1000/total. Leave it out to show the budget.
    models:
        Models that the budget is for, separated by commas, such as `veo-*,kling-*` (default: all, or as before).
    time_zone:
        Zone in which days and months begin, such as Europe/Berlin (default: UTC, or as before).
    out:
        Folder of the journal, unless VIDEOGEN_JOURNAL_URL is set.
    """
    from videogen.cli.budgets import change_budget, show_budgets
    from videogen.settings import read_settings

    settings = read_settings(VIDEOGEN_OUT=out) if out else read_settings()
    if name is not None:
        change_budget(settings, name, amount, models, time_zone)
    elif models is not None or time_zone is not None:
        raise InvalidError("NAME: name the budget to change")
    else:
        show_budgets(settings)


@app.command
def control(
    run: str,
    action: Literal["pause", "resume", "cancel", "retry", "cap"] | None = None,
    argument: str | None = None,
    /,
    *,
    out: str | None = None,
) -> int:
    """Pause a run in progress, go on, cancel or retry a clip, or change the cap. Without an action, show its state.

    The run may be on another machine, if it uses the same journal.

    Exit code: 0 the run has accepted the command, or has not answered yet; 1 it has refused it; 2 there is no such run
    or scene, or the run has ended or is not alive.

    Parameters
    ----------
    run:
        Id of the run, or its beginning, or the id of a job for its newest run in progress.
    action:
        `pause` creates no more predictions and lets running ones finish, `resume` ends the pause, `cancel SCENE` ends a
        clip that is not delivered yet, `retry SCENE` makes a failed clip again, `cap USD` changes what the job may cost
        as long as this run goes on.
    argument:
        The scene of cancel and retry, or the amount of cap in USD.
    out:
        Folder with the journal of the run (VIDEOGEN_OUT; default: `out`), unless VIDEOGEN_JOURNAL_URL is set.
    """
    from videogen.cli.control import control_run
    from videogen.settings import read_settings

    return control_run(read_settings(**({} if out is None else {"VIDEOGEN_OUT": out})), run, action, argument)


@app.command
def gateway(
    *jobs: Path,
    host: str = "127.0.0.1",
    port: Annotated[int, _WHOLE_NUMBER] = 8474,
    token: str | None = None,
    out: str | None = None,
    review: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Serve a live page and server-sent events of all runs on this journal, including those of other processes.

    Parameters
    ----------
    jobs:
        With --review: the job files of which further takes can be made.
    host:
        Address to listen on. One that other machines can reach requires a token.
    port:
        Port to listen on. 0 takes a free one.
    token:
        Token that is required to view runs. Prefer VIDEOGEN_GATEWAY_TOKEN: other users of this machine cannot read it.
    out:
        Folder with the clips and the journal of the runs (VIDEOGEN_OUT; default: `out`).
    review:
        Also serve a review room, in which everyone with the token can choose and rate takes, and make further ones.
        Without a token, one is made and printed.
    """
    from videogen.settings import read_settings

    if jobs and not review:
        raise InvalidError("JOB: only --review uses job files")
    given = {"VIDEOGEN_GATEWAY_TOKEN": token, "VIDEOGEN_OUT": out}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    from videogen.cli.gateway import serve_gateway_of

    serve_gateway_of(settings, host=host, port=port, jobs=jobs if review else None)


@app.command
def emulator(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, _WHOLE_NUMBER] = 8473,
    seed: Annotated[int, _WHOLE_NUMBER] = 0,
    time_scale: Annotated[float, _NUMBER] = 1.0,
    latency: str | None = None,
    render: Literal["quick", "smooth"] = "quick",
    creates_per_minute: Annotated[int | None, _WHOLE_NUMBER] = None,
    faults: Path | None = None,
    schemas: Path | None = None,
    exit_with_parent: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Serve an emulator of the Replicate API that renders real clips at no cost. Point REPLICATE_BASE_URL to it.

    Parameters
    ----------
    host:
        Address to listen on.
    port:
        Port to listen on. 0 takes a free one.
    seed:
        Seed of latencies and pictures.
    time_scale:
        Factor for all simulated times. With 0.01, three minutes take two seconds, and outputs are removed after 36 s
        instead of an hour.
    latency:
        Duration of every prediction in seconds, as LOW:HIGH, instead of the typical time of its model.
    render:
        `quick` repeats one camera move, `smooth` draws every frame.
    creates_per_minute:
        Rate limit of creates. Further ones are refused with 429, as for accounts without credit.
    faults:
        A TOML file with faults to simulate, see videogen/emulator/README.md.
    schemas:
        A folder of input schemas, as `videogen models check --snapshot` saves them. Each of them makes a model, besides
        those that are shipped.
    exit_with_parent:
        Exit when standard input is closed.
    """
    from videogen.emulator import EmulatorSettings, serve_emulator

    settings = EmulatorSettings.from_flags(
        host=host,
        port=port,
        seed=seed,
        time_scale=time_scale,
        latency_s=_parse_range(latency),
        mode=render,
        creates_per_minute=creates_per_minute,
        faults=faults,
        schemas=schemas,
    )
    serve_emulator(
        settings, on_ready=lambda url: print(f"listening on {url}", flush=True), exit_with_parent=exit_with_parent
    )


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(":")
    if not is_plain_number(low) or not is_plain_number(high or low):
        raise InvalidError(f"--latency: {text!r} is not LOW:HIGH in seconds")
    return float(low), float(high or low)
