"""Takes, choices, ratings and notes in `choices.toml`, and the takes that a job has because of them."""

import tomllib
from typing import Any

import pytest

from videogen.errors import InvalidError, ValidationError
from videogen.job.choices import (
    Choices,
    add_takes,
    find_choice_warnings,
    find_next_take,
    find_scene,
    parse_choices,
    validate_selection,
    write_choices,
)
from videogen.job.model import Job

EDITED = """\
# Mine.
[storm]
chosen = 1  # the calm one

[storm.takes.2]
prompt = "A heavy storm"
"""


def job_with(*scenes: dict[str, Any], **fields: Any) -> Job:
    described = [{"prompt": "A storm", "target_duration": 5, **scene} for scene in scenes or ({"id": "storm"},)]
    return Job.model_validate({"scenes": described, **fields})


def ids_of(job: Job) -> list[str]:
    return [scene.id for scene, _ in job.variants()]


def test_a_job_without_the_file_has_no_choices() -> None:
    assert parse_choices(None) == Choices()


def test_the_changes_are_written_and_comments_stay() -> None:
    text = write_choices(EDITED, {"storm": {"takes": {"2": {"rating": 4, "note": 'the "sail"'}, "3": {"seed": 7}}}})
    assert text.startswith("# Mine.\n[storm]\nchosen = 1  # the calm one\n")
    assert tomllib.loads(text) == {
        "storm": {
            "chosen": 1,
            "takes": {"2": {"prompt": "A heavy storm", "rating": 4, "note": 'the "sail"'}, "3": {"seed": 7}},
        }
    }


def test_a_field_that_is_none_is_removed() -> None:
    text = write_choices(EDITED, {"storm": {"chosen": None, "takes": {"2": {"prompt": None}}}})
    assert tomllib.loads(text) == {"storm": {"takes": {"2": {}}}}


def test_a_new_file_can_be_read() -> None:
    text = write_choices(None, {"a.b": {"chosen": "veo-3.1/2", "takes": {"2": {"inputs": {"shot": [1, True]}}}}})
    choices = parse_choices(text)
    assert choices.get_chosen("a.b") == "veo-3.1/2"
    assert choices.get_entries("a.b")["2"].changes == {"inputs": {"shot": [1, True]}}


def test_every_problem_is_told_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        parse_choices('[storm]\nchosen = 1.5\n[storm.takes.2]\nrating = 6\npromt = "x"\n')
    assert [problem.position for problem in caught.value.problems] == [
        "choices.toml:2:1",
        "choices.toml:4:1",
        "choices.toml:5:1",
    ]
    assert "did you mean 'prompt'?" in str(caught.value)


@pytest.mark.parametrize("label", ["0", "04", "1001", "99999999999999999999"])
def test_a_number_that_no_take_can_have_is_refused(label: str) -> None:
    with pytest.raises(ValidationError, match="a take has a number from 1 to 1000"):
        parse_choices(f"[storm.takes.{label}]\nseed = 1\n")


def test_a_choice_is_a_number_or_a_text() -> None:
    with pytest.raises(ValidationError, match=r"choices\.toml:2:1"):
        parse_choices("[storm]\nchosen = true\n")


def test_each_take_that_is_described_follows_its_scene() -> None:
    job = add_takes(job_with({"id": "storm"}, {"id": "ship"}), parse_choices(EDITED))
    assert ids_of(job) == ["storm", "storm.take-2", "ship"]
    take = job.scenes[-1]
    assert (take.prompt, take.take, take.take_of, take.clip_index) == ("A heavy storm", 2, "storm", 0)
    assert job.clips_per_model == 2


def test_takes_of_a_job_with_several_come_after_those() -> None:
    choices = parse_choices("[storm.takes.3]\nseed = 1\n")
    job = add_takes(job_with({"id": "storm"}, {"id": "ship", "continues": "storm"}, takes=2), choices)
    assert ids_of(job) == ["storm.take-1", "storm.take-2", "storm.take-3", "ship.take-1", "ship.take-2"]
    variants = [scene for scene, _ in job.variants()]
    assert [scene.take for scene in variants] == [1, 2, 3, 1, 2]
    assert {scene.take_of for scene in variants} == {"storm", "ship"}
    assert [scene.clip_index for scene in variants] == [0, 1, 0, 2, 3]
    assert [scene.continues for scene in variants[3:]] == ["storm.take-1", "storm.take-2"]


def test_a_take_that_the_job_asks_for_later_stays_as_it_was_described() -> None:
    """It was made, and is paid for."""
    job = add_takes(job_with({"id": "storm"}, takes=3), parse_choices(EDITED))
    assert ids_of(job) == ["storm.take-1", "storm.take-3", "storm.take-2"]
    assert {scene.id: scene.prompt for scene, _ in job.variants()}["storm.take-2"] == "A heavy storm"


def test_a_take_that_is_only_rated_is_made_as_the_job_says() -> None:
    job = add_takes(job_with({"id": "storm"}, takes=2), parse_choices("[storm.takes.2]\nrating = 3\n"))
    assert ids_of(job) == ["storm.take-1", "storm.take-2"]


def test_a_take_continues_what_its_scene_continues() -> None:
    scenes = ({"id": "storm"}, {"id": "ship", "continues": "storm"})
    job = add_takes(job_with(*scenes, takes=2), parse_choices("[ship.takes.3]\n"))
    assert {scene.id: scene.continues for scene, _ in job.variants()}["ship.take-3"] == "storm.take-1"


def test_the_scene_of_the_job_file_is_changed_there() -> None:
    message = r"^choices\.toml:1:2: storm\.takes\.1: this take is the scene in the job file"
    with pytest.raises(ValidationError, match=message):
        add_takes(job_with(), parse_choices('[storm.takes.1]\nprompt = "x"\n'))


def test_a_take_with_the_id_of_another_scene_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"storm\.takes\.2: this take would be storm\.take-2, which is another"):
        add_takes(job_with({"id": "storm"}, {"id": "storm.TAKE-2"}), parse_choices(EDITED))


def test_scenes_that_the_job_does_not_have_are_left_alone_and_told() -> None:
    job = job_with({"id": "stern"})
    choices = parse_choices(EDITED)
    assert add_takes(job, choices) is job
    (warning,) = find_choice_warnings(job, choices)
    assert warning == "choices.toml:2:2: storm: 'storm' is no scene of job, and is ignored; did you mean 'stern'?"


def test_a_job_file_can_have_takes_itself() -> None:
    job = job_with({"id": "storm"}, {"id": "ship"}, {"id": "calm", "take_of": "storm", "take": 2})
    assert ids_of(job) == ["storm", "calm", "ship"]
    assert find_next_take(job, Choices(), find_scene(job, "storm")) == 3


def test_a_take_of_no_scene_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'strom' is no scene of this job; did you mean 'storm'\?"):
        job_with({"id": "storm"}, {"id": "calm", "take_of": "strom"})


def test_the_next_take_has_a_number_that_none_had() -> None:
    job = job_with({"id": "storm", "take": 4}, takes=2)
    assert find_next_take(job, parse_choices("[storm.takes.9]\n"), find_scene(job, "storm")) == 10
    assert find_next_take(job, Choices(), find_scene(job, "storm")) == 6


def test_a_scene_can_have_a_thousand_takes() -> None:
    job = job_with()
    with pytest.raises(InvalidError, match="storm has 1,000 takes"):
        find_next_take(job, parse_choices("[storm.takes.1000]\n"), find_scene(job, "storm"))


def test_a_scene_that_is_not_there_is_told_with_the_most_similar_one() -> None:
    job = job_with({"id": "storm"}, takes=2)
    with pytest.raises(InvalidError, match=r"'strom' is no scene of job; did you mean 'storm'\?"):
        find_scene(job, "strom")
    validate_selection(job, ["storm", "storm.take-2"])
    with pytest.raises(InvalidError, match=r"--only: 'strom' is no scene of job; did you mean 'storm'\?"):
        validate_selection(job, ["storm", "strom"])
