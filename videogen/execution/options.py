"""The options of a run, and a job that is ready to be run with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from videogen.errors import InvalidError, StorageError
from videogen.execution.judging import Judge
from videogen.execution.marking import ClipMarker
from videogen.job.choices import Choices
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.results.clip import Clip
from videogen.settings import ProviderName, Settings, read_settings

if TYPE_CHECKING:
    from videogen.references.decode import ReferenceImage


class RunOptions(BaseModel):
    """Options of a run that are not part of the job. None means the value from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str | None = None
    """Folder that contains the job's own folder: a path, or an address such as `s3://bucket/prefix`."""
    provider: ProviderName | None = None
    registry: Path | None = None
    """A `models.toml` that extends the shipped one."""
    fresh: bool = False
    """Make every clip again, including those already delivered."""
    retry_failed: bool = False
    """Keep every clip of the last run, even if the job has changed, and make the missing ones."""
    only: tuple[str, ...] = ()
    """Ids of the scenes, or of single takes, whose clips are made. The other clips stay as the last run left them, even
    if the job has changed. Empty means all."""
    remake_stale: bool = False
    """Make a clip again if one that it was made from has been made again."""
    rough_cut: bool = False
    """Also write `rough_cut.mp4`."""
    music: Path | None = None
    """Audio file for the soundtrack of `rough_cut.mp4`."""
    on_interrupt: Literal["cancel", "leave"] = "cancel"
    """What happens to running predictions when the run is interrupted or cancelled: `cancel` cancels them, which is
    billed for the time they ran; `leave` lets them run, and the next run continues them."""
    folder: str = "."
    """Base folder of the job's relative reference paths."""

    def should_remake_stale(self, job: Job) -> bool:
        """Return whether stale clips are made again, by these options or by the job."""
        return self.remake_stale or job.remake_stale

    def resolve_settings(self) -> Settings:
        """Return the environment's settings, overridden by these options. Raise `SettingsError` if they are invalid."""
        given = {"out": self.out or None, "provider": self.provider, "registry": self.registry}
        return read_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


def validate_music(music: Path) -> None:
    """Raise `InvalidError` if the music cannot be decoded, before anything is paid for."""
    from videogen.media import check_music

    try:
        check_music(music)
    except StorageError as exc:
        raise InvalidError(f"music: {exc}. Give a file with sound, such as song.mp3") from None


def locate_budgets(job: Job, settings: Settings) -> dict[str, str]:
    """Return the names of the shared budgets that runs of a job count for, each with the place that names it: the
    variable, or the field of the job."""
    return dict.fromkeys(settings.budget_names, "VIDEOGEN_BUDGET") | dict.fromkeys(job.budget, "budget")


@dataclass(frozen=True)
class UnrecordedRun:
    """A run that only the job's folder knows, because the journal was lost or is an older copy."""

    id: str
    """A text that is the id of no run in the journal."""
    cost: Decimal
    """USD that the job has cost by then without the journal's knowledge. It counts for the job's budget."""
    prediction_ids: frozenset[str] | None
    """Predictions that `cost` includes; None means all of earlier runs."""


@dataclass(frozen=True)
class PreparedJob:
    """A job that is ready to run: it is planned, its references are loaded, and nothing is spent yet."""

    job: Job
    plan: Plan
    settings: Settings
    options: RunOptions
    provider: ProviderName
    provider_reason: str
    """Why this provider was chosen."""
    origin: str
    references: Mapping[str, "ReferenceImage"]
    kept: Mapping[str, Clip]
    """By scene id: clips of the last run that stay unchanged."""
    choices: Choices
    """The takes that were chosen, rated and described so far."""
    recovering: bool
    """Whether predictions that earlier runs paid for are missing in the journal."""
    unrecorded: UnrecordedRun | None = None
    """The last run of the job if the journal does not know it."""
    judge: Judge | None = None
    """Judges each clip; None means that nobody does."""
    marker: ClipMarker = field(default_factory=ClipMarker)
    """Writes into each delivered clip how it was made."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The names of the shared budgets that the run counts for."""
        return tuple(locate_budgets(self.job, self.settings))

    @property
    def folder(self) -> str:
        """The path or URL of the job's own folder."""
        return self.settings.get_job_folder(self.job.id)

    @property
    def work_folder(self) -> Path:
        """The local folder in which its files are made."""
        return self.settings.get_work_folder(self.job.id)
