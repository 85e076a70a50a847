"""A clock that tests set, and a run played by hand."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from videogen.journal.attempts import Attempt
from videogen.journal.store import Journal
from videogen.planning.requests import ClipRequest


class Clock:
    """The database's clock, which stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(journal_url: str, clock: Clock) -> Iterator[Journal]:
    with closing(Journal(journal_url, clock=clock)) as journal:
        yield journal


@pytest.fixture
def other(journal_url: str, clock: Clock, journal: Journal) -> Iterator[Journal]:
    """The same journal, as another process has it."""
    with closing(Journal(journal_url, clock=clock)) as another:
        yield another


def start(
    journal: Journal, run_id: str, *, job_id: str = "job", folder: str | None = None, exclusive: bool = False
) -> None:
    journal.start_run(run_id, job_id=job_id, origin="fake", folder=folder or run_id, exclusive=exclusive)


def intend(journal: Journal, request: ClipRequest, run_id: str, **given: object) -> Attempt:
    return journal.record_intent(request, run_id=run_id, origin="fake", folder=run_id, **given)  # type: ignore[arg-type]
