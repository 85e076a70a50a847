import pytest

from tests.support.builders import list_looks, schedule_of
from videogen.execution.poll_schedule import MAX_DELAY_S, MIN_DELAY_S, PollSchedule


def test_without_experience_a_clip_is_noticed_within_an_eighth_of_its_time() -> None:
    """At any length, and never later than eight seconds."""
    for run_s in (1, 2, 10, 60, 300):
        assert list_looks(PollSchedule(), run_s)[-1] - run_s <= min(max(run_s / 8, MIN_DELAY_S), MAX_DELAY_S)


def test_with_experience_nothing_is_asked_while_it_cannot_be_finished() -> None:
    """The first look comes when the quickest seen so far was done."""
    assert list_looks(schedule_of(10, 20, 30), 20)[0] == 1.01 * 10


def test_with_experience_an_early_failure_is_noticed_all_the_same() -> None:
    """Within 20 s, also of a model that takes minutes."""
    assert list_looks(schedule_of(300, 320), 5) == [20]


def test_where_all_clips_take_the_same_time_one_look_is_enough() -> None:
    """And it comes within a hundredth of that time."""
    assert list_looks(schedule_of(2.0, 2.01, 2.02), 2.015) == [pytest.approx(2.02)]


def test_with_experience_few_looks_notice_early() -> None:
    """At 2 s a clip at most six calls and 0.3 s; at 60 s at most fifteen calls and 2 s."""
    short, long = list_looks(schedule_of(1.5, 2, 2.5), 2), list_looks(schedule_of(50, 60, 70), 60)
    assert len(short) <= 6
    assert short[-1] - 2 <= 0.3
    assert len(long) <= 15
    assert long[-1] - 60 <= 2


def test_what_is_expected_is_what_was_seen() -> None:
    """The median; before the first clip, what the registry calls typical."""
    assert PollSchedule().estimate_duration_s(150) == 150
    assert schedule_of(1, 2, 9).estimate_duration_s(150) == 2
