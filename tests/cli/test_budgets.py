"""`videogen budget`: create, change and show budgets, and what is said of wrong values."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.builders import request_of
from videogen.cli.main import main
from videogen.journal.store import Journal

PRICE = request_of().cost
JOB = """budget = "team"

[[scenes]]
id = "a"
prompt = "A pier"
target_duration = 5
"""
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in a folder of its own. Returns its exit code and what it prints."""
    monkeypatch.chdir(tmp_path)
    for name in ("REPLICATE_API_TOKEN", "VIDEOGEN_OUT", "VIDEOGEN_BUDGET", "VIDEOGEN_REGISTRY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def spend(journal: Journal, take: int, *, origin: str, budgets: tuple[str, ...]) -> None:
    request = request_of(take=take)
    attempt = journal.record_intent(request, run_id="run", origin=origin, folder="here", budgets=budgets)
    assert journal.record_prediction(attempt, f"p{take}", None)
    journal.record_success(attempt, PRICE, "known")


def open_journal(folder: Path) -> "closing[Journal]":
    return closing(Journal(f"sqlite:///{folder / 'out' / 'journal.db'}"))


def test_a_budget_is_created_changed_and_shown(say: Say) -> None:
    """What is not given stays as it is."""
    code, out, _ = say("budget", "team", "200/month", "--models", "veo-*, kling-*", "--time-zone", "Europe/Berlin")
    first, rest = out.splitlines()
    assert (code, first) == (0, "team: $200.00 a month (Europe/Berlin), for models veo-*, kling-*")
    assert rest.startswith("  nothing spent or reserved in ")
    assert " $200.00 left until 1 " in rest
    assert rest.endswith(", 00:00 (Europe/Berlin)")
    _, out, _ = say("budget", "team", "20.50/day")
    assert out.startswith("team: $20.50 a day (Europe/Berlin), for models veo-*, kling-*\n")
    _, out, _ = say("budget", "team", "--models", "*")
    assert out.startswith("team: $20.50 a day (Europe/Berlin), for models *\n")
    say("budget", "all", "1000/total")
    code, out, _ = say("budget")
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "all: $1000.00 in total, for all models",
        "team: $20.50 a day (Europe/Berlin), for models *",
    ]
    assert "  nothing spent or reserved in total, $1000.00 left\n" in out


def test_each_account_is_shown_with_what_it_has_spent_and_reserved(say: Say, tmp_path: Path) -> None:
    say("budget", "team", "2/month")
    with open_journal(tmp_path) as journal:
        journal.start_run("run", job_id="film", origin="api.replicate.com", folder="here")
        spend(journal, 1, origin="api.replicate.com", budgets=("team",))
        spend(journal, 2, origin="local", budgets=("team",))
        more = request_of(take=3)
        journal.record_intent(more, run_id="run", origin="api.replicate.com", folder="here", budgets=("team",))
    _, out, _ = say("budget", "team")
    month = f"{datetime.now(UTC):%B}"
    _, replicate, local = out.splitlines()
    assert replicate.startswith(
        f"  api.replicate.com: $0.35 spent and $0.35 reserved in {month} (UTC), $1.30 left until 1 "
    )
    assert local.startswith(f"  local: $0.35 spent and $0.00 reserved in {month} (UTC), $1.65 left until 1 ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("team", "200/week"), "AMOUNT: 'week' is no period of a budget: write one of 200/day, 200/month, 200/total"),
        (("team", "-5/day"), "AMOUNT: '-5' is no amount in USD: write digits and a period, such as 5/day"),
        (("team", "abc"), "AMOUNT: 'abc' is no amount in USD: write digits and a period, such as 200/month"),
        (("team", "5/day", "--time-zone", "Europe/Berln"), "did you mean 'Europe/Berlin'?"),
        (("team", "5/day", "--models", "veoo-*"), "--models: no model of the registry is named like 'veoo-*'"),
        (("team", "5/day", "--models", "kling-v2.5-turbo,"), "--models: no model of the registry is named like ''"),
        (("a,b", "5/day"), "NAME: must be the name of a budget: 1 to 80 characters, without commas"),
        (("", "5/day"), "NAME: must be the name of a budget"),
        (("teem",), "no budget 'teem' yet. To create it: videogen budget teem 200/month"),
        (("--models", "veo-*"), "NAME: name the budget to change"),
    ],
)
def test_a_wrong_value_is_told_with_the_right_one(say: Say, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = say("budget", *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert say("budget")[1].startswith("there are no budgets. To create one: videogen budget NAME 200/month")


def test_the_plan_tells_of_the_budgets_of_the_job(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As lines and as JSON; a budget that is missing is told with its place, or its variable."""
    (tmp_path / "film.toml").write_text(JOB)
    code, _, err = say("plan", "film.toml")
    assert (code, err) == (
        2,
        "error: film.toml:1:1: budget: the journal has no budget 'team' yet. To create it: videogen budget team "
        "200/month\n",
    )
    say("budget", "team", "200/month")
    with open_journal(tmp_path) as journal:
        spend(journal, 1, origin="local", budgets=("team",))
    code, out, _ = say("plan", "film.toml")
    month = f"{datetime.now(UTC):%B}"
    assert f"budget team: $0.35 of $200.00 spent or reserved in {month} (UTC), $0.35 for this run\n" in out
    (budget,) = json.loads(say("plan", "film.toml", "--json")[1])["budgets"]
    assert Decimal(budget["spent"]) == Decimal(budget["planned_cost"]) == PRICE
    monkeypatch.setenv("VIDEOGEN_BUDGET", "team,teem")
    code, _, err = say("plan", "film.toml")
    assert code == 2
    assert err.startswith("error: environment: VIDEOGEN_BUDGET: the journal has no budget 'teem'; did you mean 'team'?")
    monkeypatch.setenv("VIDEOGEN_BUDGET", "team,,")
    code, _, err = say("plan", "film.toml")
    assert (code, "VIDEOGEN_BUDGET: names a budget without a name" in err) == (2, True)


def test_a_budget_is_created_in_the_journal_of_another_folder(say: Say, tmp_path: Path) -> None:
    """By the command that the refusal names."""
    (tmp_path / "film.toml").write_text(JOB)
    code, _, err = say("plan", "film.toml", "--out", "elsewhere")
    command = err.strip().partition("To create it: videogen ")[2].split()
    assert (code, command[-1]) == (2, str(tmp_path / "elsewhere"))
    assert say(*command)[0] == 0
    assert say("plan", "film.toml", "--out", "elsewhere")[0] == 0
    assert say("plan", "film.toml")[0] == 2


def test_a_plan_that_an_exhausted_budget_does_not_begin_is_refused(say: Say, tmp_path: Path) -> None:
    (tmp_path / "film.toml").write_text(JOB)
    say("budget", "team", "0.30/total")
    code, _, err = say("plan", "film.toml")
    assert (code, err) == (
        2,
        "error: budget team: $0.00 of $0.30 spent or reserved in total, and the remaining $0.30 does not cover any "
        "clip. To allow more: videogen budget team 0.35/total\n",
    )
