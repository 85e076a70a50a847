"""What the emulator can be told: address, pace, limits, who may enter."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from videogen.errors import SettingsError

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
    clock_ahead_s: float = Field(default=0.0, allow_inf_nan=False)
    """By how much the server's clock is ahead of this machine's, in its `Date` headers, stamps and list; may be < 0."""

    @classmethod
    def from_flags(cls, **flags: Any) -> Self:
        """Return the settings that the command's flags say.

        Raises:
            SettingsError: they are wrong; every one is named as its flag.
        """
        try:
            return cls(**flags)
        except ValidationError as exc:
            lines = (_describe_problem(error["loc"], error["msg"]) for error in exc.errors(include_url=False))
            raise SettingsError("\n".join(lines)) from None

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("latency_s", "queue_s"):
            bounds: Range | None = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] < float("inf"):
                raise ValueError(f"{name}: {bounds} is not 0 <= low <= high")
        if self.burst is not None and self.creates_per_minute is None:
            raise ValueError("burst: needs creates_per_minute")
        return self

    def is_valid_token(self, token: str) -> bool:
        """Whether this bearer token opens the API."""
        if self.tokens is None:
            return token in ("local",) or token.startswith("r8_")
        return token in self.tokens


_FLAGS = {"latency_s": "--latency", "mode": "--render"}


def _describe_problem(place: tuple[int | str, ...], message: str) -> str:
    """Return a line on a wrong setting; a validator of the whole names the setting in its message."""
    message = message.removeprefix("Value error, ")
    name, _, rest = message.partition(": ") if not place else (str(place[0]), "", message)
    return f"{_FLAGS.get(name) or '--' + name.replace('_', '-')}: {rest[:1].lower()}{rest[1:]}"
