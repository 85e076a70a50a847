"""The plan of a job: its requests, what they cost, and in which order they start."""

from collections.abc import Container
from datetime import timedelta
from decimal import Decimal
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogen.planning.budgets import BudgetUse, find_budget_warnings, summarize_use
from videogen.planning.requests import ClipRequest
from videogen.planning.schedule import Schedule
from videogen.text import format_money, list_first

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
    made_segments: frozenset[str] = frozenset()
    """Keys of the segments of long clips that were delivered, or whose prediction was begun, before."""
    resumed: frozenset[str] = frozenset()
    """Ids of the scenes whose prediction an earlier run began. It is continued, and costs nothing more."""
    stale: frozenset[str] = frozenset()
    """Ids of the scenes whose clip was made from another one that has been made again since. They are `reused`, unless
    this run makes them again."""
    spent_before: Decimal = Decimal(0)
    """Cost of earlier runs of the job, including the amount still reserved for their predictions."""
    reserved_before: Decimal = Decimal(0)
    """The part of `spent_before` that is reserved and may turn out lower."""
    budgets: tuple[BudgetUse, ...] = ()
    """The budgets that this run counts for, and other runs, too, as they are before it."""

    @property
    def to_make(self) -> tuple[ClipRequest, ...]:
        """The requests whose clip is not there yet."""
        return tuple(request for request in self.requests if request.scene.id not in self.reused)

    @property
    def to_create(self) -> tuple[ClipRequest, ...]:
        """The requests that need a new, paid prediction."""
        return tuple(request for request in self.to_make if request.scene.id not in self.resumed)

    @property
    def total_cost(self) -> Decimal:
        """Price if every first prediction succeeds. A segment that several clips begin with is paid for once."""
        parts = {part.key: part.cost for request in self.to_create for part in request.parts}
        return sum((cost for key, cost in parts.items() if key not in self.made_segments), Decimal(0))

    def get_remaining_cost(self, request: ClipRequest) -> Decimal:
        """Return the price of a request without the segments that were made before."""
        return sum((part.cost for part in request.parts if part.key not in self.made_segments), Decimal(0))

    @property
    def worst_case_cost(self) -> Decimal:
        """Price if every clip needs all attempts, including those of its fallback models, and all are billed."""
        begun = sum((request.cost for request in self.to_make if request.scene.id in self.resumed), Decimal(0))
        return sum((request.worst_case_cost for request in self.to_make), Decimal(0)) - begun

    @property
    def cost_is_exact(self) -> bool:
        """Whether the provider publishes all prices in `total_cost`."""
        return all(request.cost_is_exact for request in self.to_create)

    @property
    def schedule(self) -> Schedule:
        """The order in which the clips are made."""
        return Schedule(self.requests, self.reused)

    @property
    def start_order(self) -> tuple[ClipRequest, ...]:
        """The requests in the order in which they start, as far as their upstreams allow it."""
        return self.schedule.start_order

    @property
    def expected_s(self) -> float:
        """Duration of the run if every prediction takes its typical time and succeeds."""
        return self.schedule.compute_expected_s(self.concurrency)

    @property
    def buffer_cost_impact(self) -> float:
        """Percentage that the buffer adds to a clip, on average."""
        return round(sum(request.buffer_cost_impact for request in self.requests) / len(self.requests), 1)

    def with_reuse(
        self,
        delivered: Container[str],
        *,
        paid: Container[str] = (),
        resumable: Container[str] = (),
        kept: Container[str] = (),
    ) -> "Plan":
        """Return the plan with the work of earlier runs reused.

        Args:
            delivered: keys of delivered clips, which are reused. A scene that a fallback model made stays with it.
            paid: keys of clips whose prediction an earlier run began.
            resumable: those of them whose prediction the provider still has, so that it is continued for free.
            kept: ids of scenes whose clip is kept even if the job has changed.
        """
        requests = tuple(prefer_alternative_in_progress(request, delivered, paid) for request in self.requests)
        kept_ids = frozenset(request.scene.id for request in requests if request.scene.id in kept)
        reused = find_reused(requests, delivered) | kept_ids
        parts = {segment.key for request in requests for segment in request.segments}
        made = frozenset(key for key in parts if key in delivered or key in resumable)
        resumed = frozenset(
            each.scene.id
            for each in requests
            if each.scene.id not in reused and all(part.key in resumable or part.key in made for part in each.parts)
        )
        changes = {"requests": requests, "reused": reused, "resumed": resumed, "made_segments": made}
        return self.model_copy(update=changes)

    def with_stale(self, stale: frozenset[str], *, remake: bool) -> "Plan":
        """Return the plan with these scenes as stale: kept with a warning, or made again."""
        if not stale:
            return self
        cost = format_money(sum((request.cost for request in self.requests if request.scene.id in stale), Decimal(0)))
        if len(stale) == 1:
            since, them = "a clip is stale, because one that it was made from is not the same any more", "it"
        else:
            since = f"{len(stale)} clips are stale, because clips that they were made from are not the same any more"
            them = "them"
        effect = f"made again for {cost}" if remake else f"--remake-stale makes {them} again for {cost}"
        warned = self.with_warnings(f"{since} ({list_first(sorted(stale))}): {effect}")
        if not remake:
            return warned.model_copy(update={"stale": stale})
        parts = {part.key for request in self.requests if request.scene.id in stale for part in request.segments}
        remade = {"reused": self.reused - stale, "resumed": self.resumed - stale}
        return warned.model_copy(update={"stale": stale, "made_segments": self.made_segments - parts, **remade})

    def select(self, wanted: Container[str]) -> "Plan":
        """Return the plan with the scenes that are wanted, those whose clips they are made from, and those whose clip
        is there already. `wanted` are ids of scenes, or of single takes."""
        needed: set[str] = set()
        for request in reversed(self.schedule.upstreams_first):
            ids = {request.scene.id, request.scene.take_of}
            if any(id_ in wanted for id_ in ids if id_) or request.scene.id in needed:
                needed |= {request.scene.id, *request.upstream_ids}
        kept = (each for each in self.requests if each.scene.id in needed or each.scene.id in self.reused)
        return self.model_copy(update={"requests": tuple(kept)})

    def with_kept_requests(self, before: "Plan", *, made: Container[str]) -> "Plan":
        """Return the plan with requests of `before`, which an earlier version would plan, where their clips exist.

        Both plans have the same scenes. `made` are the keys of the existing clips.
        """
        pairs = zip(self.requests, before.requests, strict=True)
        return self.model_copy(update={"requests": tuple(old if old.key in made else new for new, old in pairs)})

    def with_warnings(self, *warnings: str) -> "Plan":
        """Return the plan with warnings added."""
        return self.model_copy(update={"warnings": (*self.warnings, *warnings)})

    @property
    def remaining_budget(self) -> Decimal | None:
        """The part of `max_cost` that earlier runs have left, at least 0; None if the job has no `max_cost`."""
        return None if self.max_cost is None else max(Decimal(0), self.max_cost - self.spent_before)

    @property
    def is_above_cap(self) -> bool:
        """Whether this run alone costs more than `max_cost`, so that it is refused."""
        return self.max_cost is not None and self.total_cost > self.max_cost

    @property
    def sufficient_budget(self) -> str:
        """The `max_cost` that covers this plan after the earlier runs, as a decimal string."""
        return format_money(self.spent_before + self.total_cost).removeprefix("$")

    def with_prior_cost(self, spent: Decimal, reserved: Decimal = Decimal(0)) -> "Plan":
        """Return the plan with the cost of earlier runs, and a warning if the rest of `max_cost` does not cover it.

        Args:
            spent: USD that earlier runs of the job cost.
            reserved: USD that their unsettled predictions may cost in addition.
        """
        planned = self.model_copy(update={"spent_before": spent + reserved, "reserved_before": reserved})
        remaining = planned.remaining_budget
        if remaining is None or self.total_cost <= remaining:
            return planned
        return planned.with_warnings(
            f"{planned.describe_spending()}: clips that the remaining {format_money(remaining)} does not cover will "
            f"fail with `budget`. --max-cost {planned.sufficient_budget} covers all of them"
        )

    def with_budgets(self, uses: tuple[BudgetUse, ...]) -> "Plan":
        """Return the plan with the shared budgets that the run counts for, and a warning for each of them whose rest
        does not cover it."""
        planned = self.model_copy(update={"budgets": uses})
        return planned.with_warnings(*find_budget_warnings(planned))

    def describe_spending(self) -> str:
        """Return what the job has spent and reserved so far, of which budget, and what this run costs."""
        spent = format_money(self.spent_before - self.reserved_before)
        reserved = f" and {format_money(self.reserved_before)} reserved" if self.reserved_before else ""
        budget = "" if self.max_cost is None else f" of {format_money(self.max_cost)}"
        return f"spent so far {spent}{reserved}{budget}, this run {self.describe_cost()}"

    def describe_cost(self) -> str:
        """Return `total_cost`, marked as an estimate if not all prices are exact."""
        return f"{'' if self.cost_is_exact else 'about '}{format_money(self.total_cost)}"

    def summary(self) -> dict[str, Any]:
        """Return the plan as JSON value, as `--dry-run --json` prints it."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "aspect_ratio": self.aspect_ratio,
            "total_cost": str(self.total_cost),
            "spent_before": str(self.spent_before),
            "reserved_before": str(self.reserved_before),
            "cost_is_exact": self.cost_is_exact,
            "worst_case_cost": str(self.worst_case_cost),
            "expected_seconds": self.expected_s,
            "buffer_cost_impact": self.buffer_cost_impact,
            "warnings": list(self.warnings),
            **({"budgets": [summarize_use(self, use) for use in self.budgets]} if self.budgets else {}),
            **self._summarize_graph(),
            "scenes": [self._scene_summary(request) for request in self.requests],
        }

    def _summarize_graph(self) -> dict[str, Any]:
        schedule = self.schedule
        if not schedule.has_edges:
            return {}
        return {"waves": list(map(list, schedule.waves)), "critical_path": list(schedule.critical_path)}

    def _summarize_segments(self, request: ClipRequest) -> dict[str, Any]:
        if not request.segments:
            return {}
        segments = [
            {
                "target_duration": segment.scene.target_duration,
                "requested_duration": segment.requested_duration,
                "inputs": segment.prediction.inputs,
                "cost": "0" if segment.key in self.made_segments else str(segment.cost),
            }
            for segment in request.segments
        ]
        return {"segments": segments}

    def _scene_summary(self, request: ClipRequest) -> dict[str, Any]:
        reused, resumed = request.scene.id in self.reused, request.scene.id in self.resumed
        return {
            "scene_id": request.scene.id,
            "target_duration": request.scene.target_duration,
            "original_target_duration": request.original_target_duration,
            "buffered_duration": request.buffered_duration,
            "requested_duration": request.requested_duration,
            "inputs": request.prediction.inputs,
            "references": request.references.model_dump(mode="json"),
            "cost": "0" if reused or resumed else str(self.get_remaining_cost(request)),
            "cost_is_exact": request.cost_is_exact,
            "buffer_cost_impact": request.buffer_cost_impact,
            "reused": reused,
            "resumed": resumed,
            **self._summarize_segments(request),
            **({"made_from": list(request.upstream_ids)} if request.upstream_ids else {}),
            **({"stale": True} if request.scene.id in self.stale else {}),
            "fallbacks": [
                {"model": each.model, "requested_duration": each.requested_duration, "cost": str(each.cost)}
                for each in request.fallbacks
            ],
        }


def prefer_alternative_in_progress(
    request: ClipRequest, delivered: Container[str], paid: Container[str]
) -> ClipRequest:
    """Return the alternative that an earlier run delivered, else the last that it began, else the request itself."""
    whole = (each for each in request.alternatives if each.key in delivered)
    begun = (
        each
        for keys in (delivered, paid)
        for each in reversed(request.alternatives)
        if any(part.key in keys for part in each.parts)
    )
    return next(chain(whole, begun), request)


def find_reused(requests: tuple[ClipRequest, ...], delivered: Container[str]) -> frozenset[str]:
    seen: set[str] = set()
    reused = set()
    for request in requests:
        if request.key in seen or request.key in delivered:
            reused.add(request.scene.id)
        seen.add(request.key)
    return frozenset(reused)
