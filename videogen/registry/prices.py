"""The price of a clip, as the provider bills it."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from videogen.job.model import Money
from videogen.registry.tables import Inputs, Table

PriceBasis = Literal["exact", "estimated", "unknown"]
_AMOUNTS = ("per_second", "per_clip", "per_gpu_second")


class Amount(Table):
    """An amount in USD: per second of requested video, or per clip."""

    per_second: Money | None = None
    """USD for a second of requested video."""
    per_clip: Money | Annotated[dict[float, Money], Field(min_length=1)] | None = None
    """USD for a clip, or a table of prices by requested seconds."""

    @property
    def is_per_length(self) -> bool:
        """Whether a longer clip costs more."""
        return self.per_second is not None or isinstance(self.per_clip, dict)

    def multiply(self, requested_s: float) -> Decimal:
        """Return the amount for a clip of that length. Raise `KeyError` if the table has no such length."""
        if self.per_second is not None:
            return self.per_second * Decimal(str(requested_s))
        if isinstance(self.per_clip, dict):
            return self.per_clip[requested_s]
        assert self.per_clip is not None
        return self.per_clip


class PriceRow(Amount):
    """The price in USD of clips with certain inputs."""

    when: Inputs = {}
    """Inputs that are sent with these values."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.per_second is None) == (self.per_clip is None):
            raise ValueError("give exactly one of per_second, per_clip")
        return self


class Price(Amount):
    """The price in USD per second of requested video, per clip, or per second of GPU time, or a table of rows by the
    inputs that are sent. Exactly one of them is given."""

    per_gpu_second: Money | None = None
    """USD for a second of GPU time."""
    rows: tuple[PriceRow, ...] = ()
    """Prices by the inputs that are sent. Each clip must fit exactly one row."""
    as_of: date
    """The day on which the price was looked up."""
    basis: PriceBasis
    """`exact` means published by the provider, `estimated` means inferred, see `note`. `unknown` means that nobody has
    looked the price up: the amount only keeps plans within their budgets, and every plan warns about it."""
    note: str = ""
    """Conditions of the price, or how it was estimated."""

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        given = [name for name in _AMOUNTS if getattr(self, name) is not None]
        if len(given) + bool(self.rows) != 1:
            raise ValueError(f"give exactly one of {', '.join(_AMOUNTS)}, rows")
        return self

    def find_rows(self, inputs: Inputs) -> list[Amount]:
        """Return the rows that a clip with these inputs fits: exactly one if the registry is complete."""
        if not self.rows:
            return [self]
        return [row for row in self.rows if row.when.items() <= inputs.items()]

    def follows_length(self, inputs: Inputs) -> bool:
        """Return whether a longer clip with these inputs costs more."""
        return self.per_gpu_second is None and self.find_rows(inputs)[0].is_per_length

    def calculate_cost(self, requested_s: float, gpu_s: float, inputs: Inputs) -> Decimal:
        """Return the price in USD of a clip.

        Args:
            requested_s: its length in seconds.
            gpu_s: the seconds of GPU time that it took.
            inputs: all inputs that are sent.
        """
        if self.per_gpu_second is not None:
            return (self.per_gpu_second * Decimal(str(gpu_s))).quantize(Decimal("0.000001"))
        return self.find_rows(inputs)[0].multiply(requested_s)
