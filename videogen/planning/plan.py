"""The plan of a job: its requests, what they cost, and in which order they start."""

import heapq
from collections.abc import Container
from datetime import timedelta
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.planning.requests import ClipRequest

MAX_PRICE_AGE = timedelta(days=90)
"""A plan warns about prices that were looked up longer ago than this."""


class Plan(BaseModel):
    """All requests of a run, and their cost. Money is in USD, times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    model: str
    """Name of the model; the names of several models are separated by commas."""
    variants_per_scene: int
    """Number of clips of each scene. They follow each other in `requests`."""
    aspect_ratio: str
    min_clips: int
    """Minimum number of delivered clips, of each model."""
    concurrency: int
    max_cost: Decimal | None
    requests: tuple[ClipRequest, ...]
    reused: frozenset[str]
    """Ids of the scenes that cost nothing: delivered before, or the same clip as an earlier scene of the job."""
    warnings: tuple[str, ...]
    spent_before: Decimal = Decimal(0)
    """Cost of earlier runs of the job, including the amount still reserved for their predictions."""

    @property
    def to_create(self) -> tuple[ClipRequest, ...]:
        """The requests that need a paid prediction."""
        return tuple(request for request in self.requests if request.scene.id not in self.reused)

    @property
    def total_cost(self) -> Decimal:
        """Price if every first prediction succeeds."""
        return sum((request.cost for request in self.to_create), Decimal(0))

    @property
    def worst_case_cost(self) -> Decimal:
        """Price if every clip needs all attempts, including those of its fallback models, and all are billed."""
        return sum((request.worst_case_cost for request in self.to_create), Decimal(0))

    @property
    def cost_is_exact(self) -> bool:
        """Whether the provider publishes all prices in `total_cost`."""
        return all(request.cost_is_exact for request in self.to_create)

    @property
    def start_order(self) -> tuple[ClipRequest, ...]:
        """The requests in the order in which they start: longest first, so that all slots end at about one time."""
        return tuple(sorted(self.requests, key=lambda r: -r.typical_run_s * r.requested_duration))

    @property
    def expected_s(self) -> float:
        """Duration of the run if every prediction takes its typical time and succeeds."""
        slots = [0.0] * self.concurrency
        for request in self.start_order:
            if request.scene.id not in self.reused:
                heapq.heapreplace(slots, slots[0] + request.typical_run_s)
        return max(slots)

    @property
    def buffer_cost_impact(self) -> float:
        """Percentage that the buffer adds to a clip, on average."""
        return round(sum(request.buffer_cost_impact for request in self.requests) / len(self.requests), 1)

    def with_reuse(self, delivered: Container[str], *, paid: Container[str] = (), kept: Container[str] = ()) -> "Plan":
        """Return the plan with the work of earlier runs reused.

        Args:
            delivered: keys of delivered clips, which are reused. A scene that a fallback model made stays with it.
            paid: keys of clips that an earlier run started, which are continued.
            kept: ids of scenes whose clip is kept even if the job has changed.
        """
        requests = tuple(prefer_alternative_in_progress(request, delivered, paid) for request in self.requests)
        kept_ids = frozenset(request.scene.id for request in requests if request.scene.id in kept)
        return self.model_copy(update={"requests": requests, "reused": find_reused(requests, delivered) | kept_ids})

    def with_kept_requests(self, before: "Plan", *, made: Container[str]) -> "Plan":
        """Return the plan with requests of `before`, which an earlier version would plan, where their clips exist.

        Both plans have the same scenes. `made` are the keys of the existing clips.
        """
        pairs = zip(self.requests, before.requests, strict=True)
        return self.model_copy(update={"requests": tuple(old if old.key in made else new for new, old in pairs)})

    def with_warnings(self, *warnings: str) -> "Plan":
        """Return the plan with warnings added."""
        return self.model_copy(update={"warnings": (*self.warnings, *warnings)})

    def with_prior_cost(self, spent: Decimal) -> "Plan":
        """Return the plan with the cost of earlier runs, and a warning if the rest of `max_cost` does not cover it."""
        planned = self.model_copy(update={"spent_before": spent})
        if self.max_cost is None or spent + self.total_cost <= self.max_cost:
            return planned
        left = max(Decimal(0), self.max_cost - spent)
        return planned.with_warnings(
            f"${spent} of ${self.max_cost} are spent on this job, and this run costs ${self.total_cost}: what the "
            f"${left} left do not cover ends as `budget`; --max-cost {spent + self.total_cost} covers all of it"
        )

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON value, as `--dry-run --json` prints it."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "aspect_ratio": self.aspect_ratio,
            "total_cost": str(self.total_cost),
            "spent_before": str(self.spent_before),
            "cost_is_exact": self.cost_is_exact,
            "worst_case_cost": str(self.worst_case_cost),
            "expected_seconds": self.expected_s,
            "buffer_cost_impact": self.buffer_cost_impact,
            "warnings": list(self.warnings),
            "scenes": [self._scene_summary(request) for request in self.requests],
        }

    def _scene_summary(self, request: ClipRequest) -> dict[str, Any]:
        reused = request.scene.id in self.reused
        return {
            "scene_id": request.scene.id,
            "target_duration": request.scene.target_duration,
            "original_target_duration": request.original_target_duration,
            "buffered_duration": request.buffered_duration,
            "requested_duration": request.requested_duration,
            "inputs": request.inputs,
            "references": request.references.model_dump(mode="json"),
            "cost": "0" if reused else str(request.cost),
            "cost_is_exact": request.cost_is_exact,
            "buffer_cost_impact": request.buffer_cost_impact,
            "reused": reused,
            "fallbacks": [
                {"model": each.model, "requested_duration": each.requested_duration, "cost": str(each.cost)}
                for each in request.fallbacks
            ],
        }


def prefer_alternative_in_progress(
    request: ClipRequest, delivered: Container[str], paid: Container[str]
) -> ClipRequest:
    """Return the alternative that an earlier run delivered or at least paid for, else the request itself."""
    there = (each for keys in (delivered, paid) for each in request.alternatives if each.key in keys)
    return next(there, request)


def find_reused(requests: tuple[ClipRequest, ...], delivered: Container[str]) -> frozenset[str]:
    seen: set[str] = set()
    reused = set()
    for request in requests:
        if request.key in seen or request.key in delivered:
            reused.add(request.scene.id)
        seen.add(request.key)
    return frozenset(reused)
