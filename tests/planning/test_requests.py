"""The names and keys of requests: a clip with an unchanged key is never paid for again."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import change_prediction, request_of
from videogen.planning.requests import ClipRequest, ImageInput, digest


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_the_digest_of_a_value_stays_from_release_to_release() -> None:
    """The keys of delivered clips are made with it, also those of prompts that are not in English."""
    assert digest({"b": "grün", "a": [1, None]}) == "a15b87c3a680ce50945b0ea8be07fa35356cbba20c23129b88c545acc7a7d36f"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"endpoint": "me/another"}, id="endpoint"),
        pytest.param({"version": "1" * 64}, id="version"),
        pytest.param({"inputs": {"prompt": "another"}}, id="inputs"),
    ],
)
def test_another_prediction_is_another_clip(changes: dict[str, Any]) -> None:
    request = request_of()
    assert change_prediction(request, **changes).key != request.key


def test_the_ratio_is_part_of_the_key() -> None:
    """Models that take no ratio are cropped to it."""
    request = request_of()
    assert request.model_copy(update={"aspect_ratio": "4:3"}).key != request.key


def test_prices_and_limits_are_no_part_of_the_key() -> None:
    """What is delivered stays free when the price or the timeout changes."""
    request = request_of()
    assert change_prediction(request, cost=Decimal(9), timeout_s=1, cost_is_exact=False).key == request.key
    assert request.model_copy(update={"attempts": 9, "tolerance_s": 9, "clip_index": 9}).key == request.key


def test_the_files_of_a_clip_are_named_by_scene_and_key() -> None:
    request = request_of(id="harbour")
    assert len(request.key) == 32
    assert request.name == f"harbour-{request.key[:8]}"
    assert (request.video_path, request.poster_path) == (f"clips/{request.name}.mp4", f"posters/{request.name}.jpg")


def test_a_clip_keeps_the_duration_before_it_was_adjusted() -> None:
    assert request_of(target_duration=6, original_target_duration=7).original_target_duration == 7
    assert request_of(target_duration=6).original_target_duration == 6


def test_a_single_picture_is_named_by_its_bytes() -> None:
    assert ImageInput(background="ab").name == "sha256:ab"


def test_a_cut_out_is_another_frame() -> None:
    """Pixels are not: what was made from the coarser frame stays free."""
    frame = ImageInput(size=(4, 2), background="a", characters=("b", "c"))
    cut = frame.model_copy(update={"cut_outs": ("b",)})
    both = frame.model_copy(update={"cut_outs": ("b", "c")})
    assert len({frame.name, cut.name, both.name}) == 3
    assert frame.model_copy(update={"pixels": (8, 4)}).name == frame.name


def test_the_name_of_a_frame_with_cut_outs_stays_from_release_to_release() -> None:
    """If this value changes, every clip with a character that is cut out is paid for again."""
    characters = ("cd" * 32, "ef" * 32)
    frame = ImageInput(size=(1280, 720), background="ab" * 32, characters=characters, cut_outs=("ef" * 32,))
    assert frame.name == "frame:8fc0aaab378ce9c69d383143f28042a922dddd9e479cc15cfa8a25c66fe178df"


def with_inputs(pictures: list[ImageInput], **inputs: Any) -> ClipRequest:
    return change_prediction(request_of(), inputs=inputs, images={picture.name: picture for picture in pictures})


def test_requests_that_differ_in_their_pictures_only_are_alike() -> None:
    """Pictures are left out of the digest wherever they are, alone or in a list; texts and other lists are not."""
    one, two = ImageInput(background="1"), ImageInput(background="2")

    def digest_of(picture: ImageInput, **inputs: Any) -> str:
        asked = {"start": picture.name, "all": ["x", picture.name], "prompt": "p", "tags": ["a"], **inputs}
        return with_inputs([picture], **asked).prediction.digest_without_images

    assert digest_of(one) == digest_of(two)
    assert digest_of(one) == with_inputs([], prompt="p", tags=["a"]).prediction.digest_without_images
    for inputs in ({"prompt": "q"}, {"tags": ["b"]}, {"seed": 1}):
        assert digest_of(one, **inputs) != digest_of(one)
    asked = with_inputs([one], prompt="p")
    for changes in ({"endpoint": "me/another"}, {"version": "1" * 64}):
        changed = change_prediction(asked, **changes).prediction.digest_without_images
        assert changed != asked.prediction.digest_without_images


def test_the_worst_case_is_every_attempt_of_every_alternative() -> None:
    request = request_of(job_attempts=3, job_fallback_models=["hailuo-2.3"])
    assert [each.model for each in request.alternatives] == ["kling-v2.5-turbo", "hailuo-2.3"]
    assert request.cost == Decimal("0.35")
    assert request.worst_case_cost == 3 * Decimal("0.35") + 3 * Decimal("0.28")
