"""Compare a provider's invoice, a table in CSV, with the expenses in the journal."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from videogen.errors import Problem, ValidationError
from videogen.results.expenses import UNKNOWN, Expense, SpendPeriod
from videogen.source_files.messages import did_you_mean
from videogen.source_files.table import read_table, simplify_column_name

InvoiceField = Literal["id", "amount", "date", "model"]
NAMES: Mapping[InvoiceField, tuple[str, ...]] = {
    "id": ("predictionid", "prediction", "predictionuuid", "id"),
    "amount": ("amount", "amountusd", "cost", "costusd", "billed", "charge", "total", "totalusd", "price"),
    "date": ("createdat", "created", "date", "day", "startedat", "completedat", "timestamp", "time"),
    "model": ("model", "modelname", "product", "description"),
}
"""Names of columns that are recognised, simplified. The first one that is there counts."""
_AMOUNT = re.compile(r"-?(?:USD|US\$|\$)?\s?(\d+|\d{1,3}(?:,\d{3})+)(\.\d+)?\s?(?:USD)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice, in USD."""

    number: int
    """Number of the line in the file."""
    prediction_id: str | None
    day: date | None
    model: str | None
    """As the provider names it."""
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """The lines of an invoice."""

    lines: tuple[InvoiceLine, ...]
    has_ids: bool
    """Whether each line is a prediction. Otherwise lines have a day and a model."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that an invoice and the journal do not agree on. Money is in USD."""

    kind: Literal["unknown", "missing", "amount"]
    """`unknown` to the journal, `missing` in the invoice, or another `amount`."""
    prediction_id: str | None
    """None if the invoice has no ids."""
    day: date | None
    model: str | None
    invoiced: Decimal | None
    """None if it is missing in the invoice."""
    booked: Decimal | None
    """Cost in the journal; None if it is unknown there."""
    line: int | None = None
    """Number of the line in the file; None if it is no single line."""

    def summary(self) -> dict[str, str | int | None]:
        """Return the difference as JSON value."""
        return {
            "kind": self.kind,
            "prediction_id": self.prediction_id,
            "day": None if self.day is None else self.day.isoformat(),
            "model": self.model,
            "invoiced": None if self.invoiced is None else str(self.invoiced),
            "booked": None if self.booked is None else str(self.booked),
            "line": self.line,
        }


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The result of a comparison."""

    matched: int
    """Number of predictions, or of days of a model, on which both agree."""
    matched_amount: Decimal
    """USD of these by the invoice."""
    differences: tuple[Difference, ...]


def read_invoice(path: Path, period: SpendPeriod, columns: Mapping[InvoiceField, str | None]) -> Invoice:
    """Return the lines of an invoice.

    Args:
        path: a CSV file with a line of names at the top.
        period: its time zone is the one of the days.
        columns: names of columns that are not recognised by themselves.

    Raises:
        ValidationError: with every line that cannot be read, or the columns that are missing.
    """
    rows = list(read_table(path))
    if not rows:
        raise ValidationError([Problem("is empty: the first line names the columns", position=path.name)])
    (number, header), *body = rows
    places = _find_columns(header, columns, f"{path.name}:{number}")
    if not body:
        raise ValidationError([Problem("has names of columns only: export it with its lines", position=path.name)])
    lines: list[InvoiceLine] = []
    problems: list[Problem] = []
    for line, cells in body:
        found = {field: cells[place] if place < len(cells) else "" for field, place in places.items()}
        try:
            lines.append(_read_line(line, found, period))
        except ValueError as exc:
            problems.append(Problem(str(exc), position=f"{path.name}:{line}"))
    problems += _find_duplicates(lines, path.name)
    if problems:
        raise ValidationError(problems)
    return Invoice(tuple(lines), has_ids="id" in places)


def _find_columns(
    header: Sequence[str], columns: Mapping[InvoiceField, str | None], position: str
) -> dict[InvoiceField, int]:
    names = [simplify_column_name(name) for name in header]
    places: dict[InvoiceField, int] = {}
    for field, usual in NAMES.items():
        given = columns.get(field)
        if given is not None:
            if given not in header:
                message = f"there is no column {given!r}{did_you_mean(given, header)}"
                raise ValidationError([Problem(message, where=f"--{field}-column", position=position)])
            places[field] = header.index(given)
        elif found := [names.index(name) for name in usual if name in names]:
            places[field] = found[0]
    missing = "an amount" if "amount" not in places else ""
    if not missing and "id" not in places and not {"date", "model"} <= places.keys():
        missing = "the prediction's id, nor for both a date and a model"
    if missing:
        known = ", ".join(repr(name) for name in header)
        message = f"there is no column for {missing}; there are {known}. Name it, such as --amount-column NAME"
        raise ValidationError([Problem(message, position=position)])
    return places


def _read_line(number: int, cells: Mapping[InvoiceField, str], period: SpendPeriod) -> InvoiceLine:
    """Return a line. Raise `ValueError` with the reason if it cannot be read."""
    amount = _read_amount(cells["amount"])
    day = _read_day(cells["date"], period) if cells.get("date") else None
    if "id" in cells and not cells["id"] and amount:
        raise ValueError(f"has an amount of {cells['amount']} and no id")
    if "id" not in cells and (day is None or not cells["model"]):
        raise ValueError("has no id, and needs both a date and a model")
    return InvoiceLine(number, cells.get("id") or None, day, cells.get("model") or None, amount)


def _read_amount(text: str) -> Decimal:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no amount in USD, such as 0.35 or $1,234.50")
    amount = Decimal(found[1].replace(",", "") + (found[2] or ""))
    return -amount if "-" in text else amount


def _read_day(text: str, period: SpendPeriod) -> date:
    try:
        if len(text) == len("2026-11-01"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text.removesuffix(" UTC").replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is no date, such as 2026-11-01 or 2026-11-01T12:00:00Z") from None
    return period.find_day(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _find_duplicates(lines: Iterable[InvoiceLine], name: str) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for line in lines:
        if line.prediction_id is not None and first.setdefault(line.prediction_id, line.number) != line.number:
            message = f"prediction {line.prediction_id} is in line {first[line.prediction_id]}, too"
            yield Problem(message, position=f"{name}:{line.number}")


def reconcile(
    invoice: Invoice, expenses: Sequence[Expense], period: SpendPeriod, endpoints: Mapping[str, str]
) -> Reconciliation:
    """Compare an invoice with the expenses of its account.

    Expenses can be missing in the invoice only within its days: from its first to its last one, unless the period has
    its own. An invoice without dates is taken to be about the days of the predictions that are in it.

    Args:
        invoice: the lines.
        expenses: all expenses of the account.
        period: the days that the invoice is about, as far as they are known.
        endpoints: the provider's names of models, by those in the registry.
    """
    compare = _compare_predictions if invoice.has_ids else _compare_models
    return compare(invoice, expenses, period, endpoints)


def _compare_predictions(
    invoice: Invoice, expenses: Sequence[Expense], period: SpendPeriod, endpoints: Mapping[str, str]
) -> Reconciliation:
    known = {expense.prediction_id: expense for expense in expenses if expense.prediction_id is not None}
    lines = {line.prediction_id: line for line in invoice.lines if line.prediction_id is not None}
    differences: list[Difference] = []
    agreed: list[Decimal] = []
    for line in lines.values():
        expense = known.get(line.prediction_id or "")
        booked = expense.billed if expense else None
        if _agree(booked, line.amount) and (expense or not line.amount):
            agreed += [line.amount] if expense else []
            continue
        kind: Literal["unknown", "amount"] = "amount" if expense else "unknown"
        day = line.day or (period.find_day(expense.at) if expense else None)
        model = line.model or (expense.model if expense else None)
        differences.append(Difference(kind, line.prediction_id, day, model, line.amount, booked, line.number))
    first, last = _find_days(invoice, [known[each] for each in known.keys() & lines.keys()], period)
    for prediction_id, expense in known.items():
        day = period.find_day(expense.at)
        if prediction_id in lines or not expense.billed or first is None or last is None or not first <= day <= last:
            continue
        model = endpoints.get(expense.model or "", expense.model)
        differences.append(Difference("missing", prediction_id, day, model, None, expense.billed))
    return Reconciliation(len(agreed), sum(agreed, Decimal(0)), tuple(differences))


def _compare_models(
    invoice: Invoice, expenses: Sequence[Expense], period: SpendPeriod, endpoints: Mapping[str, str]
) -> Reconciliation:
    """Compare the sums of each model on each day."""
    first, last = _find_days(invoice, (), period)
    invoiced, booked = (defaultdict[tuple[date, str], Decimal](Decimal) for _ in range(2))
    for line in invoice.lines:
        if line.day is not None and line.model is not None:
            invoiced[line.day, _name_endpoint(line.model, endpoints)] += line.amount
    for expense in expenses:
        day = period.find_day(expense.at)
        if expense.billed and first is not None and last is not None and first <= day <= last:
            booked[day, _name_endpoint(expense.model or UNKNOWN, endpoints)] += expense.billed
    differences: list[Difference] = []
    agreed: list[Decimal] = []
    for day, model in sorted(invoiced.keys() | booked.keys()):
        amount, cost = invoiced.get((day, model)), booked.get((day, model))
        if amount is not None and _agree(cost, amount):
            agreed.append(amount)
            continue
        kind: Literal["unknown", "missing", "amount"] = "amount"
        if amount is None or cost is None:
            kind = "missing" if amount is None else "unknown"
        differences.append(Difference(kind, None, day, model, amount, cost))
    return Reconciliation(len(agreed), sum(agreed, Decimal(0)), tuple(differences))


def _find_days(invoice: Invoice, matched: Sequence[Expense], period: SpendPeriod) -> tuple[date | None, date | None]:
    """Return the first and the last day that the invoice is about; None if that is not known."""
    days = [line.day for line in invoice.lines if line.day is not None]
    days = days or [period.find_day(expense.at) for expense in matched]
    first, last = period.first_day or min(days, default=None), period.last_day or max(days, default=None)
    return first, last


def _agree(booked: Decimal | None, amount: Decimal) -> bool:
    """Return whether a cost is the amount of an invoice, which may be rounded to cents. An unknown cost may be zero."""
    digits = max(2, -int(amount.as_tuple().exponent))
    return round(booked or Decimal(0), digits) == amount


def _name_endpoint(model: str, endpoints: Mapping[str, str]) -> str:
    """Return a model as the provider names it, such as `owner/name`, without an address and a version."""
    plain = re.sub(r"^https?://[^/]+/", "", model.strip()).partition(":")[0].lower()
    return endpoints.get(plain, plain)
