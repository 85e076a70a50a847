"""Clips that a judge rejects, on a provider that keeps the books: how often they are made, and at what price."""

from typing import Any

import pytest

from tests.faults.conftest import PRICE, Stage, only
from tests.faults.test_chains import run, scene
from videogen.errors import InvalidError
from videogen.execution.judging import JudgedClip
from videogen.results.judgement import Judgement

JUDGE = f"{__name__}:say_next"
answers: list[Judgement] = []
asked: list[JudgedClip] = []


def say_next(clip: JudgedClip) -> Judgement:
    """Return the answers one after another, the last one again and again."""
    asked.append(clip)
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(autouse=True)
def allow_judges(stage: Stage) -> None:
    stage.setenv("VIDEOGEN_ALLOW_JUDGES", "true")
    asked.clear()


def judge_by(*scores: float, accept: bool = True) -> dict[str, Any]:
    answers[:] = [Judgement(accept=accept, score=score, reason=f"it is {score}") for score in scores]
    return {"judge": JUDGE, "min_clips": 1}


async def test_the_judgement_is_in_the_manifest_and_costs_no_attempt(stage: Stage) -> None:
    stage.emulate()
    clip = only(await stage.shoot(**judge_by(0.2, accept=False)))
    assert (clip.status, clip.accepted, clip.score, clip.judge_reason) == ("success", False, 0.2, "it is 0.2")
    assert [(each.scene_id, each.prompt) for each in asked] == [("scene-1", "A lighthouse at dusk")]
    stage.books(creates=1, billed=1)


async def test_a_clip_below_the_score_is_made_again_until_one_is_good_enough(stage: Stage) -> None:
    stage.emulate()
    clip = only(await stage.shoot(**judge_by(0.2, 0.7), retake_below=0.6))
    assert (clip.score, clip.attempts, clip.cost) == (0.7, 2, 2 * PRICE)
    assert len(stage.rejected) == 1
    stage.books(creates=2, billed=2)


async def test_a_clip_that_is_not_accepted_is_made_again_whatever_its_score(stage: Stage) -> None:
    stage.emulate()
    clip = only(await stage.shoot(**judge_by(1.0, accept=False), retake_below=0.0, attempts=2))
    assert (clip.status, clip.attempts) == ("success", 2)


async def test_the_last_attempt_is_delivered_though_the_judge_rejects_it(stage: Stage) -> None:
    """It is paid for, and a person decides."""
    stage.emulate()
    clip = only(await stage.shoot(**judge_by(0.1), retake_below=0.6, attempts=3))
    assert (clip.status, clip.score, clip.attempts) == ("success", 0.1, 3)
    stage.books(creates=3, billed=3)


async def test_a_clip_is_kept_if_the_budget_has_no_room_for_another_one(stage: Stage) -> None:
    stage.emulate()
    clip = only(await stage.shoot(**judge_by(0.1), retake_below=0.6, attempts=3, max_cost=str(2 * PRICE)))
    assert (clip.status, clip.score, clip.attempts) == ("success", 0.1, 2)
    stage.books(creates=2, billed=2)


async def test_a_clip_is_delivered_without_judgement_if_the_judge_fails(stage: Stage) -> None:
    stage.emulate()
    clip = only(await stage.shoot(judge="false {clip}", min_clips=1, retake_below=0.6))
    assert (clip.status, clip.score, clip.attempts) == ("success", None, 1)


async def test_a_clip_of_an_earlier_run_is_not_judged_again(stage: Stage) -> None:
    stage.emulate()
    await stage.shoot(**judge_by(0.7))
    clip = only(await stage.shoot(**judge_by(0.1), retake_below=0.6))
    assert (clip.reused, clip.score, len(asked)) == (True, 0.7, 1)


async def test_the_shipped_judge_sees_the_start_image(stage: Stage) -> None:
    stage.emulate()
    batch = await run(stage, scene("a"), scene("b", continues="a"), judge="basic")
    reasons = {clip.scene_id: clip.judge_reason or "" for clip in batch.clips}
    assert "start image" not in reasons["a"]
    assert "start image 1.00" in reasons["b"]


async def test_a_program_needs_the_permission_of_the_machine_before_anything_is_made(stage: Stage) -> None:
    stage.emulate()
    stage.setenv("VIDEOGEN_ALLOW_JUDGES", "false")
    with pytest.raises(InvalidError, match="set VIDEOGEN_ALLOW_JUDGES=true"):
        await stage.shoot(**judge_by(1.0))
    stage.books(creates=0, billed=0)
