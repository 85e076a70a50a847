"""Further takes of scenes, on a provider that keeps the books: what is made, what stays, and what it costs."""

from decimal import Decimal

import pytest

from tests.faults.conftest import PRICE, Stage
from tests.faults.test_chains import by_scene, difference, luma, outcomes, prompts, run, scene
from videogen.app import open_run, prepare_job
from videogen.errors import InvalidError, ValidationError
from videogen.job.choices import CHOICES_NAME
from videogen.job.model import Job
from videogen.results.run_result import RunResult
from videogen.results.takes import get_chosen_clips
from videogen.review import Review, describe_retakes

TWO = scene("storm"), scene("ship", continues="storm")
RETAKE = {"storm": {"takes": {"2": {"prompt": "The heavy storm"}}}}


def review_of(stage: Stage) -> Review:
    return Review.open(stage.options.resolve_settings(), "job")


async def test_a_further_take_is_made_and_nothing_else(stage: Stage) -> None:
    stage.emulate()
    first = by_scene(await run(stage, *TWO))
    review_of(stage).change_choices(RETAKE)
    batch = await run(stage, *TWO)
    assert outcomes(batch) == {"storm": "reused", "storm.take-2": "delivered", "ship": "reused"}
    assert prompts(stage) == ["The storm", "The ship", "The heavy storm"]
    assert [clip.scene_id for clip in get_chosen_clips(batch)] == ["storm.take-2", "ship"]
    assert by_scene(batch)["ship"].sha256 == first["ship"].sha256
    stage.books(creates=3, billed=3)


async def test_a_scene_that_continues_another_take_now_is_stale_until_it_is_made_again(stage: Stage) -> None:
    """Its key is the same, so that nothing is paid for by accident."""
    stage.emulate()
    await run(stage, *TWO)
    review_of(stage).change_choices(RETAKE)
    await run(stage, *TWO)
    assert set(outcomes(await run(stage, *TWO)).values()) == {"reused"}
    stage.books(creates=3, billed=3)
    batch = await run(stage, *TWO, options={"remake_stale": True})
    assert outcomes(batch) == {"storm": "reused", "storm.take-2": "reused", "ship": "delivered"}
    clips = by_scene(batch)
    (made_from,) = (clips["ship"].made_from or {}).values()
    assert made_from == clips["storm.take-2"].sha256
    first = luma(stage.job_folder / str(clips["ship"].video_path))[0]
    of_takes = [luma(stage.job_folder / str(clips[name].video_path)) for name in ("storm.take-2", "storm")]
    new, old = (difference(frames[round(1.5 * 24) - 1], first) for frames in of_takes)
    assert new < old / 2
    stage.books(creates=4, billed=4)
    review_of(stage).change_choices({"storm": {"chosen": 1}})
    job = Job.model_validate({"model": "framed", "min_clips": 1, "scenes": TWO})
    (warning,) = [each for each in (await prepare_job(job, stage.options)).plan.warnings if "stale" in each]
    assert "ship" in warning


async def test_only_some_scenes_are_made_and_the_others_stay_whatever_has_changed(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO)
    changed = (
        scene("storm") | {"prompt": "The calm"},
        scene("ship", continues="storm") | {"prompt": "The ship at night"},
    )
    batch = await run(stage, *changed, scene("pier"), options={"only": ("ship",)})
    assert outcomes(batch) == {"storm": "reused", "ship": "delivered"}
    assert prompts(stage) == ["The storm", "The ship", "The ship at night"]
    stage.books(creates=3, billed=3)


async def test_what_a_selected_scene_continues_is_made_first(stage: Stage) -> None:
    stage.emulate()
    batch = await run(stage, *TWO, scene("pier"), options={"only": ("ship",)})
    assert outcomes(batch) == {"storm": "delivered", "ship": "delivered"}
    assert [scene.scene_id for scene in batch.scenes] == ["storm", "ship", "pier"]
    stage.books(creates=2, billed=2)


async def test_a_fresh_run_of_one_scene_makes_only_that_again(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO)
    batch = await run(stage, *TWO, options={"only": ("storm",), "fresh": True})
    assert outcomes(batch) == {"storm": "delivered", "ship": "reused"}
    stage.books(creates=3, billed=3)


async def test_a_scene_that_is_selected_by_mistake_is_refused_before_anything_is_made(stage: Stage) -> None:
    stage.emulate()
    with pytest.raises(InvalidError, match=r"--only: 'strom' is no scene of job; did you mean 'storm'\?"):
        await run(stage, *TWO, options={"only": ("strom",)})
    stage.books(creates=0, billed=0)


async def test_a_take_that_fails_leaves_the_one_before_in_the_film(stage: Stage) -> None:
    stage.emulate('prompt = "heavy"\ndo = "fail"\nerror = "flagged as sensitive"\ntimes = "always"')
    await run(stage, *TWO)
    review_of(stage).change_choices(RETAKE)
    batch = await run(stage, *TWO)
    assert outcomes(batch) == {"storm": "reused", "storm.take-2": "failed", "ship": "reused"}
    assert [clip.scene_id for clip in get_chosen_clips(batch)] == ["storm", "ship"]


async def test_a_choice_during_the_run_counts(stage: Stage) -> None:
    stage.emulate()
    job = Job.model_validate({"model": "framed", "min_clips": 1, "takes": 2, "scenes": TWO})
    async with open_run(await prepare_job(job, stage.options)) as runner:
        clips = await runner.make_clips()
        review_of(stage).change_choices({"storm": {"chosen": 1}})
        batch = await runner.finish(clips)
    assert [clip.scene_id for clip in get_chosen_clips(batch)] == ["storm.take-1", "ship.take-2"]


async def test_a_choice_is_in_the_manifest_and_on_the_contact_sheet(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO, takes=2)
    review_of(stage).change_choices({"storm": {"chosen": 1, "takes": {"1": {"rating": 4, "note": "<calm>"}}}})
    manifest = RunResult.from_manifest((stage.job_folder / "manifest.json").read_text(encoding="utf-8"))
    assert [clip.scene_id for clip in manifest.clips if clip.chosen] == ["storm.take-1", "ship.take-2"]
    page = (stage.job_folder / "index.html").read_text(encoding="utf-8")
    places = [page.index(f'id="{name}"') for name in ("storm.take-1", "storm.take-2", "ship.take-2", "ship.take-1")]
    assert places == sorted(places)
    assert all(text in page for text in ("★★★★☆", "&lt;calm&gt;", "in the film"))


async def test_a_broken_file_of_choices_stops_a_run_before_it_pays(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO)
    (stage.job_folder / CHOICES_NAME).write_text("[storm]\nchosen = 2.5\n", encoding="utf-8")
    with pytest.raises(ValidationError, match=r"choices\.toml:2:1"):
        await run(stage, *TWO)
    stage.books(creates=2, billed=2)


async def test_a_take_that_cannot_be_made_is_named(stage: Stage) -> None:
    """Not by a place in the job file, which does not have it."""
    stage.emulate()
    await run(stage, *TWO)
    review_of(stage).change_choices({"storm": {"takes": {"2": {"model": "fraimed"}}}})
    message = r"^choices\.toml:\d+:1: storm\.takes\.2\.model: 'fraimed' is not in the registry"
    with pytest.raises(ValidationError, match=message):
        await run(stage, *TWO)


async def test_what_a_clip_cost_is_kept_when_it_is_reused(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO)
    for _ in range(2):
        batch = await run(stage, *TWO)
        assert [(clip.cost, clip.paid) for clip in batch.clips] == [(Decimal(0), PRICE)] * 2


def retake_ids(stage: Stage, **changes: str) -> tuple[str, ...]:
    job, review = Job.model_validate({"model": "framed", "min_clips": 1, "scenes": TWO}), review_of(stage)
    retakes = describe_retakes(job, review.read_choices(), "storm", changes, delivered=review.list_delivered())
    review.change_choices(retakes.change)
    return retakes.take_ids


async def test_a_retake_that_was_interrupted_is_continued_by_the_same_command(stage: Stage) -> None:
    """And not another take, which would be paid for, too. Once it is delivered, the command makes another one."""
    stage.emulate()
    await run(stage, *TWO)
    assert retake_ids(stage, prompt="Nearer") == ("storm.take-2",)
    assert retake_ids(stage, prompt="Nearer") == ("storm.take-2",)
    assert retake_ids(stage, prompt="Farther") == ("storm.take-3",)
    await run(stage, *TWO)
    stage.books(creates=4, billed=4)
    assert retake_ids(stage, prompt="Nearer") == ("storm.take-4",)


async def test_choices_that_are_no_text_are_said(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *TWO)
    (stage.job_folder / CHOICES_NAME).write_bytes(b"[storm]\n# \xff\n")
    with pytest.raises(ValidationError, match=r"choices\.toml: not UTF-8"):
        await run(stage, *TWO)


async def test_a_damaged_manifest_is_not_told_as_a_missing_one(stage: Stage) -> None:
    stage.emulate()
    with pytest.raises(InvalidError, match="there is no manifest"):
        review_of(stage).read_result()
    (stage.job_folder / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidError, match="is damaged: run the job, which writes it again"):
        review_of(stage).read_result()
