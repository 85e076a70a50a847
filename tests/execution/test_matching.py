"""Which prediction of the account's list is the one that a create has made."""

import base64
from typing import Any

import pytest

from tests.support.builders import pictured_request, request_of
from videogen.execution.matching import Match, find_lookalikes, match_inputs
from videogen.planning.requests import ImageInput
from videogen.providers.base import Prediction

PICTURE = ImageInput(background="1" * 64)
OTHER = ImageInput(background="2" * 64)
SENT = "https://files.example/1"


def data_url(content: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def name_at(address: str) -> str | None:
    return {SENT: PICTURE.name, "https://files.example/2": OTHER.name}.get(address)


SHOWN = [
    pytest.param(SENT, SENT, "yes", id="as-sent"),
    pytest.param("https://files.example/new", SENT, "yes", id="as-an-earlier-run-sent-it"),
    pytest.param(SENT, "https://files.example/2", "no", id="another-picture-of-ours"),
    pytest.param(SENT, "https://delivery.example/x", "unclear", id="an-address-of-the-providers"),
    pytest.param(data_url(b"one"), data_url(b"one"), "yes", id="same-data"),
    pytest.param(data_url(b"one"), data_url(b"one", "image/jpg"), "yes", id="same-data-of-another-type"),
    pytest.param(data_url(b"one"), data_url(b"two"), "no", id="other-data"),
    pytest.param(data_url(b"one"), "https://delivery.example/x", "unclear", id="data-that-got-an-address"),
    pytest.param(SENT, data_url(b"one"), "no", id="an-address-does-not-become-data"),
    pytest.param(data_url(b"one"), "data:image/jpeg;base64,%%%", "no", id="data-that-is-none"),
    pytest.param(SENT, None, "no", id="no-picture"),
    pytest.param(SENT, 7, "no", id="a-number"),
]


@pytest.mark.parametrize(("sent", "shown", "match"), SHOWN)
def test_a_picture_is_told_by_its_address_or_its_bytes(sent: str, shown: Any, match: Match) -> None:
    request = pictured_request(PICTURE)
    prediction = Prediction(
        "p", "processing", model=request.prediction.endpoint, input={**request.prediction.inputs, "start_image": shown}
    )
    assert (
        match_inputs(request, {**request.prediction.inputs, "start_image": sent}, prediction, name_at=name_at) == match
    )


@pytest.mark.parametrize(
    ("shown", "match"),
    [
        (["https://files.example/1", "https://files.example/2"], "yes"),
        (["https://files.example/2", "https://files.example/1"], "no"),
        (["https://files.example/1"], "no"),
        (["https://files.example/1", "https://delivery.example/x"], "unclear"),
        ("https://files.example/1", "no"),
    ],
    ids=str,
)
def test_a_list_of_pictures_is_compared_one_by_one(shown: Any, match: Match) -> None:
    request = pictured_request([PICTURE, OTHER])
    sent = ["https://files.example/1", "https://files.example/2"]
    prediction = Prediction(
        "p", "processing", model=request.prediction.endpoint, input={**request.prediction.inputs, "start_image": shown}
    )
    assert (
        match_inputs(request, {**request.prediction.inputs, "start_image": sent}, prediction, name_at=name_at) == match
    )


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({}, "yes"),
        ({"prompt": "another"}, "no"),
        ({"duration": 10}, "no"),
        ({"unheard_of": 1}, "yes"),
    ],
    ids=str,
)
def test_every_input_that_is_shown_must_be_the_same(changed: dict[str, Any], match: Match) -> None:
    """Those that the provider adds, or leaves out, tell nothing."""
    request = request_of()
    prediction = Prediction(
        "p", "processing", model=request.prediction.endpoint, input={**request.prediction.inputs, **changed}
    )
    assert match_inputs(request, request.prediction.inputs, prediction) == match


def test_another_model_or_nothing_shown_is_no_match() -> None:
    request = request_of()
    assert (
        match_inputs(
            request,
            request.prediction.inputs,
            Prediction("p", "processing", model="a/b", input=request.prediction.inputs),
        )
        == "no"
    )
    assert (
        match_inputs(
            request, request.prediction.inputs, Prediction("p", "processing", model=request.prediction.endpoint)
        )
        == "no"
    )


def test_lookalikes_are_clips_that_differ_in_their_pictures_alone() -> None:
    """Two takes of one scene are the same on the wire: whose prediction is whose makes no difference."""
    one, other, another_prompt = (
        pictured_request(PICTURE),
        pictured_request(OTHER, id="b"),
        pictured_request(OTHER, prompt="else"),
    )
    assert find_lookalikes([one, other, another_prompt]) == {one.key, other.key}
    assert find_lookalikes([one, pictured_request(PICTURE, take=2)]) == set()
