"""The result of a run, which is written to `manifest.json`."""

import json
from decimal import Decimal

from pydantic import Field, computed_field

from videogen.planning.requests import FrozenModel
from videogen.results.clip import Clip
from videogen.results.verdict import Verdict


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
