"""The log: what is waited for and what costs money, without secrets; and how the command line shows it."""

import asyncio
import contextvars
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.test_progress import over, started
from tests.support.builders import plan_of, request_of
from tests.support.fakes import LOST, FakeProvider, Script, run_of
from videogen.cli.logs import show_log
from videogen.cli.progress import ProgressLines
from videogen.errors import (
    AuthenticationError,
    BadOutputError,
    BudgetError,
    GoneError,
    LeaseLostError,
    RateLimitedError,
    TransientError,
    VideogenError,
)
from videogen.events import RunStarted
from videogen.execution.attempt import attempt_clip
from videogen.execution.context import RunContext
from videogen.execution.rate_limit_gate import ProviderGate
from videogen.execution.shared_limit import join_limit
from videogen.execution.slots import Slot, Slots
from videogen.journal.async_store import AsyncJournal
from videogen.journal.attempts import Attempt
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip
from videogen.text import make_loggable

pytestmark = pytest.mark.integration

PROMPT = "A keeper who must not be named"
SECRET = "r8_" + "secret" * 6


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="videogen"):
        yield caplog


def get_lines(log: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[tuple[str, str]]:
    """The lines of videogen from this level on, each with its level."""
    records = [record for record in log.records if record.name.startswith("videogen.") and record.levelno >= level]
    return [(record.levelname, record.getMessage()) for record in records]


def assert_logged(log: pytest.LogCaptureFixture, level: str, text: str) -> None:
    lines = get_lines(log)
    assert [line for line in lines if line[0] == level and text in line[1]], lines


async def generate(run: RunContext, request: ClipRequest | None = None) -> Clip:
    return await attempt_clip(request or request_of(prompt=PROMPT), run, Slot(Slots(5)))


# -- what is logged ---------------------------------------------------------------------------------------------------


async def test_a_rate_limit_is_logged_once_for_all_calls_that_wait(log: pytest.LogCaptureFixture) -> None:
    """With the time that it takes."""
    gate, limited = ProviderGate(), [RateLimitedError("slow down", retry_after_s=0.1) for _ in range(3)]

    async def call() -> None:
        await asyncio.sleep(0.01)  # until all calls are under way
        if limited:
            raise limited.pop()

    await asyncio.gather(*(gate.call_with_retries(call) for _ in range(3)))
    assert get_lines(log, logging.INFO) == [
        ("INFO", "the provider limits the rate: waiting 0.1 s before the next call")
    ]


async def test_a_call_that_is_repeated_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """With the reason and the pause."""
    await generate(run_of(tmp_path, FakeProvider(faults={"get": [TransientError("answered 502")]})))
    assert_logged(log, "INFO", "a call failed, the next try is in 0.0 s: answered 502")
    assert_logged(log, "INFO", "a: created prediction prediction0 with kling-v2.5-turbo")


@pytest.mark.parametrize(
    ("error", "level"), [(AuthenticationError("401"), "WARNING"), (LeaseLostError("taken over"), "WARNING")]
)
def test_the_end_of_all_creates_is_logged_once(error: VideogenError, level: str, log: pytest.LogCaptureFixture) -> None:
    """An account that is refused, or a lease that is lost. A person who interrupts the run knows."""
    gate = ProviderGate()
    gate.stop_creates(error)
    gate.stop_creates(error)
    ProviderGate().stop_creates()
    assert get_lines(log) == [(level, f"no more predictions are created: {error}")]


async def test_an_attempt_that_is_repeated_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The last one with a warning, as is a fallback to another model."""
    run = run_of(tmp_path, FakeProvider([Script("failed", error="out of memory")] * 3))
    once, again = request_of(job_attempts=1), request_of(job_attempts=2)
    fallback = request_of(job_attempts=1, job_fallback_models=["hailuo-2.3"], id="b")
    for request in (again, once, fallback):
        with pytest.raises(VideogenError):
            await generate(run, request)
    assert_logged(log, "INFO", "a: attempt 1 failed (model-error), another one follows: prediction prediction0 failed")
    assert_logged(log, "WARNING", "a: the clip failed (model-error): prediction prediction1 failed: out of memory")
    assert_logged(log, "WARNING", "b: kling-v2.5-turbo failed (model-error), falling back to hailuo-2.3: prediction")


async def test_a_prediction_of_an_earlier_run_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Also one whose id was never received, and one that is gone."""
    provider, request = FakeProvider(), request_of(prompt=PROMPT)
    first = run_of(tmp_path, provider, run_id="first")
    attempt = await first.journal.record_intent(request, run_id="first", origin="fake", folder=first.folder)
    created = await provider.create("kwaivgi/kling-v2.5-turbo-pro", None, request.prediction.inputs, cancel_after_s=60)
    await first.journal.record_prediction(attempt, created.id, created.created_at)
    await generate(run_of(tmp_path, provider, run_id="second"), request)
    assert_logged(log, "INFO", "a: found prediction prediction0 of run first, its status is succeeded")
    other = request_of(prompt="another prompt", id="b")
    old = provider.now() - timedelta(hours=2)
    await first.journal.record_intent(other, run_id="first", origin="fake", folder=first.folder, at=old)
    await generate(run_of(tmp_path, provider, run_id="third"), other)
    assert_logged(log, "INFO", "b: nothing is left of the attempt of run first, a new prediction is needed")


async def test_a_lost_create_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The search, and the prediction that it finds."""
    await generate(run_of(tmp_path, FakeProvider(faults={"answer": [LOST]})))
    assert_logged(log, "INFO", "a: the answer to a create was lost, searching the account for its prediction")
    assert_logged(log, "INFO", "a: adopted prediction prediction0 from the account's list")


async def test_a_download_that_is_repeated_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """An output that is refused, and one that is no video."""
    gone = FakeProvider(faults={"download": [GoneError("the output's address answers 403")]})
    await generate(run_of(tmp_path / "gone", gone))
    assert_logged(log, "INFO", "the output of prediction prediction0 is not there, asking again in 0.0 s: the output's")
    with pytest.raises(BadOutputError):
        await generate(run_of(tmp_path / "page", FakeProvider([Script(output=b"<html>")])))
    assert_logged(log, "INFO", "downloading the output of prediction prediction0 again: the output of prediction")


async def test_a_clip_that_is_reused_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """And one that cannot be, because its file has changed."""
    run = run_of(tmp_path, FakeProvider([Script(), Script()]))
    clip = await generate(run)
    await generate(run)
    assert_logged(log, "INFO", f"a: reused the clip that was delivered to {tmp_path}")
    (tmp_path / str(clip.video_path)).write_bytes(b"cut")
    await generate(run)
    assert_logged(log, "WARNING", f"a: the clip in {tmp_path} is missing or has changed, it is made again")


async def test_a_wait_for_the_run_of_another_job_is_logged_once(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Its clip is reused then."""
    provider = FakeProvider()
    run, request = run_of(tmp_path, provider), request_of(prompt=PROMPT)
    journal = run.journal
    await journal.start_run("other", job_id="other", origin="fake", folder="elsewhere")
    attempt = await journal.record_intent(request, run_id="other", origin="fake", folder="elsewhere")
    waiting = asyncio.create_task(generate(run, request))
    await asyncio.sleep(1.2)  # it looks twice
    await journal.record_end(attempt, error="canceled", message="")
    await waiting
    said = "a: waiting, because the run of another job makes the same clip"
    assert [line for line in get_lines(log) if line[1] == said] == [("INFO", said)]


async def test_a_wait_for_a_slot_that_all_runs_share_is_logged_once(
    log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A slot that is granted at once is not."""
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    journal.set_limit("replicate", 1)
    for run_id in ("a", "b"):
        journal.start_run(run_id, job_id=run_id, origin="fake", folder=run_id)
    async with join_limit(journal, "replicate", "a") as a, join_limit(journal, "replicate", "b") as b:
        ticket = await a.acquire()
        assert get_lines(log) == []
        waiting = asyncio.create_task(b.acquire())
        await asyncio.sleep(0.6)  # it asks a few times
        a.release(ticket)
        b.release(await waiting)
    journal.close()
    assert get_lines(log) == [("INFO", "waiting for 1 slots of the limit replicate, which all runs share")]


class Budgeted(AsyncJournal):
    """A journal whose budget has room at the second try."""

    refusals = 1

    async def record_intent(self, *args: Any, **kwargs: Any) -> Attempt:
        if self.refusals:
            self.refusals -= 1
            raise BudgetError("$1 of $1 are reserved", may_free=True)
        return await super().record_intent(*args, **kwargs)


async def test_a_wait_for_room_in_the_budget_is_logged(log: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    run = run_of(tmp_path, FakeProvider())
    run.journal = Budgeted(run.journal.journal)
    run.in_progress.add("another clip")
    making = asyncio.create_task(generate(run))
    while not get_lines(log, logging.INFO):
        await asyncio.sleep(0.01)
    run.notify_settled()
    await making
    assert_logged(log, "INFO", "a: waiting until another clip is settled: $1 of $1 are reserved")


async def test_a_wait_for_a_program_that_holds_the_journal_is_logged(
    log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """And that it goes on."""
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        setting = asyncio.create_task(asyncio.to_thread(journal.set_limit, "replicate", 1))
        while not get_lines(log):
            await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
        await setting
    journal.close()
    assert_logged(log, "INFO", f"waiting for another program that holds the journal at sqlite:///{tmp_path}/journal.db")
    assert_logged(log, "INFO", f"the journal at sqlite:///{tmp_path}/journal.db answers again")


async def test_a_journal_call_has_the_context_of_its_caller(tmp_path: Path) -> None:
    """Prefect finds the flow run of a line by it."""
    variable = contextvars.ContextVar("variable", default="unset")

    class Reading(Journal):
        def find_delivery(self, origin: str, key: str) -> Any:
            return variable.get()

    variable.set("of the caller")
    journal = AsyncJournal(Reading(f"sqlite:///{tmp_path / 'journal.db'}"))
    assert await journal.find_delivery("fake", "key") == "of the caller"  # type: ignore[comparison-overlap]
    await journal.aclose()


# -- what is not logged -----------------------------------------------------------------------------------------------

HOSTILE = (
    f'Authorization: Bearer {SECRET}\n2026-01-01 ERROR forged\x1b[2J for "{PROMPT}" at '
    f"https://user:{SECRET}@delivery.example/a.mp4?X-Signature={SECRET}#part {'x' * 5000}"
)


async def test_what_a_hostile_server_says_is_logged_without_secrets(
    log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nor is the prompt, nor does it begin a line of its own, whatever call it answers."""
    provider = FakeProvider(
        [Script("failed", error=HOSTILE)],
        faults={
            "create": [RateLimitedError(HOSTILE, retry_after_s=0.01)],
            "get": [TransientError("answered 502: " + HOSTILE.replace(PROMPT, ""))],
        },
    )
    with pytest.raises(VideogenError):
        await generate(run_of(tmp_path, provider))
    ProviderGate().stop_creates(AuthenticationError(HOSTILE.replace(PROMPT, "")))
    shown = "".join(message for _, message in get_lines(log, logging.INFO))
    assert shown.count("Authorization: *** ") + shown.count("Authorization: ***\\n") >= 3, shown
    assert all(hidden not in shown for hidden in (SECRET, "secretsecret", PROMPT, "X-Signature", "user:"))
    assert shown.isprintable()
    assert max(len(message) for _, message in get_lines(log)) < 700


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("answered 502", "answered 502"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        (f"token {SECRET}, refused", "token ***, refused"),
        (f"bearer {SECRET}.x==", "***"),
        ("at https://a.example/b.mp4?sig=1&x=2, no video", "at https://a.example/b.mp4?… no video"),
        ("'s3://me:pw@bucket/film#x'", "'s3://bucket/film?…'"),
        ("data:video/mp4;base64,AAAA", "data:…"),
        ("password=hunter2 and DB_TOKEN=x;", "password=*** and DB_TOKEN=***;"),
        ("{'code': 7, 'api_key': 'k', 'keys': 2}", "{'code': 7, 'api_key': '***', 'keys': 2}"),
        ("KeyError: 'case_sensitive'", "KeyError: 'case_sensitive'"),
        ("the output is a data: address", "the output is a data: address"),
        ("y" * 600, "y" * 499 + "…"),
    ],
)
def test_texts_of_others_are_shortened_and_shown(text: str, shown: str) -> None:
    assert make_loggable(text) == shown


def test_a_text_is_hidden_if_it_says_something() -> None:
    """A prompt of a word is part of any message."""
    assert make_loggable(f"flagged: {PROMPT}!", hide=PROMPT) == "flagged: …!"
    assert make_loggable("no permission", hide="per") == "no permission"


# -- how the command line shows it ------------------------------------------------------------------------------------


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


QUIET = """
import logging
from videogen.cli.logs import show_log
with show_log(None):
    logging.getLogger("videogen.execution.rate_limit_gate").warning("for the log only")
    logging.getLogger("videogen.journal.database").warning("the journal does not answer")
"""


def test_nothing_is_shown_unless_it_is_asked_for() -> None:
    """But that the journal does not answer, as nothing else would say what is waited for."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=250, check=True)
    assert (done.stdout, done.stderr) == ("", "the journal does not answer\n")


def test_lines_go_to_standard_error_from_a_level_on(capsys: pytest.CaptureFixture[str]) -> None:
    """On one line each; other programs' lines are not shown, and nothing is once the block is over."""
    parent, logger = logging.getLogger("videogen"), logging.getLogger("videogen.execution.rate_limit_gate")
    before = list(parent.handlers), parent.level, parent.propagate
    with show_log("info"):
        logger.debug("a detail")
        logger.info("a wait\nfor")
        logging.getLogger("httpx").warning("an address")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" INFO videogen.execution.rate_limit_gate: a wait\\nfor\n")
    assert err.count("\n") == 1
    assert (parent.handlers, parent.level, parent.propagate) == before


@pytest.mark.parametrize("error_is_terminal", [True, False])
def test_lines_leave_the_live_view_whole(error_is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal they are printed above it. They are still written to standard error if that is a file."""
    terminal = Terminal()
    error = terminal if error_is_terminal else StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    console = Console(file=terminal, force_terminal=True, width=100, highlight=False)
    lines = ProgressLines(console, plan_of(2))
    counts = {"run_id": "r", "completed": 0, "total": 2}
    begun = RunStarted(
        job_id="film", model="m", aspect_ratio="16:9", provider="local", planned_cost=0, max_cost=None, scenes=()
    )
    with show_log("info"):
        lines.show(begun, counts)
        lines.show(started(0), counts)
        written = len(terminal.getvalue())
        logging.getLogger("videogen.execution.rate_limit_gate").info("a wait")
        above = terminal.getvalue()[written:]
        lines.show(over(), counts)
    if error_is_terminal:
        erased, _, view = above.partition("videogen.execution.rate_limit_gate: a wait\n")
        assert "\x1b[2K" in erased
        assert "0 of 2 clips" in view
    else:
        assert above == ""
        assert error.getvalue().endswith(" INFO videogen.execution.rate_limit_gate: a wait\n")
