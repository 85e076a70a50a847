"""`videogen spend`: sums for people, tables for programs, and what the provider's books have otherwise."""

import csv
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.spending import ORIGIN, record_prediction
from tests.support.tokens import TOKEN
from videogen.cli.main import main
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.journal.store import Journal

AT = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a journal: two predictions at Replicate, one of which failed, and one of the emulator."""
    monkeypatch.setenv("VIDEOGEN_OUT", str(tmp_path))
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.db'}")) as journal:
        record_prediction(journal, 1, at=AT, cost=Decimal("0.40"))
        record_prediction(journal, 2, at=AT, cost=Decimal(0), error="moderation")
        record_prediction(journal, 3, at=AT, origin="local", job_id="test")
    return tmp_path


def spend(capsys: pytest.CaptureFixture[str], *flags: str, code: int = 0) -> str:
    assert main(["spend", *flags]) == code
    return capsys.readouterr().out


def spend_as_json(capsys: pytest.CaptureFixture[str], *flags: str, code: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(spend(capsys, *flags, "--json", code=code))
    return told


def test_the_default_sums_up_the_jobs_of_accounts_that_cost_money(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says which account it is about, and what it leaves out."""
    lines = [" ".join(line.split()) for line in spend(capsys).splitlines()]
    assert lines[0] == f"spending of all time at {ORIGIN}:"
    assert "job number planned $ billed $ reserved $ outcomes" in lines
    assert any(line.startswith("film 2 0.70 0.40 0.00 1 delivered") for line in lines)
    assert any(line.startswith("total 2 0.70 0.40 0.00") for line in lines)
    assert lines[-1] == "not included: the emulator on this machine, at no cost (--local)"
    assert "test 1" not in " ".join(lines)


def test_the_emulator_is_shown_if_it_is_asked_for(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [group["job_id"] for group in spend_as_json(capsys, "--by", "job", "--local")["groups"]] == ["film", "test"]
    told = spend_as_json(capsys, "--origin", "local")
    assert (told["origins"], told["total"]["predictions"]) == (["local"], 1)


@pytest.mark.parametrize(
    ("by", "columns"),
    [("day", ["day"]), ("scene", ["job_id", "scene_id"]), ("outcome", ["outcome"]), ("origin", ["origin"])],
)
def test_the_table_is_told_by_each_fact(
    by: str, columns: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text, CSV and JSON."""
    rows = list(csv.DictReader(io.StringIO(spend(capsys, "--by", by, "--csv"))))
    groups = spend_as_json(capsys, "--by", by)["groups"]
    assert list(rows[0]) == [*columns, "predictions", "delivered", "planned", "billed", "reserved"]
    assert [[row[name] for name in columns] for row in rows] == [[group[name] for name in columns] for group in groups]
    assert "total" in spend(capsys, "--by", by)


def test_each_prediction_is_a_row(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same fields in CSV and JSON; missing ones are empty in CSV."""
    rows = list(csv.DictReader(io.StringIO(spend(capsys, "--csv"))))
    told = spend_as_json(capsys)["predictions"]
    assert rows == [{name: value or "" for name, value in each.items()} for each in told]
    assert [(row["prediction_id"], row["outcome"], row["billed"]) for row in rows] == [
        ("p1", "delivered", "0.40"),
        ("p2", "failed", "0"),
    ]


def test_days_are_chosen_in_a_time_zone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spend_as_json(capsys, "--until", "2026-11-01")["total"]["predictions"] == 2
    told = spend_as_json(capsys, "--until", "2026-11-01", "--time-zone", "Europe/Berlin")
    assert (told["total"]["predictions"], told["until"]) == (0, "2026-11-02T00:00:00+01:00")
    assert spend_as_json(capsys, "--job", "other")["total"]["predictions"] == 0
    assert "no spending until 2026-10-31 (UTC) at api.replicate.com" in spend(capsys, "--until", "2026-10-31")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--csv", "--json"], "--csv and --json cannot be combined"),
        (["--since", "soon"], "--since: 'soon' is no day"),
        (["--origin", "api.replicate.con"], "did you mean 'api.replicate.com'?"),
        (["--out", "nowhere"], "nowhere/journal.db: give the --out of your runs, or set VIDEOGEN_JOURNAL_URL"),
        (["account", "--days", "15"], "--days: 15 is not 1 to 14"),
        (["account"], "REPLICATE_API_TOKEN is not set"),
        (["reconcile", "missing.csv"], "missing.csv: cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said(
    flags: list[str], says: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and no journal is created."""
    monkeypatch.chdir(out)
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    assert main(["spend", *flags]) == 2
    assert says in capsys.readouterr().err
    assert not (out / "nowhere").exists()


def test_spending_is_shown_quickly(out: Path) -> None:
    """Without Prefect, the decoder and the client of the provider."""
    command = [sys.executable, "-X", "importtime", "-m", "videogen", "spend"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "videogen.journal.store" in imported
    assert not imported & {"prefect", "av", "replicate", "httpx"}


# -- reconcile --------------------------------------------------------------------------------------------------------


def write_invoice(out: Path, text: str) -> str:
    path = out / "invoice.csv"
    path.write_text(text)
    return str(path)


def test_an_invoice_that_agrees_is_said_to(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoice = write_invoice(out, "prediction id,date,amount\np1,2026-11-01,$0.40\np2,2026-11-01,$0.00\n")
    said = spend(capsys, "reconcile", invoice)
    assert said == f"invoice.csv and the journal's predictions at {ORIGIN} agree on 2 predictions, $0.40\n"


def test_an_invoice_that_differs_is_listed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both amounts, and exit code 1."""
    invoice = write_invoice(out, "id,amount\nstranger,0.70\np2,0.35\n")
    assert spend(capsys, "reconcile", invoice, code=1).splitlines() == [
        f"invoice.csv and the journal's predictions at {ORIGIN} agree on 0 predictions, $0.00",
        "1 in the invoice, but unknown to the journal, $0.70 in all:",
        "  stranger, invoice $0.70, line 2",
        "1 in the journal, but not in the invoice, -$0.40 in all:",
        "  p1, 2026-11-01, kwaivgi/kling-v2.5-turbo-pro, journal $0.40",
        "1 with another amount, $0.35 in all:",
        "  p2, 2026-11-01, kling-v2.5-turbo, invoice $0.35, journal $0.00, line 3",
    ]
    told = spend_as_json(capsys, "reconcile", invoice, code=1)
    assert [each["kind"] for each in told["differences"]] == ["unknown", "amount", "missing"]


def test_columns_of_an_invoice_can_be_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoice = write_invoice(out, "run;usd\np1;0.40\n")
    flags = ("reconcile", invoice, "--id-column", "run", "--amount-column", "usd")
    assert spend_as_json(capsys, *flags)["matched"] == 1


def test_a_wrong_invoice_is_refused_by_its_lines(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoice = write_invoice(out, "id,amount\np1,free\n")
    assert main(["spend", "reconcile", invoice]) == 2
    assert capsys.readouterr().err == "error: invoice.csv:2: 'free' is no amount in USD, such as 0.35 or $1,234.50\n"


# -- account ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0, 0), queue_s=(0, 0))) as server:
        monkeypatch.setenv("REPLICATE_BASE_URL", server.url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
        yield server


@pytest.mark.integration
def test_predictions_of_the_account_that_the_journal_lacks_are_listed(
    out: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all pages of the list, with exit code 1. A prediction that the journal has is not listed."""
    address = f"{emulator.url}/v1/models/bytedance/seedance-1-pro/predictions"
    inputs = {"prompt": "A pier", "duration": 2, "resolution": "480p"}
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        made = [http.post(address, json={"input": inputs}).json()["id"] for _ in range(103)]
    origin = emulator.url.removeprefix("http://")
    with closing(sqlite3.connect(out / "journal.db")) as db:
        db.execute("UPDATE attempts SET prediction_id = ?, origin = ? WHERE prediction_id = 'p1'", (made[5], origin))
        db.commit()
    told = spend_as_json(capsys, "account", code=1)
    assert [each["prediction_id"] for each in told["unknown"]] == [each for each in reversed(made) if each != made[5]]
    assert {each["model"] for each in told["unknown"]} == {"bytedance/seedance-1-pro"}
    assert told["unknown"][0]["created_at"].startswith(f"{datetime.now(UTC):%Y-%m-}")
    first, *lines = spend(capsys, "account", "--days", "1", code=1).splitlines()
    assert first == f"predictions of the last 1 days at {origin} that the journal does not know:"
    assert [line.split()[0] for line in lines] == [each["prediction_id"] for each in told["unknown"]]


@pytest.mark.integration
def test_an_account_that_the_journal_knows_is_said_to_be_known(
    out: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = emulator.url.removeprefix("http://")
    assert spend(capsys, "account") == f"the journal knows all predictions of the last 14 days at {origin}\n"


@pytest.mark.integration
def test_a_refused_token_is_said(
    out: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "wrong-token")
    assert main(["spend", "account"]) == 3
    assert "Replicate refused the token" in capsys.readouterr().err
