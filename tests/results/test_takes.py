"""Takes of scenes: in groups, with labels, and one of each chosen."""

from typing import Any

from tests.support.builders import clip_of, job_of, result_of
from videogen.job.choices import Choices, add_takes, parse_choices
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import (
    apply_choices,
    choose_take,
    find_chosen_ids,
    find_take,
    get_chosen_clips,
    group_takes,
    make_label,
    sort_for_review,
)


def take(index: int, scene_id: str, number: int, **fields: Any) -> Clip:
    own = {"scene_id": f"{scene_id}.take-{number}", "take_of": scene_id} if number > 1 else {"scene_id": scene_id}
    return clip_of(index, **own, take=number, **fields)


def result(*clips: Clip, **fields: Any) -> RunResult:
    return result_of(job_of({}), clips, **fields)


def ids(clips: Any) -> list[str]:
    return [clip.scene_id for clip in clips]


THREE = (take(0, "storm", 1), take(0, "storm", 2), take(0, "storm", 3), take(1, "ship", 1))


def test_takes_of_one_scene_belong_together_in_film_order() -> None:
    batch = result(take(1, "ship", 1), *THREE[:2], take(1, "ship", 2))
    assert list(map(ids, group_takes(batch))) == [["storm", "storm.take-2"], ["ship", "ship.take-2"]]


def test_manifests_that_do_not_name_the_scene_are_grouped_by_their_order() -> None:
    clips = [clip_of(index, scene_id=name) for index, name in enumerate(("a.one", "a.two", "b.one", "b.two"))]
    assert list(map(ids, group_takes(result(*clips, cells_per_scene=2)))) == [["a.one", "a.two"], ["b.one", "b.two"]]


def test_the_newest_delivered_take_is_chosen_unless_a_person_chose() -> None:
    failed = take(0, "storm", 4, failure="moderation")
    assert choose_take([*THREE[:3], failed]).take == 3
    assert choose_take([*THREE[:3], failed], 2).take == 2
    assert choose_take([*THREE[:3], failed], 4).take == 3
    assert choose_take([failed]) is failed


def test_a_comparison_without_a_choice_uses_the_newest_take_of_the_first_model() -> None:
    names = ("one", 1), ("one", 2), ("two", 1), ("two", 2)
    takes = [
        clip_of(n, scene_id=f"a.{model}.take-{number}", take_of="a", model=model, take=number)
        for n, (model, number) in enumerate(names)
    ]
    assert choose_take(takes) is takes[1]
    assert [make_label(each, takes) for each in takes] == ["one/1", "one/2", "two/1", "two/2"]
    assert choose_take(takes, "two/1") is takes[2]
    assert choose_take(takes, "a.two.take-2") is takes[3]
    of_one_take = takes[1], takes[3]
    assert [make_label(each, of_one_take) for each in of_one_take] == ["one", "two"]
    assert find_take(of_one_take, "two") is takes[3]
    assert find_take(of_one_take, "three") is None


def test_a_take_of_another_model_has_a_number_of_its_own() -> None:
    takes = take(0, "storm", 1), take(0, "storm", 2, model="veo-3.1")
    assert [make_label(each, takes) for each in takes] == [1, 2]


def test_choices_ratings_and_notes_are_in_the_result() -> None:
    text = '[storm]\nchosen = 2\n[storm.takes.2]\nrating = 4\n[storm.takes.3]\nnote = "too dark"\n'
    marked = apply_choices(result(*THREE), parse_choices(text))
    assert [(clip.scene_id, clip.chosen, clip.rating, clip.note) for clip in marked.clips] == [
        ("storm", False, None, None),
        ("storm.take-2", True, 4, None),
        ("storm.take-3", False, None, "too dark"),
        ("ship", True, None, None),
    ]
    assert ids(get_chosen_clips(marked)) == ["storm.take-2", "ship"]
    assert ids(sort_for_review(marked)) == ["storm.take-2", "storm", "storm.take-3", "ship"]


def test_a_rating_can_be_taken_back() -> None:
    marked = apply_choices(result(*THREE), parse_choices("[storm.takes.2]\nrating = 4\n"))
    assert {clip.rating for clip in apply_choices(marked, Choices()).clips} == {None}


def test_models_that_are_compared_stay_in_their_order() -> None:
    clips = [clip_of(n, scene_id=f"a.{name}", take_of="a", model=name) for n, name in enumerate(("one", "two"))]
    marked = apply_choices(result(*clips, cells_per_scene=2), parse_choices('[a]\nchosen = "two"\n'))
    assert ids(sort_for_review(marked)) == ["a.one", "a.two"]
    assert ids(get_chosen_clips(marked)) == ["a.two"]


def test_others_continue_the_chosen_take_once_it_is_delivered() -> None:
    text = "[storm.takes.2]\n[storm.takes.3]\n"
    job = add_takes(job_of({"id": "storm"}, {"id": "ship", "continues": "storm"}), parse_choices(text))
    none_yet = result(take(0, "storm", 1), take(0, "storm", 2, failure="moderation"))
    assert find_chosen_ids(job, parse_choices(text), None) == {}
    assert find_chosen_ids(job, parse_choices(text), none_yet) == {
        "storm.take-2": "storm",
        "storm.take-3": "storm",
    }
    newest = dict.fromkeys(["storm", "storm.take-2"], "storm.take-3")
    assert find_chosen_ids(job, parse_choices(text), result(*THREE)) == newest
    chosen = dict.fromkeys(["storm", "storm.take-3"], "storm.take-2")
    assert find_chosen_ids(job, parse_choices(f"[storm]\nchosen = 2\n{text}"), result(*THREE)) == chosen


def test_takes_that_are_made_together_continue_each_other() -> None:
    """The final of one scene starts from the final of the other one, and not from a draft."""
    text = "[storm.takes.2]\n[ship.takes.2]\n"
    job = add_takes(job_of({"id": "storm"}, {"id": "ship", "continues": "storm"}), parse_choices(text))
    making = ("storm.take-2", "ship.take-2")
    found = find_chosen_ids(job, parse_choices(text), result(*THREE[:1]), making=making)
    assert found == {"storm": "storm.take-2", "ship": "ship.take-2"}


def test_takes_that_a_job_asks_for_continue_those_with_their_own_number() -> None:
    job = job_of({"id": "storm"}, {"id": "ship", "continues": "storm"}, takes=2)
    made = [take(n, "storm", 1, take_of="storm") for n in range(2)]
    assert find_chosen_ids(job, Choices(), result(*made)) == {}
