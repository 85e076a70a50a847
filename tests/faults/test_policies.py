"""What counts as enough, what is tried instead, and what a second run makes again."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.faults.conftest import PRICE, REGISTRY, Stage, code, job_of, only, shot
from videogen.app import open_run, prepare_job
from videogen.errors import InvalidError, ValidationError
from videogen.planning.validation import load_and_validate

FLAGGED = 'do = "fail"\nerror = "flagged as sensitive (E005)"'


@pytest.mark.long_variants
@pytest.mark.parametrize(("share", "enough"), [("50%", True), ("50.1 %", False), (2, True), (3, False)])
async def test_enough_clips_can_be_a_share_of_the_scenes(stage: Stage, share: int | str, enough: bool) -> None:
    """Rounded up: half of four are two, a little more than half are three."""
    stage.emulate(FLAGGED + "\nnth_create = [1, 2]\ntimes = 2")
    batch = await stage.shoot("a", "b", "c", "d", min_clips=share)
    assert (batch.successful_clips, batch.verdict.status == "partial") == (2, enough)


@pytest.mark.parametrize("share", ["0%x", "-5%", "101%", "half", 0, ""])
def test_a_share_that_is_none_is_refused(share: int | str) -> None:
    with pytest.raises(ValueError, match="a share of the scenes"):
        job_of("a", min_clips=share)


async def test_what_failed_for_good_is_tried_with_the_next_model(stage: Stage) -> None:
    """The clip says which one made it, and what both have cost."""
    stage.emulate()
    clip = only(await stage.shoot("A boat", model="refused", fallback_models=["missing", "quick"]))
    assert (clip.status, clip.model, clip.attempts, clip.cost) == ("success", "quick", 3, PRICE)
    stage.books(creates=1, billed=1)


async def test_a_fallback_follows_when_all_attempts_failed(stage: Stage) -> None:
    """Its own attempts begin anew."""
    stage.emulate('do = "fail"\nerror = "out of memory"\ntimes = 3')
    clip = only(await stage.shoot("A boat", attempts=2, fallback_models=["twin"]))
    assert (clip.status, clip.model, clip.attempts) == ("success", "twin", 4)


async def test_when_no_model_delivers_the_clip_has_failed(stage: Stage) -> None:
    """It is not counted, whatever was tried; the error is the last one."""
    stage.emulate(FLAGGED)
    batch = await stage.shoot("A boat", fallback_models=["missing"])
    assert (code(only(batch)), only(batch).model, batch.verdict.status) == ("input", "missing", "failed")


async def test_what_is_paid_for_is_not_left_for_a_fallback(stage: Stage) -> None:
    """A finished clip that cannot be downloaded now is fetched by the next run."""
    stage.emulate('on = "download"\ndo = "refuse"\ntimes = 3')
    clip = only(await stage.shoot("A boat", fallback_models=["twin"]))
    assert (code(clip), clip.model) == ("unreachable", "quick")
    assert only(await stage.shoot("A boat", fallback_models=["twin"])).model == "quick"
    stage.books(creates=1, billed=1)


async def test_a_scene_that_a_fallback_made_stays_with_it(stage: Stage) -> None:
    """The next run does not pay the first model to refuse it again."""
    stage.emulate(FLAGGED)
    await stage.shoot("A boat", fallback_models=["twin"])
    again = only(await stage.shoot("A boat", fallback_models=["twin"]))
    assert (again.model, again.reused, again.cost) == ("twin", True, Decimal(0))
    assert stage.books(creates=2, billed=1)


async def test_fallbacks_are_planned_and_priced_beforehand(stage: Stage) -> None:
    """The total is the price if all goes well, the worst case has every attempt of every model."""
    stage.emulate()
    plan = (await prepare_job(job_of("A boat", fallback_models=["twin"]), stage.options)).plan
    assert (plan.total_cost, plan.worst_case_cost) == (PRICE, 2 * 3 * PRICE)
    assert plan.summary()["scenes"][0]["fallbacks"] == [{"model": "twin", "requested_duration": 2.0, "cost": "0.060"}]


async def test_a_fallback_that_cannot_make_the_scenes_is_refused_at_once(stage: Stage) -> None:
    """Each problem names its place in the list."""
    fallbacks = ["nobody", "quick", "tall", "twin", "twin"]
    with pytest.raises(ValidationError) as caught:
        await prepare_job(job_of("A boat", aspect_ratio="16:9", fallback_models=fallbacks), stage.options)
    assert {problem.where for problem in caught.value.problems} == {
        "fallback_models.0",
        "fallback_models.1",
        "fallback_models.2",
        "fallback_models.4",
    }


async def test_retrying_what_failed_keeps_everything_else(stage: Stage) -> None:
    """Also a scene whose prompt was changed meanwhile; what failed is made as the job says now."""
    stage.emulate(FLAGGED + '\nprompt = "bad"')
    first = await stage.shoot("A boat", "bad", "A gull", min_clips=1)
    again = await stage.shoot("A ship", "good", "A gull", options={"retry_failed": True})
    assert [clip.reused for clip in again.clips] == [True, False, True]
    assert again.clips[0].sha256 == first.clips[0].sha256
    assert again.verdict.status == "complete"
    stage.books(creates=4, billed=3)
    manifest = json.loads((stage.job_folder / "manifest.json").read_text())
    assert [clip["prompt"] for clip in manifest["clips"]] == ["A boat", "good", "A gull"]
    assert manifest["clips"][0]["inputs"]["prompt"] == "A boat"
    page = (stage.job_folder / "index.html").read_text()
    assert ("A boat" in page, "A ship" in page) == (True, False)
    assert "<dt>cost of all runs</dt>" in page


async def test_a_job_in_another_ratio_is_a_job_beside_the_first(stage: Stage, job_file: Callable[..., Path]) -> None:
    """With a folder, a manifest, a page, clips and a budget of its own: here one budget pays for one clip only.

    Each manifest tells what its clips were made from.
    """
    stage.emulate()
    Image.effect_noise((128, 72), 90).convert("RGB").save(stage.folder / "pier.png")
    scene = {"id": "a", "prompt": "A boat", "target_duration": 2, "seed": 7, "take": 3}
    scene["scene_reference_url"] = "pier.png"
    path = job_file(json.dumps({"model": "turned", "max_cost": str(PRICE), "scenes": [scene]}))
    options = stage.options.model_copy(update={"folder": str(stage.folder)})
    began = datetime.now(UTC)
    for flags in ({}, {"aspect_ratio": "9:16"}):
        job = load_and_validate(path, REGISTRY, flags).job
        async with open_run(await prepare_job(job, options)) as session:
            assert (await shot(session)).verdict.status == "complete"
    stage.books(creates=2, billed=2)
    for name, ratio in (("film", "16:9"), ("film-9x16", "9:16")):
        folder = stage.folder / "out" / name
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["job_id"], manifest["aspect_ratio"]) == (name, ratio)
        assert Decimal(manifest["job_cost"]) == PRICE
        assert f"<h1>{name}</h1>" in (folder / "index.html").read_text()
        (clip,) = manifest["clips"]
        assert (clip["width"] > clip["height"]) == (ratio == "16:9")
        assert hashlib.sha256((folder / clip["video_path"]).read_bytes()).hexdigest() == clip["sha256"]
        assert_made_from(clip, scene, ratio, began)


def assert_made_from(clip: Mapping[str, Any], scene: Mapping[str, Any], ratio: str, began: datetime) -> None:
    """Check that the manifest keeps the scene, the inputs as sent, with the name of the picture, and the times."""
    kept = {name: clip[name] for name in ("prompt", "seed", "take")}
    assert kept == {name: scene[name] for name in kept}
    assert clip["references"] == [scene["scene_reference_url"]]
    inputs = dict(clip["inputs"])
    assert re.fullmatch(r"[\w.:-]+", inputs.pop("image"))
    sent = {"duration": 2, "resolution": "480p", "aspect_ratio": ratio}
    assert inputs == {"prompt": scene["prompt"], "seed": scene["seed"], **sent}
    created, delivered = (datetime.fromisoformat(clip[name]) for name in ("created_at", "delivered_at"))
    assert began - timedelta(seconds=1) <= created <= delivered <= datetime.now(UTC)


async def test_a_kept_clip_whose_file_is_gone_is_made_again(stage: Stage) -> None:
    stage.emulate()
    await stage.shoot("A boat", "A gull")
    next(stage.job_folder.glob("clips/scene-1-*")).unlink()
    again = await stage.shoot("A boat", "A gull", options={"retry_failed": True})
    assert [clip.reused for clip in again.clips] == [False, True]


async def test_there_must_have_been_a_run_to_retry(stage: Stage) -> None:
    """Of this job, and with this provider."""
    stage.emulate()
    with pytest.raises(InvalidError, match=r"no manifest\.json"):
        await stage.shoot("A boat", options={"retry_failed": True})
    await stage.shoot("A boat")
    manifest = stage.job_folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"provider": "elsewhere"}))
    with pytest.raises(InvalidError, match="elsewhere"):
        await stage.shoot("A boat", options={"retry_failed": True})


async def test_old_clips_stay_until_the_new_ones_are_there(stage: Stage) -> None:
    """A fresh run that fails takes nothing away: the run after it reuses what was there."""
    stage.emulate(FLAGGED + "\nnth_create = 2")
    await stage.shoot("A boat")
    before = stage.delivered
    assert code(only(await stage.shoot("A boat", options={"fresh": True}))) == "moderation"
    assert stage.delivered == before
    assert only(await stage.shoot("A boat")).reused


async def test_a_prediction_that_is_paid_for_is_not_planned_again(stage: Stage) -> None:
    """The plan continues it for free, and the run tells what it paid from what an earlier run did."""
    stage.emulate(latency_s=(1.5, 1.5))
    options = stage.options.model_copy(update={"on_interrupt": "leave"})
    async with open_run(await prepare_job(job_of("A boat"), options)) as first:
        making = asyncio.create_task(first.make_clips())
        while stage.emulator.ledger()["running"] < 1:
            await asyncio.sleep(0.05)
        while not await first.run.journal.find_running_attempts(first.run.id):
            await asyncio.sleep(0.05)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
    plan = (await prepare_job(job_of("A boat", "A gull", max_cost="0.12"), stage.options)).plan
    assert (set(plan.resumed), plan.total_cost, plan.spent_before) == ({"scene-1"}, PRICE, PRICE)
    assert not [warning for warning in plan.warnings if "max-cost" in warning]
    assert [scene["resumed"] for scene in plan.summary()["scenes"]] == [True, False]
    batch = await stage.shoot("A boat", "A gull", max_cost="0.12")
    assert (batch.total_cost, batch.paid_before, batch.job_cost) == (2 * PRICE, PRICE, 2 * PRICE)
    stage.books(creates=2, billed=2)


async def test_a_fresh_run_that_can_pay_for_no_clip_is_refused(stage: Stage) -> None:
    """It would replace the manifest of a finished film with failures. What it can pay for in part is made."""
    stage.emulate()
    await stage.shoot("A boat", "A gull", max_cost="0.17")
    before = (stage.job_folder / "manifest.json").read_bytes()
    with pytest.raises(ValidationError, match=r"--fresh would make nothing\. --max-cost 0\.24 covers every clip"):
        await stage.shoot("A boat", "A gull", max_cost="0.17", options={"fresh": True})
    assert (stage.job_folder / "manifest.json").read_bytes() == before
    batch = await stage.shoot("A boat", "A gull", max_cost="0.18", options={"fresh": True})
    assert sorted(str(code(clip)) for clip in batch.clips) == ["None", "budget"]
    stage.books(creates=3, billed=3)


async def test_a_refused_plan_names_prices_after_what_earlier_runs_made(stage: Stage) -> None:
    """Each flag is followed, and none is refused: the clip that is there costs nothing, and its price is spent."""
    stage.emulate()
    await stage.shoot("A boat", min_clips=1)
    film = job_of("A boat", "A gull", "A whale", "A seal", "A crab", max_cost="0.23")
    with pytest.raises(ValidationError) as refused:
        await prepare_job(film, stage.options)
    assert str(refused.value) == (
        "max_cost: spent so far $0.06 of $0.23, this run about $0.24, $0.07 above the cap of $0.23: --only "
        "scene-2,scene-3 about $0.12, --max-cost 0.30"
    )
    options = stage.options.model_copy(update={"only": ("scene-2", "scene-3")})
    assert (await prepare_job(film, options)).plan.total_cost == 2 * PRICE
    raised = film.model_copy(update={"max_cost": Decimal("0.30")})
    async with open_run(await prepare_job(raised, stage.options)) as session:
        batch = await shot(session)
    assert [code(clip) for clip in batch.clips] == [None] * 5
    stage.books(creates=5, billed=5)


async def test_the_same_clip_twice_in_a_fresh_job_is_made_once(stage: Stage) -> None:
    """Both scenes ask for one and the same."""
    stage.emulate()
    twice = [{"id": name, "prompt": "A boat", "target_duration": 2} for name in ("a", "b")]
    await stage.shoot(scenes=twice)
    batch = await stage.shoot(scenes=twice, options={"fresh": True})
    assert sorted(clip.reused for clip in batch.clips) == [False, True]
    stage.books(creates=2, billed=2)
