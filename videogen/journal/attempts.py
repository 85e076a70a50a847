"""The life of an attempt: its states, and which method of the journal leads from one to the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

AttemptState = Literal["intended", "created", "succeeded", "delivered", "ended"]
TRANSITIONS: Mapping[AttemptState, Mapping[AttemptState, tuple[str, ...]]] = {
    "intended": {
        "intended": ("take_over_attempt", "confirm_intent", "record_cost"),
        "created": ("record_prediction",),
        "ended": ("record_end",),
    },
    "created": {
        "created": ("take_over_attempt", "record_cost"),
        "succeeded": ("record_cost",),
        "ended": ("record_end",),
    },
    "succeeded": {
        "succeeded": ("take_over_attempt", "record_cost"),
        "delivered": ("record_delivery",),
        "ended": ("record_end",),
    },
    "delivered": {
        "succeeded": ("forget_delivery",),
    },
    "ended": {},
}
"""For each state of an attempt, the states that may follow, and the methods of `Journal` that lead there."""
OPEN_STATES: tuple[AttemptState, ...] = ("intended", "created", "succeeded")
CostBasis = Literal["known", "estimated", "undeterminable"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One prediction, from its intent to its end. Costs are USD."""

    id: int
    run_id: str
    clip_key: str
    state: AttemptState
    prediction_id: str | None
    intended_at: datetime
    created_at: datetime | None
    price: Decimal
    cost: Decimal | None
    begun_by: str | None = None
    """The run that began the attempt, if another run has taken it over; else None."""

    @property
    def is_taken_over(self) -> bool:
        """Whether an earlier run began, and paid for, this attempt."""
        return self.begun_by not in (None, self.run_id)
