"""What the emulator can be told: address, pace, limits, who may enter."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Range = tuple[float, float]


class EmulatorSettings(BaseModel):
    """How one emulator behaves. Every default is how the live API behaves for an account with credit.

    `time_scale` multiplies every simulated time: time in `starting` and in `processing`, `Cancel-After` (after its
    5 s to 24 h check), the removal of outputs and the windows of the rate limit (the wait that a 429 asks for is the
    true one). It leaves `Prefer: wait` alone, which is the caller's own clock, and `metrics.predict_time` and billing,
    which count simulated seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    seed: int = 0
    """With the number of the create it fixes each prediction's times, so that two runs finish in one order."""
    time_scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    latency_s: Range | None = None
    """Time in `processing`, from this range; None: each model's own typical range."""
    latency_shape: Literal["even", "log-normal"] = "even"
    """How times in `processing` lie in their range. `log-normal`: most of them below the middle, a few long ones; the
    range is two standard deviations to both sides, and what would lie outside lies on its bounds."""
    queue_s: Range | None = None
    """Time in `starting`; None: the model's own, without cold starts if `latency_s` is given."""
    mode: Literal["quick", "smooth"] = "quick"
    """`quick` repeats a camera move of two seconds; `smooth` draws one long move, frame by frame."""
    tokens: list[str] | None = None
    """Bearer tokens that are let in; None: `local` and everything that starts with `r8_`."""
    creates_per_minute: int | None = Field(default=None, gt=0)
    """Rate limit of creates; None: none."""
    burst: int | None = Field(default=None, gt=0)
    """How many creates may come at once; None: a whole minute's worth."""
    output_ttl_s: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    """How long outputs and inputs are kept after completion."""
    cache: Path | None = None
    """A folder that keeps rendered clips from one run to the next; None: they go when the server does."""
    faults: Path | None = None
    """A fault plan (TOML), see README.md beside this module."""

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("latency_s", "queue_s"):
            bounds: Range | None = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] < float("inf"):
                raise ValueError(f"{name}: {bounds} is not 0 <= low <= high")
        if self.burst is not None and self.creates_per_minute is None:
            raise ValueError("burst: needs creates_per_minute")
        return self

    def admits(self, token: str) -> bool:
        """Whether this bearer token opens the API."""
        if self.tokens is None:
            return token in ("local",) or token.startswith("r8_")
        return token in self.tokens
