"""The result of a run, which is written to `manifest.json`."""

import json
from decimal import Decimal

from pydantic import Field, computed_field

from videogen.job.model import Job
from videogen.planning.requests import FrozenModel
from videogen.results.clip import Clip
from videogen.results.verdict import Verdict


class FilmScene(FrozenModel):
    """A scene of the job, which may have no clip yet."""

    scene_id: str
    clip_index: int
    """Its place in the film."""
    target_duration: float
    """Its length in the film, in seconds."""


class RunResult(FrozenModel):
    """The result of a run, with all clips in scene order: the content of `manifest.json`."""

    run_id: str
    job_id: str
    model: str
    aspect_ratio: str
    provider: str
    verdict: Verdict
    verdicts: dict[str, Verdict] = Field(default_factory=dict)
    """The verdict on each model, if several are compared."""
    cells_per_scene: int = 1
    """Number of variants of each scene (models × takes). They follow each other in `clips`."""
    total_generation_time: float
    """Duration of the run in seconds, from its start to its verdict."""
    job_cost: Decimal | None = None
    """Cost in USD of all runs of the job so far, including this one and the amount still reserved; None in manifests of
    versions that did not count it."""
    scenes: tuple[FilmScene, ...] = ()
    """The scenes of the job, also those of which no run has made a clip; empty in manifests of versions that did not
    list them."""
    clips: tuple[Clip, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_clips(self) -> int:
        return len(self.clips)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def successful_clips(self) -> int:
        return sum(clip.status == "success" for clip in self.clips)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def failed_clips(self) -> int:
        return self.total_clips - self.successful_clips

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total_cost(self) -> Decimal:
        return sum((clip.cost for clip in self.clips), Decimal(0))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def paid_before(self) -> Decimal:
        """The part of `total_cost` that earlier runs paid, for predictions that this run continued."""
        return sum((clip.paid_before for clip in self.clips), Decimal(0))

    def manifest(self) -> str:
        """Return the result as JSON text, with money as decimal strings."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_manifest(cls, text: str) -> "RunResult":
        """Return the result in a manifest. Raise `ValueError` if the text is not a manifest of this version."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a manifest is a JSON object")
        return cls.model_validate({name: value for name, value in data.items() if name in cls.model_fields})


def list_film_scenes(job: Job) -> tuple[FilmScene, ...]:
    """Return the scenes of the film that a job makes, whichever of them are made now."""
    first: dict[str, FilmScene] = {}
    for number, (scene, _) in enumerate(job.variants()):
        scene_id = scene.take_of or scene.id
        place = number if scene.clip_index is None else scene.clip_index
        first.setdefault(
            scene_id, FilmScene(scene_id=scene_id, clip_index=place, target_duration=scene.target_duration)
        )
    return tuple(first.values())
