"""An invoice is compared with the journal: by prediction, or by day and model."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.results.test_expenses import expense_of
from videogen.errors import ValidationError
from videogen.results.expenses import Expense, SpendPeriod
from videogen.results.invoice import Invoice, InvoiceField, Reconciliation, read_invoice, reconcile

PERIOD = SpendPeriod.parse(None, None, None)
ENDPOINTS = {"kling": "kwaivgi/kling"}


def read(
    folder: Path, text: str, period: SpendPeriod = PERIOD, columns: Mapping[InvoiceField, str | None] | None = None
) -> Invoice:
    path = folder / "invoice.csv"
    path.write_text(text, encoding="utf-8")
    return read_invoice(path, period, columns or {})


def compare(folder: Path, text: str, *expenses: Expense, period: SpendPeriod = PERIOD) -> Reconciliation:
    return reconcile(read(folder, text, period), expenses, period, ENDPOINTS)


def told(found: Reconciliation) -> list[tuple[object, ...]]:
    summaries = (each.summary() for each in found.differences)
    return [
        (each["kind"], each["prediction_id"] or each["model"], each["invoiced"], each["booked"]) for each in summaries
    ]


def of_day(prediction_id: str, day: int, billed: str = "0.40") -> Expense:
    return expense_of(prediction_id, at=datetime(2026, 11, day, 12, tzinfo=UTC), billed=Decimal(billed))


def test_an_invoice_that_agrees_has_no_differences(tmp_path: Path) -> None:
    text = "Prediction ID,Created At,Model,Cost\np1,2026-11-01T12:00:00Z,kwaivgi/kling,$0.40\np2,2026-11-02,x,0.4 USD\n"
    found = compare(tmp_path, text, of_day("p1", 1), of_day("p2", 2))
    assert found == Reconciliation(2, Decimal("0.80"), ())


def test_each_kind_of_difference_is_told(tmp_path: Path) -> None:
    """A stranger, one that is missing, and one with another amount."""
    text = "id,date,amount\nstranger,2026-11-01,0.70\np1,2026-11-03,0.45\np2,2026-11-02,0.40\n"
    found = compare(tmp_path, text, of_day("p1", 3), of_day("p2", 2), of_day("p3", 2))
    assert told(found) == [
        ("unknown", "stranger", "0.70", None),
        ("amount", "p1", "0.45", "0.40"),
        ("missing", "p3", None, "0.40"),
    ]
    assert (found.matched, found.matched_amount) == (1, Decimal("0.40"))
    assert [each.line for each in found.differences] == [2, 3, None]


def test_only_predictions_of_the_days_of_the_invoice_are_missing_in_it(tmp_path: Path) -> None:
    """Of its lines, or those that are given; free ones never are."""
    text = "id,date,amount\np2,2026-11-02,0.40\np4,2026-11-04,0.40\n"
    known = [of_day(f"p{day}", day) for day in range(1, 7)]
    free = of_day("free", 3, "0")
    assert [each.prediction_id for each in compare(tmp_path, text, *known, free).differences] == ["p3"]
    longer = SpendPeriod.parse("2026-11-01", "2026-11-05", None)
    missing = [each.prediction_id for each in compare(tmp_path, text, *known, free, period=longer).differences]
    assert missing == ["p1", "p3", "p5"]


def test_an_invoice_without_dates_is_about_the_days_of_its_predictions(tmp_path: Path) -> None:
    known = [of_day(f"p{day}", day) for day in range(1, 7)]
    found = compare(tmp_path, "id,amount\np2,0.40\np4,0.40\n", *known)
    assert [(each.kind, each.prediction_id) for each in found.differences] == [("missing", "p3")]


def test_amounts_may_be_rounded(tmp_path: Path) -> None:
    """To as many digits as the invoice has, two at least; a cost that nobody knows may be nothing."""
    unknown = expense_of("p3", billed=None, outcome="undeterminable")
    text = "id,amount\np1,0.12\np2,0.1235\np3,0\n"
    assert compare(tmp_path, text, of_day("p1", 1, "0.1234"), of_day("p2", 1, "0.1234"), unknown).matched == 2
    (other,) = compare(tmp_path, "id,amount\np3,0.40\n", unknown).differences
    assert (other.kind, other.booked) == ("amount", None)


def test_a_line_that_costs_nothing_may_be_unknown(tmp_path: Path) -> None:
    assert compare(tmp_path, "id,amount\nelsewhere,0.00\n") == Reconciliation(0, Decimal(0), ())


def test_without_ids_the_sums_of_days_and_models_are_compared(tmp_path: Path) -> None:
    """The provider's names of models are those of the registry; a version or an address may be with them."""
    text = (
        "Date;Model;Amount\n2026-11-01;https://replicate.com/kwaivgi/kling;0.50\n2026-11-01;kwaivgi/kling:abc;0.30\n"
        "2026-11-02;kling;0.40\n2026-11-02;other/model;1.00\n2026-11-04;kling;0.10\n"
    )
    known = [of_day("p1", 1), of_day("p2", 1), of_day("p3", 2), of_day("p4", 3), of_day("p5", 4), of_day("p6", 5)]
    found = compare(tmp_path, text, *known)
    assert told(found) == [
        ("unknown", "other/model", "1.00", None),
        ("missing", "kwaivgi/kling", None, "0.40"),
        ("amount", "kwaivgi/kling", "0.10", "0.40"),
    ]
    assert (found.matched, found.matched_amount) == (2, Decimal("1.20"))


def test_the_days_of_an_invoice_are_those_of_the_time_zone(tmp_path: Path) -> None:
    period = SpendPeriod.parse(None, None, "Asia/Tokyo")
    invoice = read(tmp_path, "id,time,amount\np1,2026-11-01 23:30:00 UTC,0.40\n", period)
    assert invoice.lines[0].day == date(2026, 11, 2)


def test_columns_can_be_named(tmp_path: Path) -> None:
    invoice = read(tmp_path, "run,usd\np1,1.5\n", columns={"id": "run", "amount": "usd"})
    assert [(line.prediction_id, line.amount) for line in invoice.lines] == [("p1", Decimal("1.5"))]


@pytest.mark.parametrize(
    ("text", "amount"), [("$1,234.50", "1234.50"), ("-$0.35", "-0.35"), ("usd 3", "3"), (" 7 ", "7")]
)
def test_amounts_are_read(tmp_path: Path, text: str, amount: str) -> None:
    invoice = read(tmp_path, f'id,amount\np1,"{text}"\n')
    assert invoice.lines[0].amount == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "invoice.csv: is empty: the first line names the columns"),
        ("id,date\np1,2026-11-01\n", "invoice.csv:1: there is no column for an amount; there are 'id', 'date'"),
        ("amount,date\n1,2026-11-01\n", "invoice.csv:1: there is no column for the prediction's id, nor for both"),
        ("id,amount\np1,free\n", "invoice.csv:2: 'free' is no amount in USD, such as 0.35"),
        ("id,amount\np1,0.35 EUR\n", "invoice.csv:2: '0.35 EUR' is no amount"),
        ("id,amount\np1,1\n\np2,1\np1,1\n", "invoice.csv:5: prediction p1 is in line 2, too"),
        ("id,amount\n,1\n", "invoice.csv:2: has an amount of 1 and no id"),
        ("id,amount,date\np1,1,soon\n", "invoice.csv:2: 'soon' is no date, such as 2026-11-01"),
        ("date,model,amount\n2026-11-01,,1\n", "invoice.csv:2: has no id, and needs both a date and a model"),
        ('id,amount\n"p1,1\n', "invoice.csv:2: no valid CSV"),
        ("%PDF-1.7\nstream\n", "invoice.csv:1: there is no column for an amount; there are '%PDF-1.7'"),
    ],
)
def test_a_wrong_file_is_refused_by_its_lines(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(says)


def test_all_wrong_lines_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as refused:
        read(tmp_path, "id,amount\np1,x\np2,1\np3,y\n")
    assert [problem.position for problem in refused.value.problems] == ["invoice.csv:2", "invoice.csv:4"]


def test_an_unknown_column_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"--amount-column: there is no column 'Amout'.*Amount"):
        read(tmp_path, "id,Amount\n", columns={"amount": "Amout"})
