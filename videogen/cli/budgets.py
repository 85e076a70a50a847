"""Show, create and change the budgets that all runs on a journal share."""

from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase

from videogen.errors import InvalidError
from videogen.journal.database import check_journal_url
from videogen.journal.store import Journal
from videogen.planning.budgets import (
    EXAMPLE_ALLOWANCE,
    Budget,
    BudgetUse,
    check_time_zone,
    describe_missing_budget,
    parse_allowance,
)
from videogen.registry.load import read_registry
from videogen.settings import Settings, check_budget_name
from videogen.source_files.messages import did_you_mean
from videogen.text import format_money


def show_budgets(settings: Settings) -> None:
    """Print all budgets and their rests."""
    with closing(_open_journal(settings)) as journal:
        budgets = journal.list_budgets()
        for budget in budgets:
            _print_budget(journal, budget)
    if not budgets:
        print(f"there are no budgets. To create one: videogen budget NAME {EXAMPLE_ALLOWANCE}")


def change_budget(
    settings: Settings, name: str, allowance: str | None, models: str | None, time_zone: str | None
) -> None:
    """Create or change a budget if anything is given, and print it. None keeps what the budget has.

    Raises:
        InvalidError: a value is wrong, or there is no such budget and no allowance to create it with.
    """
    try:
        check_budget_name(name)
    except ValueError as exc:
        raise InvalidError(f"NAME: {exc}") from None
    given: dict[str, object] = {}
    if allowance is not None:
        given["amount"], given["period"] = parse_allowance(allowance)
    if models is not None:
        given["models"] = _parse_models(models, settings)
    if time_zone is not None:
        given["time_zone"] = check_time_zone(time_zone)
    with closing(_open_journal(settings)) as journal:
        budget = journal.find_budget(name)
        if budget is None and allowance is None:
            raise InvalidError(describe_missing_budget(name, [each.name for each in journal.list_budgets()]))
        if given:
            budget = Budget.model_validate((budget.model_dump() if budget else {"name": name}) | given)
            journal.set_budget(budget)
        assert budget is not None
        _print_budget(journal, budget)


def _open_journal(settings: Settings) -> Journal:
    if settings.journal_url:
        check_journal_url(settings.journal_url)
    return Journal(settings.get_journal_url())


def _parse_models(text: str, settings: Settings) -> tuple[str, ...]:
    """Return the patterns of a text. A pattern that fits no model would leave the budget without effect."""
    known = read_registry(settings.registry).models
    patterns = tuple(pattern.strip() for pattern in text.split(","))
    for pattern in patterns:
        if not any(fnmatchcase(model, pattern) for model in known):
            hint = did_you_mean(pattern, known) or ": `videogen models` lists them"
            raise InvalidError(f"--models: no model of the registry is named like {pattern[:40]!r}{hint}")
    return patterns


def _print_budget(journal: Journal, budget: Budget) -> None:
    per = "in total" if budget.period == "total" else f"a {budget.period} ({budget.time_zone})"
    models = f"models {', '.join(budget.models)}" if budget.models else "all models"
    print(f"{budget.name}: {format_money(budget.amount)} {per}, for {models}")
    for line in _describe_uses(journal, budget):
        print(f"  {line}")


def _describe_uses(journal: Journal, budget: Budget) -> Iterator[str]:
    """Yield a line for each provider account at which attempts count for the budget in this period."""
    uses = journal.get_budget_uses(budget)
    if not uses:
        unused = journal.get_budget_use(budget, "")
        yield f"nothing spent or reserved {unused.span.when}, {_describe_rest(unused)}"
    for origin, use in uses.items():
        spent, reserved = format_money(use.spent), format_money(use.reserved)
        yield f"{origin}: {spent} spent and {reserved} reserved {use.span.when}, {_describe_rest(use)}"


def _describe_rest(use: BudgetUse) -> str:
    end = use.describe_end()
    return f"{format_money(use.left)} left{f' until {end}' if end else ''}"
