"""Scenes that continue others, on a provider that refuses some: who is made, who waits, and what it costs."""

import statistics
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import pytest

from tests.faults.conftest import Stage, code
from videogen.app import open_run, prepare_job
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult

REFUSED = 'prompt = "storm"\ndo = "fail"\nerror = "flagged as sensitive"\ntimes = "always"'


def scene(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "prompt": f"The {name}", "target_duration": 1.5, **fields}


CHAIN = (scene("c", continues="b"), scene("b", continues="a"), scene("a"))
"""Three scenes of which each continues the one after it in the job."""


async def run(stage: Stage, *scenes: dict[str, Any], options: Any = None, **fields: Any) -> RunResult:
    job = Job.model_validate({"model": "framed", "min_clips": 1, "scenes": scenes, **fields})
    async with open_run(await prepare_job(job, stage.options.model_copy(update=options or {}))) as runner:
        return await runner.finish(await runner.make_clips())


async def plan_warnings(stage: Stage, *scenes: dict[str, Any], **options: Any) -> list[str]:
    job = Job.model_validate({"model": "framed", "min_clips": 1, "scenes": scenes})
    plan = (await prepare_job(job, stage.options.model_copy(update=options))).plan
    return [warning for warning in plan.warnings if "stale" in warning]


def by_scene(batch: RunResult) -> dict[str, Clip]:
    return {clip.scene_id: clip for clip in batch.clips}


def outcomes(batch: RunResult) -> dict[str, str]:
    return {clip.scene_id: clip.outcome for clip in batch.clips}


def luma(path: Path) -> list[bytes]:
    """The luma of each frame, in one size for all clips."""
    with av.open(str(path)) as container:
        frames = (frame.reformat(256, 144, "gray") for frame in container.decode(video=0))
        return [frame.to_image().tobytes() for frame in frames]  # type: ignore[no-untyped-call]


def difference(one: bytes, other: bytes) -> float:
    return statistics.median(abs(a - b) for a, b in zip(one, other, strict=True))


def prompts(stage: Stage) -> list[str]:
    return [made["input"]["prompt"] for made in stage.emulator.ledger()["predictions"]]


async def test_each_clip_begins_with_the_frame_at_which_the_one_before_is_cut(stage: Stage) -> None:
    """Whatever the order of the job, and though a clip is longer than its scene."""
    stage.emulate()
    clips = by_scene(await run(stage, *CHAIN))
    frames = {name: luma(stage.job_folder / str(clip.video_path)) for name, clip in clips.items()}
    cut = round(1.5 * 24) - 1
    assert len(frames["a"]) > cut + 1
    for before, after in (("a", "b"), ("b", "c")):
        assert difference(frames[before][cut], frames[after][0]) <= 2
    assert prompts(stage) == ["The a", "The b", "The c"]
    stage.books(creates=3, billed=3)


async def test_a_clip_ends_on_the_first_frame_of_another(stage: Stage) -> None:
    stage.emulate()
    clips = by_scene(await run(stage, scene("a"), scene("z"), scene("m", continues="a", ends_on="z")))
    last, first = (luma(stage.job_folder / str(clips[name].video_path)) for name in ("m", "z"))
    assert difference(last[-1], first[0]) <= 2


async def test_a_second_run_creates_nothing(stage: Stage) -> None:
    stage.emulate()
    await run(stage, *CHAIN)
    assert set(outcomes(await run(stage, *CHAIN)).values()) == {"reused"}
    stage.books(creates=3, billed=3)


async def test_dependents_that_come_first_do_not_take_all_slots(stage: Stage) -> None:
    """Five clips that wait for the last one of the job, one slot, and one place in its queue."""
    stage.emulate(latency_s=(0.05, 0.05))
    waiting = [scene(f"d{number}", continues="a") for number in range(5)]
    batch = await run(stage, *waiting, scene("a"), concurrency=1)
    assert batch.verdict.status == "complete"
    assert prompts(stage)[0] == "The a"


async def test_the_longest_path_begins_first(stage: Stage) -> None:
    """Before a clip that nothing waits for, though that comes first in the job."""
    stage.emulate(latency_s=(0.05, 0.05))
    await run(stage, scene("x"), *CHAIN, concurrency=1)
    assert prompts(stage)[0] == "The a"


async def test_a_failed_clip_blocks_those_that_are_made_from_it(stage: Stage) -> None:
    """They are not tried, and the verdict names the cause. The next run goes on from there."""
    stage.emulate(REFUSED.replace('"always"', "1"))
    scenes = (scene("storm"), scene("b", continues="storm"), scene("c", continues="b"), scene("x"))
    batch = await run(stage, *scenes)
    assert outcomes(batch) == {"storm": "failed", "b": "blocked", "c": "blocked", "x": "delivered"}
    clips = by_scene(batch)
    assert {(clips[name].attempts, clips[name].cost, code(clips[name])) for name in "bc"} == {
        (0, Decimal(0), "blocked")
    }
    assert {clips[name].blocked_by for name in "bc"} == {("storm",)}
    assert batch.verdict.reason == "1 of 4 clips delivered, 2 not tried because of storm, 1 were enough"
    stage.books(creates=2, billed=1)
    again = await run(stage, *scenes, options={"retry_failed": True})
    assert outcomes(again) == {"storm": "delivered", "b": "delivered", "c": "delivered", "x": "reused"}
    stage.books(creates=5, billed=4)


async def test_a_required_clip_that_is_blocked_fails_the_job(stage: Stage) -> None:
    stage.emulate(REFUSED)
    batch = await run(stage, scene("storm"), scene("b", continues="storm", required=True), scene("x"))
    assert batch.verdict.status == "failed"
    assert batch.verdict.reason.startswith("required scenes failed: b;")


async def test_the_clip_of_a_fallback_is_continued(stage: Stage) -> None:
    """The next clip is asked for by the key of the scene as planned, so that it stays reused."""
    stage.emulate(f"{REFUSED}\nnth_create = [1]")
    scenes = (scene("storm"), scene("b", continues="storm"))
    clips = by_scene(await run(stage, *scenes, fallback_models=["framed-twin"], attempts=1))
    assert (clips["storm"].model, clips["b"].model) == ("framed-twin", "framed")
    assert clips["b"].made_from is not None
    assert list(clips["b"].made_from.values()) == [clips["storm"].sha256]
    again = await run(stage, *scenes, fallback_models=["framed-twin"], attempts=1)
    assert outcomes(again) == {"storm": "reused", "b": "reused"}


async def test_a_clip_that_is_made_again_makes_its_dependents_stale(stage: Stage) -> None:
    """They are kept, and the plan tells what remaking them costs, until that is asked for. Then nothing is stale."""
    stage.emulate('do = "wrong_picture"\npicture = "frozen"')  # the first time, so that the second clip is another one
    await run(stage, *CHAIN)
    made_again = by_scene(await run(stage, scene("a"), options={"fresh": True}))
    stale = "2 clips are stale, because clips that they were made from are not the same any more (b, c)"
    assert await plan_warnings(stage, *CHAIN) == [f"{stale}: --remake-stale makes them again for $0.12"]
    assert set(outcomes(await run(stage, *CHAIN)).values()) == {"reused"}
    stage.books(creates=4, billed=4)
    assert await plan_warnings(stage, *CHAIN, remake_stale=True) == [f"{stale}: made again for $0.12"]
    remade = by_scene(await run(stage, *CHAIN, options={"remake_stale": True}))
    assert [remade[name].outcome for name in "abc"] == ["reused", "delivered", "delivered"]
    assert remade["b"].made_from is not None
    assert set(remade["b"].made_from.values()) == {made_again["a"].sha256}
    assert await plan_warnings(stage, *CHAIN) == []
    assert set(outcomes(await run(stage, *CHAIN, remake_stale=True)).values()) == {"reused"}
    stage.books(creates=6, billed=6)


async def test_a_scene_that_others_continue_cannot_be_removed_unseen(stage: Stage) -> None:
    """One that nothing continues can: all others stay."""
    stage.emulate()
    await run(stage, *CHAIN)
    with pytest.raises(ValueError, match="'b' is no scene of this job"):
        await run(stage, *without(CHAIN, "b"))
    assert outcomes(await run(stage, *without(CHAIN, "c"))) == {"a": "reused", "b": "reused"}
    stage.books(creates=3, billed=3)


def without(scenes: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in scenes if each["id"] != name]


async def test_a_model_without_a_start_frame_continues_nothing(stage: Stage) -> None:
    stage.emulate()
    with pytest.raises(ValidationError, match="quick takes no start image: these models do: "):
        await run(stage, scene("a"), scene("b", continues="a", model="quick"))
    stage.books(creates=0, billed=0)


async def test_each_scene_can_have_its_own_model(stage: Stage) -> None:
    """One that begins nowhere may be made by a model that takes no pictures."""
    stage.emulate()
    clips = by_scene(await run(stage, scene("a", model="quick"), scene("b", continues="a")))
    assert (clips["a"].model, clips["b"].model) == ("quick", "framed")
    stage.books(creates=2, billed=2)
