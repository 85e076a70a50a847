"""New takes come into the film once they are delivered, and not before."""

from pathlib import Path

import pytest

from tests.support.builders import deliver, job_of, result_of, small_clip
from videogen.job.choices import Choices, make_take
from videogen.results.clip import Clip
from videogen.results.takes import get_chosen_clips
from videogen.review import Review, put_in_film
from videogen.settings import read_settings
from videogen.storage.local import FileStore

pytestmark = pytest.mark.integration

JOB = job_of({"id": "storm", "prompt": "A storm", "target_duration": 1})


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review.open(read_settings(VIDEOGEN_OUT=str(tmp_path)), "film")


def write_takes(review: Review, *numbers: int, chosen: int | None = None, failed: tuple[int, ...] = ()) -> None:
    """Write the manifest of a run that made these takes, of which some failed, and a choice."""
    store = FileStore(Path(review.store.address))
    clips: list[Clip] = []
    for number in numbers:
        scene = JOB.scenes[0] if number == 1 else make_take(JOB.scenes[0], number)
        clip = deliver(store, scene.model_copy(update={"take_of": None}), small_clip(2), take_of="storm", take=number)
        clips.append(clip.model_copy(update={"status": "failed"}) if number in failed else clip)
    store.put_text(result_of(JOB, clips).manifest(), "manifest.json")
    review.change_choices({"storm": {"chosen": chosen}} if chosen else {})


def read_film(review: Review) -> tuple[str, int | str | None]:
    """Return the clip that is in the film, and the choice in the file."""
    (clip,) = get_chosen_clips(review.read_result())
    choices: Choices = review.read_choices()
    return clip.scene_id, choices.get_chosen("storm")


def test_a_new_take_replaces_the_choice(review: Review) -> None:
    """Nothing needs to be chosen for that: it is the newest."""
    write_takes(review, 1, 2, 3, chosen=1)
    assert put_in_film(review, {"storm": {"takes": {"2": {}, "3": {}}}}, before=review.read_choices()) == []
    assert read_film(review) == ("storm.take-3", None)


def test_a_take_that_was_not_delivered_leaves_the_choice(review: Review) -> None:
    write_takes(review, 1, 2, 3, chosen=1, failed=(3,))
    for number in ("3", "4"):
        assert put_in_film(review, {"storm": {"takes": {number: {}}}}, before=review.read_choices()) == []
    assert read_film(review) == ("storm", 1)


def test_an_older_take_is_chosen(review: Review) -> None:
    """As by `finish`, if the draft was chosen again after its final take was made."""
    write_takes(review, 1, 2, 3, chosen=1)
    put_in_film(review, {"storm": {"takes": {"2": {}}}}, before=review.read_choices())
    assert read_film(review) == ("storm.take-2", 2)


def test_a_choice_that_was_made_while_a_take_was_made_counts(review: Review) -> None:
    write_takes(review, 1, 2, 3, chosen=1)
    before = review.read_choices()
    review.change_choices({"storm": {"chosen": 2}})
    assert put_in_film(review, {"storm": {"takes": {"3": {}}}}, before=before) == ["storm"]
    assert read_film(review) == ("storm.take-2", 2)
