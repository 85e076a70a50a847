import pytest

from tests.support.builders import clip_of
from videogen.planning.requests import ImageInput
from videogen.results.clip import Clip
from videogen.results.verdict import judge, judge_by_model


def clips(*statuses: str) -> tuple[Clip, ...]:
    return tuple(clip_of(index, status=status) for index, status in enumerate(statuses))


GOOD, BAD = "success", "failed"


@pytest.mark.parametrize(
    ("statuses", "min_clips", "status", "reason"),
    [
        pytest.param([GOOD] * 8, 3, "complete", "all 8 clips delivered", id="all"),
        pytest.param([GOOD] * 3 + [BAD] * 5, 3, "partial", "3 of 8 clips delivered, 3 were enough", id="just-enough"),
        pytest.param([GOOD] * 2 + [BAD] * 6, 3, "failed", "2 of 8 clips delivered, at least 3 needed", id="too-few"),
        pytest.param([GOOD, GOOD], 3, "complete", "all 2 clips delivered", id="fewer-scenes-than-minimum"),
        pytest.param([GOOD, BAD], 3, "failed", "1 of 2 clips delivered, at least 2 needed", id="capped-minimum"),
        pytest.param([BAD], 1, "failed", "0 of 1 clips delivered, at least 1 needed", id="none"),
    ],
)
def test_the_verdict_counts_what_was_delivered(statuses: list[str], min_clips: int, status: str, reason: str) -> None:
    """complete: all; partial: at least the minimum; failed: fewer."""
    verdict = judge(clips(*statuses), min_clips=min_clips, required=frozenset())
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize(
    ("failures", "said"),
    [
        (["budget", "budget"], "1 of 3 clips delivered, the others stopped by the budget"),
        (["budget", "moderation"], "1 of 3 clips delivered, 1 of the others stopped by the budget"),
        (["timeout", "moderation"], "1 of 3 clips delivered"),
    ],
)
def test_clips_that_the_budget_stopped_are_counted(failures: list[str], said: str) -> None:
    failed = (clip_of(index, failure=failure) for index, failure in enumerate(failures, start=1))
    verdict = judge((clip_of(0), *failed), min_clips=1, required=frozenset())
    assert verdict.reason == f"{said}, 1 were enough"


def test_a_required_scene_that_failed_fails_the_job() -> None:
    """However many others there are."""
    verdict = judge(clips(GOOD, GOOD, GOOD, BAD), min_clips=3, required=frozenset({"s3"}))
    assert (verdict.status, verdict.reason) == ("failed", "required scenes failed: s3; 3 of 4 clips delivered")
    verdict = judge(clips(BAD, GOOD, BAD, BAD), min_clips=1, required=frozenset({"s0", "s1", "s3"}))
    assert verdict.reason == "required scenes failed: s0, s3; 1 of 4 clips delivered"


def test_a_required_scene_counts_for_a_single_model_and_for_each_compared_one() -> None:
    for models in (("kling-v2.5-turbo",), ("kling-v2.5-turbo", "another")):
        verdict, _ = judge_by_model(clips(GOOD, BAD), models=models, min_clips=1, required=frozenset({"s1"}))
        assert verdict.reason.count("required scenes failed: s1; 1 of 2 clips delivered") == 1


def test_a_composed_frame_is_named_by_its_recipe() -> None:
    """Every part counts, and the order too; a background is not a character."""
    frames = [
        ImageInput(size=(1280, 720), background="a", characters=("b", "c")),
        ImageInput(size=(1280, 720), background="a", characters=("c", "b")),
        ImageInput(size=(1280, 720), background="a", characters=("b",)),
        ImageInput(size=(1280, 720), characters=("a", "b", "c")),
        ImageInput(size=(720, 1280), background="a", characters=("b", "c")),
        ImageInput(background="a"),
    ]
    assert len({frame.name for frame in frames}) == len(frames)


def test_the_name_of_a_frame_stays_from_release_to_release() -> None:
    """Clip keys are made from it: if this value changes, every composed clip is paid for again."""
    frame = ImageInput(size=(1280, 720), background="ab" * 32, characters=("cd" * 32,))
    assert frame.name == "frame:ff7aaed8f999371ac8175a91035954405a11810db9d8726641e5fe522079b444"


def test_each_compared_model_has_its_verdict() -> None:
    """All is complete when each is, failed when each is, else partial; the minimum is of each."""
    good, bad = (clip.model_copy(update={"model": m}) for clip, m in zip(clips(GOOD, BAD), "ab", strict=True))
    verdict, verdicts = judge_by_model((good, bad), models=("a", "b"), min_clips=1, required=frozenset())
    assert (verdict.status, verdicts["a"].status, verdicts["b"].status) == ("partial", "complete", "failed")
    assert verdict.reason.startswith("a complete, all 1 clips delivered; b failed, 0 of 1")
    other = bad.model_copy(update={"model": "c"})
    verdict, _ = judge_by_model((bad, other), models=("b", "c"), min_clips=1, required=frozenset())
    assert verdict.status == "failed"
    verdict, verdicts = judge_by_model((good,), models=("a",), min_clips=1, required=frozenset())
    assert (verdict.status, verdicts) == ("complete", {})
