"""Scenes that are longer than the model's clips: segments that continue each other, one clip, and what it costs."""

import hashlib
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Stage, code, only
from tests.faults.test_chains import difference, luma, prompts, run, scene
from videogen.app import prepare_job
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.media import Provenance, inspect_video, read_provenance

REFUSED = 'do = "fail"\nerror = "flagged as sensitive"'
LONG = scene("long", target_duration=5, long_scenes="continue")
"""Of two clips of 1.8 s and one of 1.4 s, each of which is made as one of 2 s."""


async def plan(stage: Stage, *scenes: dict[str, Any]) -> dict[str, Any]:
    job = Job.model_validate({"model": "framed", "min_clips": 1, "scenes": scenes})
    return (await prepare_job(job, stage.options)).plan.summary()


async def test_a_long_scene_is_one_clip_of_its_length(stage: Stage) -> None:
    """The next segment goes on from the frame at the cut, which is there once. What is planned is what is billed."""
    stage.emulate()
    planned = await plan(stage, LONG)
    assert [part["target_duration"] for part in planned["scenes"][0]["segments"]] == [1.8, 1.8, 1.4]
    assert Decimal(planned["total_cost"]) == Decimal("0.18")
    clip = only(await run(stage, LONG))
    assert (clip.outcome, clip.cost, clip.attempts, clip.retry_count) == ("delivered", Decimal("0.18"), 3, 0)
    assert [part.prediction_ids for part in clip.segments] == [(each,) for each in clip.prediction_ids]
    whole = stage.job_folder / str(clip.video_path)
    assert inspect_video(whole).duration == pytest.approx(5.0, abs=0.001)
    frames, parts = luma(whole), [luma(stage.job_folder / str(part.video_path)) for part in clip.segments]
    assert len(frames) == 120
    cut = 44  # the first picture at 1.8 s or later, with 24 pictures a second
    assert difference(parts[0][cut], parts[1][0]) <= 2
    expected = [*parts[0][:cut], *parts[1][:cut], *parts[2][: 120 - 2 * cut]]
    assert all(difference(one, other) <= 2 for one, other in zip(frames, expected, strict=True))
    assert stage.delivered == [f"long-{Path(str(clip.video_path)).stem[-8:]}{suffix}" for suffix in (".jpg", ".mp4")]
    stage.books(creates=3, billed=3)
    again = only(await run(stage, LONG))
    assert (again.outcome, again.sha256) == ("reused", clip.sha256)
    stage.books(creates=3, billed=3)


async def test_a_long_clip_names_the_prediction_of_each_segment(stage: Stage) -> None:
    """Also after a run that paid for only some of them. The segments stay as the model made them."""
    stage.emulate(f"{REFUSED}\nnth_create = [2]")
    await run(stage, LONG, attempts=1)
    clip = only(await run(stage, LONG, attempts=1))
    path = stage.job_folder / str(clip.video_path)
    record = read_provenance(path).record
    assert record is not None
    assert len(set(record.prediction_ids)) == 3
    assert record.prediction_ids[1:] == clip.prediction_ids
    assert hashlib.sha256(path.read_bytes()).hexdigest() == clip.sha256
    parts = [read_provenance(stage.job_folder / str(part.video_path)) for part in clip.segments]
    assert parts == [Provenance()] * 3


async def test_what_was_made_of_a_long_scene_is_not_paid_again(stage: Stage) -> None:
    """The second segment was refused: the next run plans, and pays for, the two that are left."""
    stage.emulate(f"{REFUSED}\nnth_create = [2]")
    first = only(await run(stage, LONG, attempts=1))
    assert (first.status, code(first), first.cost) == ("failed", "moderation", Decimal("0.06"))
    assert Decimal((await plan(stage, LONG))["total_cost"]) == Decimal("0.12")
    second = only(await run(stage, LONG, attempts=1))
    assert (second.outcome, second.cost) == ("delivered", Decimal("0.12"))
    assert [part.attempts for part in second.segments] == [0, 1, 1]
    stage.books(creates=4, billed=3)


async def test_a_fallback_makes_all_of_a_long_scene(stage: Stage) -> None:
    """A clip of two models would change its look in the middle."""
    stage.emulate(f"{REFUSED}\nnth_create = [2]")
    clip = only(await run(stage, LONG, attempts=1, fallback_models=["framed-twin"]))
    assert (clip.model, clip.cost, len(clip.segments)) == ("framed-twin", Decimal("0.24"), 3)
    again = only(await run(stage, LONG, attempts=1, fallback_models=["framed-twin"]))
    assert (again.outcome, again.sha256) == ("reused", clip.sha256)
    stage.books(creates=5, billed=4)


async def test_a_segment_is_tried_as_often_as_a_clip(stage: Stage) -> None:
    stage.emulate('do = "fail"\nerror = "CUDA out of memory"\nnth_create = [2]')
    clip = only(await run(stage, LONG, attempts=2))
    assert (clip.outcome, clip.attempts, clip.retry_count) == ("delivered", 4, 1)
    assert [part.attempts for part in clip.segments] == [1, 2, 1]
    stage.books(creates=4, billed=3)


async def test_a_segment_that_ends_before_its_cut_is_made_again_at_once(stage: Stage) -> None:
    """And not after the others are paid for, when they cannot be joined to the length of the scene."""
    stage.emulate('do = "wrong_duration"\nseconds = 1.5\nnth_create = [1]')
    clip = only(await run(stage, LONG, attempts=2))
    assert (clip.outcome, [part.attempts for part in clip.segments]) == ("delivered", [2, 1, 1])
    assert clip.warnings == ()
    stage.books(creates=4, billed=4)


async def test_a_long_clip_that_is_too_short_says_so(stage: Stage) -> None:
    stage.emulate('do = "wrong_duration"\nseconds = 1\nnth_create = [3]')
    clip = only(await run(stage, LONG, attempts=2))
    assert (clip.outcome, clip.warnings) == ("delivered", ("short",))


async def test_segments_that_continue_a_lost_one_are_made_again(stage: Stage) -> None:
    """They would not go on from the new one. As long as the whole clip is there, nobody needs them."""
    stage.emulate('do = "wrong_picture"\npicture = "frozen"')  # the first time, so that the first segment changes
    clip = only(await run(stage, LONG))
    (stage.job_folder / str(clip.segments[0].video_path)).unlink()
    planned = await plan(stage, LONG)
    assert (planned["total_cost"], planned["warnings"]) == ("0", [])
    await run(stage, scene("long"), options={"fresh": True})  # which is the same clip as the first segment
    (stage.job_folder / str(clip.video_path)).unlink()
    again = only(await run(stage, LONG))
    assert again.outcome == "delivered"
    assert [part.attempts for part in again.segments] == [0, 1, 1]
    seams = (
        luma(stage.job_folder / str(again.segments[0].video_path)),
        luma(stage.job_folder / str(again.segments[1].video_path)),
    )
    assert difference(seams[0][44], seams[1][0]) <= 2


@pytest.mark.long
async def test_long_scenes_are_part_of_a_chain(stage: Stage) -> None:
    """One goes on from the clip before, and the next one from its end."""
    stage.emulate()
    batch = await run(stage, scene("a"), {**LONG, "continues": "a"}, scene("z", continues="long"))
    clips = {clip.scene_id: clip for clip in batch.clips}
    frames = {name: luma(stage.job_folder / str(clip.video_path)) for name, clip in clips.items()}
    assert difference(frames["a"][35], frames["long"][0]) <= 2
    assert difference(frames["long"][119], frames["z"][0]) <= 2
    assert prompts(stage) == ["The a", *["The long"] * 3, "The z"]
    assert clips["long"].made_from is not None
    assert list(clips["long"].made_from.values()) == [clips["a"].sha256]
    stage.books(creates=5, billed=5)


@pytest.mark.long
async def test_a_fresh_run_makes_every_segment_again(stage: Stage) -> None:
    stage.emulate()
    await run(stage, LONG)
    assert only(await run(stage, LONG, options={"fresh": True})).outcome == "delivered"
    stage.books(creates=6, billed=6)


async def test_without_being_asked_a_long_scene_is_refused_and_the_way_out_is_named(stage: Stage) -> None:
    stage.emulate()
    with pytest.raises(
        ValidationError, match=r'framed makes at most 2 s, .*or let it continue .*: long_scenes = "continue"'
    ):
        await run(stage, scene("long", target_duration=5))
    with pytest.raises(ValidationError, match=r"quick makes at most 2 s, .*because it takes no start image: split"):
        await run(stage, LONG | {"model": "quick"})
    stage.books(creates=0, billed=0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "lengths", "usd"), [("kling-v2.5-turbo", [10, 10, 5], "1.75"), ("hailuo-2.3", [10, 10, 6], "1.40")]
)
async def test_a_model_that_makes_ten_seconds_makes_24(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, model: str, lengths: list[int], usd: str
) -> None:
    """One clip, whole, with no picture twice at its seams, for the price of the plan."""
    monkeypatch.delenv("VIDEOGEN_REGISTRY")
    stage.emulate()
    batch = await run(stage, {**LONG, "target_duration": 24}, model=model)
    clip = only(batch)
    assert [part.requested_duration for part in clip.segments] == lengths
    whole = stage.job_folder / str(clip.video_path)
    measured = inspect_video(whole)
    assert measured.duration == pytest.approx(24, abs=0.1)
    assert not measured.warnings
    cut = -int(-9.8 * measured.fps // 1)
    frames = luma(whole)
    steps = [difference(one, other) for one, other in pairwise(frames)]
    for seam in (cut, 2 * cut):
        assert steps[seam - 1] <= 4 * max(1, *steps[seam - 20 : seam - 1])
        assert frames[seam - 1] != frames[seam]
    assert Decimal(stage.emulator.ledger()["billed"]) == clip.cost == Decimal(usd)
