"""The settings of the emulator: address, timing, limits and tokens."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from videogen.errors import SettingsError

Range = tuple[float, float]


class EmulatorSettings(BaseModel):
    """The behaviour of one emulator. The defaults are the live API's behaviour for an account with credit.

    `time_scale` multiplies every simulated time: the time in `starting` and in `processing`, `Cancel-After` (after its
    check for 5 s to 24 h), the removal of outputs, and the windows of the rate limit. With 0.01, outputs are removed
    after 36 s instead of an hour. The wait that a 429 asks for is already multiplied, so it is true time. `time_scale`
    does not change `Prefer: wait`, which is true time of the caller, nor `metrics.predict_time` and billing, which
    count simulated seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port; 0 chooses a free one."""
    seed: int = 0
    """Together with the number of the create it determines the times of a prediction, so that runs are repeatable."""
    time_scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    latency_s: Range | None = None
    """Range of the time in `processing`, in seconds. None means each model's own typical range."""
    latency_shape: Literal["even", "log-normal"] = "even"
    """Distribution of the times in `processing`. `log-normal` draws most of them below the middle and a few long ones:
    the range is two standard deviations to both sides, and values outside of it are set to its bounds."""
    queue_s: Range | None = None
    """Range of the seconds in `starting`. None means the model's own, without cold starts if `latency_s` is given."""
    mode: Literal["quick", "smooth"] = "quick"
    """`quick` repeats a camera move of two seconds; `smooth` renders one long move, frame by frame."""
    tokens: list[str] | None = None
    """Accepted bearer tokens. None means `local` and all tokens that start with `r8_`."""
    creates_per_minute: int | None = Field(default=None, gt=0)
    """Rate limit of creates. None means no limit."""
    burst: int | None = Field(default=None, gt=0)
    """Number of creates that may come at once. None means `creates_per_minute`."""
    output_ttl_s: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    """Simulated seconds that outputs and inputs are kept after completion."""
    cache: Path | None = None
    """A folder that keeps rendered clips between runs. None means that they are deleted when the server stops."""
    faults: Path | None = None
    """A fault plan (TOML), see README.md beside this module."""
    schemas: Path | None = None
    """A folder of snapshots, `OWNER/NAME.json`, as `videogen models check --snapshot` saves them. Each makes a model,
    besides the shipped ones."""
    clock_ahead_s: float = Field(default=0.0, allow_inf_nan=False)
    """Seconds by which the server's clock (`Date`, timestamps, list) is ahead of this machine's; may be negative."""

    @classmethod
    def from_flags(cls, **flags: Any) -> Self:
        """Return the settings of the command's flags.

        Raises:
            SettingsError: flags are invalid; the message has a line for each of them.
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
        """Return whether the API accepts this bearer token."""
        if self.tokens is None:
            return token in ("local",) or token.startswith("r8_")
        return token in self.tokens


_FLAGS = {"latency_s": "--latency", "mode": "--render"}


def _describe_problem(place: tuple[int | str, ...], message: str) -> str:
    """Return a line on an invalid setting; a validator of the whole model names the setting in its message."""
    message = message.removeprefix("Value error, ")
    if place:
        name = str(place[0])
    else:
        name, _, message = message.partition(": ")
    flag = _FLAGS.get(name) or "--" + name.replace("_", "-")
    return f"{flag}: {message[:1].lower()}{message[1:]}"
