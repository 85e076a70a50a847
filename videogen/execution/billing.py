"""The cost of a prediction by what its provider billed, and bills that differ from the plan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from videogen.journal.schema import CostBasis
from videogen.planning.requests import ClipRequest, ExpectedBill, OutputPrice
from videogen.providers.base import BilledOutput, Capabilities, Prediction
from videogen.text import format_money, list_first

MAX_PRICE_DIFFERENCE = Decimal("0.05")
"""A bill that differs from the planned price by no more than this part of it is not worth a warning: some models add
a frame to the requested length."""
_SYNONYMS = {"4k": "2160p", "2k": "1440p"}
"""Other names of resolutions."""


@dataclass(frozen=True)
class UnexpectedBill:
    """A prediction that was billed otherwise than planned. Costs are in USD."""

    model: str
    scene_id: str
    planned_cost: Decimal
    cost: Decimal
    differences: tuple[str, ...]
    """What was billed in place of what was requested, such as `10 s instead of 5 s`."""
    source: str
    """Address of the page that documents the price."""

    @property
    def has_other_cost(self) -> bool:
        """Whether the cost differs from the planned one by more than a few frames."""
        return abs(self.cost - self.planned_cost) > self.planned_cost * MAX_PRICE_DIFFERENCE


def compute_cost(request: ClipRequest, prediction: Prediction, capabilities: Capabilities) -> tuple[Decimal, CostBasis]:
    """Return the cost of an ended prediction in USD, and how certain it is. A budget counts an estimated cost with its
    whole reservation."""
    planned = request.prediction
    if not prediction.started:
        return Decimal(0), "known"
    if planned.gpu_cost_per_s is not None:
        if prediction.predict_time_s is None:
            return planned.cost, "estimated"
        cost = planned.gpu_cost_per_s * Decimal(str(prediction.predict_time_s))
        return cost.quantize(Decimal("0.000001")), "known"
    if prediction.status == "succeeded":
        if planned.expected_bill is None:
            return planned.cost, "known"
        return _compute_output_cost(planned.cost, planned.expected_bill, prediction.billed)
    is_billed = capabilities.bills_failed if prediction.status == "failed" else capabilities.bills_canceled
    return planned.cost if is_billed else Decimal(0), "estimated"


def _compute_output_cost(planned: Decimal, expected: ExpectedBill, billed: BilledOutput) -> tuple[Decimal, CostBasis]:
    """Return the price of the billed output, or the planned price if the registry has none for it."""
    seconds = expected.seconds if billed.seconds is None else billed.seconds
    price = _find_billed_price(expected, billed)
    cost = (price or expected.price).calculate_cost(seconds, billed.count or 1)
    if cost is None:
        return planned, "estimated"
    is_known = price is not None and not (expected.can_be_shorter and billed.seconds is None)
    return cost, "known" if is_known else "estimated"


def _find_billed_price(expected: ExpectedBill, billed: BilledOutput) -> OutputPrice | None:
    """Return the price of the billed output; None if the registry has none for it, or more than one thing differs."""
    others = []
    if _has_other_resolution(expected, billed):
        others.append(_find_other_price(expected, billed.resolution))
    if _has_other_variant(expected, billed):
        others.append(_find_other_price(expected, billed.variant))
    if _has_other_sound(expected, billed):
        others.append(expected.price_with_other_sound)
    if not others:
        return expected.price
    return others[0] if len(others) == 1 else None


def _find_other_price(expected: ExpectedBill, name: str | None) -> OutputPrice | None:
    prices = (price for other, price in expected.other_prices.items() if _is_same(other, name))
    return next(prices, None)


def find_unexpected_bill(request: ClipRequest, prediction: Prediction, cost: Decimal) -> UnexpectedBill | None:
    """Return what to report of a succeeded prediction that cost this much; None if it was billed as planned."""
    expected, billed = request.prediction.expected_bill, prediction.billed
    if expected is None or prediction.status != "succeeded":
        return None
    differences = tuple(_list_differences(expected, billed))
    planned = request.cost
    if _is_shorter_as_expected(expected, billed):
        planned = expected.price.calculate_cost(billed.seconds or 0) or planned
    bill = UnexpectedBill(request.model, request.scene.id, planned, cost, differences, expected.source)
    has_other_output = (
        _has_other_resolution(expected, billed)
        or _has_other_variant(expected, billed)
        or _has_other_sound(expected, billed)
    )
    return bill if bill.has_other_cost or has_other_output else None


def estimate_most(request: ClipRequest, bills: Iterable[UnexpectedBill]) -> Decimal:
    """Return the most in USD that a prediction may cost by its price and by these bills for the same model."""
    factors = (bill.cost / bill.planned_cost for bill in bills if bill.model == request.model and bill.planned_cost)
    factor = max(factors, default=Decimal(1))
    return (request.cost * factor).quantize(Decimal("0.000001"), ROUND_UP) if factor > 1 else request.cost


def _is_shorter_as_expected(expected: ExpectedBill, billed: BilledOutput) -> bool:
    return expected.can_be_shorter and billed.seconds is not None and billed.seconds <= expected.seconds


def _has_other_resolution(expected: ExpectedBill, billed: BilledOutput) -> bool:
    return None not in (expected.resolution, billed.resolution) and not _is_same(expected.resolution, billed.resolution)


def _has_other_variant(expected: ExpectedBill, billed: BilledOutput) -> bool:
    """Return whether the bill names another variant than the requested one, and one that the registry knows."""
    return not _is_same(expected.variant, billed.variant) and _find_other_price(expected, billed.variant) is not None


def _is_same(one: str | None, other: str | None) -> bool:
    """Return whether two names of a resolution or a variant mean the same."""
    one, other = ((name or "").lower() for name in (one, other))
    return _SYNONYMS.get(one, one) == _SYNONYMS.get(other, other)


def _has_other_sound(expected: ExpectedBill, billed: BilledOutput) -> bool:
    return None not in (expected.sound, billed.with_audio) and expected.sound != billed.with_audio


def _list_differences(expected: ExpectedBill, billed: BilledOutput) -> Iterable[str]:
    if billed.seconds not in (None, expected.seconds) and not _is_shorter_as_expected(expected, billed):
        yield f"{billed.seconds:g} s instead of {expected.seconds:g} s"
    if billed.count is not None and billed.count > 1:
        yield f"{billed.count} videos instead of 1"
    if _has_other_resolution(expected, billed):
        yield f"{billed.resolution} instead of {expected.resolution}"
    if _has_other_variant(expected, billed):
        yield f"{billed.variant} instead of {expected.variant}"
    if _has_other_sound(expected, billed):
        yield "with sound instead of without" if billed.with_audio else "without sound instead of with"


def describe_unexpected_bills(bills: Iterable[UnexpectedBill]) -> tuple[str, ...]:
    """Return one sentence for each model that was billed otherwise than planned."""
    by_model: dict[str, list[UnexpectedBill]] = {}
    for bill in bills:
        by_model.setdefault(bill.model, []).append(bill)
    return tuple(_describe_bills(model, of_model) for model, of_model in by_model.items())


def _describe_bills(model: str, bills: Sequence[UnexpectedBill]) -> str:
    number = len({bill.scene_id for bill in bills})
    clips = "1 clip was" if number == 1 else f"{number} clips were"
    differences = list_first(list(dict.fromkeys(each for bill in bills for each in bill.differences)))
    look_up = f"look it up at {bills[0].source}"
    if not any(bill.has_other_cost for bill in bills):
        return f"{model}: {clips} billed {differences}: the registry's price may be wrong for that, {look_up}"
    costs = {(bill.cost, bill.planned_cost) for bill in bills}
    is_same = len(costs) == 1 and len(bills) == number
    cost, planned = costs.pop() if is_same else (sum(b.cost for b in bills), sum(b.planned_cost for b in bills))
    how = "" if number == 1 else " each" if is_same else " together"
    amounts = f"{format_money(Decimal(cost))}{how}, not {format_money(Decimal(planned))} as planned"
    return f"{model}: {clips} billed {amounts} ({differences}): the registry's price looks stale, {look_up}"
