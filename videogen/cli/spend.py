"""Show the cost of predictions, and compare it with an invoice and with the account's list."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Literal

from videogen.cli.console import make_console, make_table, print_line
from videogen.cli.exit_codes import FAILED, OK
from videogen.errors import InvalidError
from videogen.journal.database import check_journal_url
from videogen.journal.store import Journal
from videogen.results.expenses import (
    COLUMNS,
    OUTCOMES,
    Expense,
    ExpenseGroup,
    Grouping,
    SpendPeriod,
    choose_origins,
    group_expenses,
    make_expenses_csv,
    sum_expenses,
)
from videogen.results.invoice import Difference, Invoice, InvoiceField, Reconciliation, read_invoice, reconcile
from videogen.settings import FREE_ORIGIN, Settings
from videogen.source_files.messages import did_you_mean
from videogen.text import escape_json, format_money, list_first

SpendFormat = Literal["text", "csv", "json"]
_ABOUT_DIFFERENCES: Mapping[str, str] = {
    "unknown": "in the invoice, but unknown to the journal",
    "missing": "in the journal, but not in the invoice",
    "amount": "with another amount",
}

# -- spend ------------------------------------------------------------------------------------------------------------


def show_spending(
    settings: Settings,
    period: SpendPeriod,
    *,
    by: Grouping | None,
    job_id: str | None,
    origin: str | None,
    with_local: bool,
    output: SpendFormat,
) -> int:
    """Print the expenses of the journal, summed up or one by one. Return the exit code."""
    with _open_journal(settings) as journal:
        known = journal.list_origins()
        origins = _find_origins(known, origin, with_local=with_local)
        expenses = journal.find_expenses(origins, since=period.since, until=period.until, job_id=job_id)
    if output == "csv":
        print(make_expenses_csv(expenses, by, period.zone), end="")
    elif output == "json":
        print(escape_json(json.dumps(_describe(expenses, by, period, origins), indent=2)))
    else:
        _print_spending(expenses, by or "job", period, origins, others=[each for each in known if each not in origins])
    return OK


def _find_origins(known: Sequence[str], origin: str | None, *, with_local: bool) -> Sequence[str]:
    if origin is not None and origin not in known:
        there = list_first(known) or "nothing"
        raise InvalidError(
            f"--origin: the journal has no runs at {origin!r}{did_you_mean(origin, known)}; it has {there}"
        )
    return [origin] if origin is not None else choose_origins(known, free=FREE_ORIGIN, with_free=with_local)


def _describe(
    expenses: Sequence[Expense], by: Grouping | None, period: SpendPeriod, origins: Sequence[str]
) -> dict[str, object]:
    about = {
        "origins": list(origins),
        "time_zone": period.zone.key,
        "since": period.since and period.since.isoformat(),
        "until": period.until and period.until.isoformat(),
        "total": sum_expenses(expenses).summary(),
    }
    if by is None:
        return about | {"predictions": [expense.summary() for expense in expenses]}
    return about | {"by": by, "groups": [group.summary(by) for group in group_expenses(expenses, by, period.zone)]}


def _print_spending(
    expenses: Sequence[Expense], by: Grouping, period: SpendPeriod, origins: Sequence[str], *, others: Sequence[str]
) -> None:
    console = make_console(stderr=False)
    where = " and ".join(origins) or "any provider"
    if not expenses:
        print_line(console, f"no spending {_describe_period(period)} at {where}")
    else:
        print_line(console, f"spending {_describe_period(period)} at {where}:")
        table = make_table(" / ".join(name.removesuffix("_id") for name in COLUMNS[by]), *_SUM_NAMES, "outcomes")
        groups, total = group_expenses(expenses, by, period.zone), sum_expenses(expenses)
        for group in groups:
            name = OUTCOMES[group.key[0]] if by == "outcome" else " / ".join(group.key)  # type: ignore[index]
            table.add_row(name, *_format_sums(group), "" if by == "outcome" else _format_outcomes(group))
        table.add_section()
        table.add_row("total", *_format_sums(total), _format_outcomes(total))
        console.print(table)
        if total.reserved:
            about = "some are running, or their cost is not certain"
            print_line(console, f"up to {format_money(total.reserved)} more may be billed: {about}")
    if others:
        print_line(console, f"not included: {', '.join(_describe_origin(each) for each in others)}")


_SUM_NAMES = ("number", "planned $", "billed $", "reserved $")


def _format_sums(group: ExpenseGroup) -> tuple[str, ...]:
    amounts = (group.planned, group.billed, group.reserved)
    return (str(group.predictions), *(format_money(amount).removeprefix("$") for amount in amounts))


def _format_outcomes(group: ExpenseGroup) -> str:
    return ", ".join(f"{count} {OUTCOMES[outcome]}" for outcome, count in group.outcomes.items())


def _describe_origin(origin: str) -> str:
    return "the emulator on this machine, at no cost (--local)" if origin == FREE_ORIGIN else f"{origin} (--origin)"


def _describe_period(period: SpendPeriod) -> str:
    """Return the days of a period in words."""
    since = [f"since {period.first_day}"] if period.first_day else []
    until = [f"until {period.last_day}"] if period.last_day else []
    days = " ".join(since + until)
    return f"{days} ({period.zone.key})" if days else "of all time"


# -- reconcile --------------------------------------------------------------------------------------------------------


def reconcile_invoice(
    settings: Settings,
    file: Path,
    period: SpendPeriod,
    *,
    columns: Mapping[InvoiceField, str | None],
    origin: str | None,
    as_json: bool,
) -> int:
    """Print the differences between an invoice and the journal. Return `FAILED` if there are any."""
    from videogen.registry.load import read_registry

    invoice = read_invoice(file, period, columns)
    with _open_journal(settings) as journal:
        origins = _find_origins(journal.list_origins(), origin, with_local=False)
        expenses = journal.find_expenses(origins)
    endpoints = {name: spec.replicate for name, spec in read_registry(settings.registry).models.items()}
    found = reconcile(invoice, expenses, period, endpoints)
    if as_json:
        print(escape_json(json.dumps(_describe_reconciliation(found, origins), indent=2)))
    else:
        _print_reconciliation(found, invoice, file.name, origins)
    return FAILED if found.differences else OK


def _describe_reconciliation(found: Reconciliation, origins: Sequence[str]) -> dict[str, object]:
    return {
        "origins": list(origins),
        "matched": found.matched,
        "matched_amount": str(found.matched_amount),
        "differences": [each.summary() for each in found.differences],
    }


def _print_reconciliation(found: Reconciliation, invoice: Invoice, name: str, origins: Sequence[str]) -> None:
    console = make_console(stderr=False)
    what = "predictions" if invoice.has_ids else "days of a model"
    print_line(
        console,
        f"{name} and the journal's predictions at {' and '.join(origins) or 'any provider'} agree on {found.matched} "
        f"{what}, {format_money(found.matched_amount)}",
    )
    for kind, about in _ABOUT_DIFFERENCES.items():
        members = [each for each in found.differences if each.kind == kind]
        if not members:
            continue
        amount = sum((each.invoiced or Decimal(0)) - (each.booked or Decimal(0)) for each in members)
        print_line(console, f"{len(members)} {about}, {format_money(Decimal(amount))} in all:")
        for each in members:
            print_line(console, f"  {_describe_difference(each)}")


def _describe_difference(each: Difference) -> str:
    names = [each.prediction_id, each.day and each.day.isoformat(), each.model]
    invoiced = "" if each.invoiced is None else f"invoice {format_money(each.invoiced)}"
    booked = "" if each.booked is None else f"journal {format_money(each.booked)}"
    if each.kind == "amount" and each.booked is None:
        booked = "journal does not know the cost"
    line = "" if each.line is None else f"line {each.line}"
    return ", ".join(str(part) for part in (*names, invoiced, booked, line) if part)


# -- account ----------------------------------------------------------------------------------------------------------


def show_unknown_predictions(settings: Settings, *, days: int, as_json: bool) -> int:
    """Print the account's predictions that the journal does not know. Return `FAILED` if there are any."""
    from videogen.account import find_unknown_predictions

    with _open_journal(settings) as journal:
        found = asyncio.run(find_unknown_predictions(settings, journal, days=days))
    origin = settings.get_origin("replicate")
    rows = [
        {
            "prediction_id": each.id,
            "created_at": each.created_at and each.created_at.isoformat(timespec="seconds"),
            "model": each.model,
            "status": each.status,
        }
        for each in found
    ]
    if as_json:
        print(escape_json(json.dumps({"origin": origin, "days": days, "unknown": rows}, indent=2)))
        return FAILED if found else OK
    console = make_console(stderr=False)
    if not found:
        print_line(console, f"the journal knows all predictions of the last {days} days at {origin}")
        return OK
    print_line(console, f"predictions of the last {days} days at {origin} that the journal does not know:")
    for row in rows:  # no table, which would break ids
        print_line(console, "  " + "  ".join(str(row[name] or "?") for name in row))
    return FAILED


@contextmanager
def _open_journal(settings: Settings) -> Iterator[Journal]:
    """Open the journal that the settings name. Raise `InvalidError` if it is a file that does not exist."""
    if settings.journal_url:
        check_journal_url(settings.journal_url)
    url = settings.get_journal_url()
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        raise InvalidError(f"there is no journal at {file}: give the --out of your runs, or set VIDEOGEN_JOURNAL_URL")
    with closing(Journal(url, read_only=True)) as journal:
        yield journal
