from dataclasses import asdict

import pytest

from videogen.execution.patience import NO_PATIENCE, Backoff, Patience
from videogen.journal import database
from videogen.journal.database import Database


def test_a_run_is_as_patient_as_the_promises_say() -> None:
    """`docs/promises.md` names these times. With shorter ones a create would be sent twice, or an output given up."""
    assert asdict(Patience()) == {
        "unknown_s": 30,
        "unknown_at_most_s": 120,
        "output_s": 120,
        "id_s": 30,
        "first_pause_s": 0.5,
        "longest_pause_s": 10,
    }


def test_an_outage_of_the_journal_is_waited_for_as_long_as_the_promises_say() -> None:
    assert database.OUTAGE_S == 60
    assert Database("postgresql+psycopg://user@host/journal")._patience_s == 60


def test_pauses_grow_up_to_their_longest() -> None:
    pauses = Patience().make_backoff()
    assert [pauses.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 10, 10, 10]


@pytest.mark.parametrize(("first_s", "longest_s"), [(0.1, 0.25), (3, 2)])
def test_no_pause_is_longer_than_the_longest(first_s: float, longest_s: float) -> None:
    pauses = Backoff(first_s, longest_s)
    waits = [pauses.next_s() for _ in range(5)]
    assert waits == sorted(waits)
    assert waits[-1] == max(waits) == longest_s


def test_the_emulator_of_a_run_is_not_asked_twice() -> None:
    """Its answers are final."""
    waits = asdict(NO_PATIENCE)
    assert {waits[name] for name in ("unknown_s", "unknown_at_most_s", "output_s", "id_s")} == {0}
