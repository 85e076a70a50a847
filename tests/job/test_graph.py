"""Scenes that continue others: what is no graph is told with its place."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.builders import job_of


def problems(*scenes: dict[str, Any], **fields: Any) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        job_of(*scenes, **fields)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


@pytest.mark.parametrize(
    ("scenes", "told"),
    [
        pytest.param(
            [{}, {"continues": "s00"}],
            [(("scenes", 1, "continues"), "'s00' is no scene of this job; did you mean 's0'?")],
            id="unknown",
        ),
        pytest.param(
            [{}, {"ends_on": "x"}, {"continues": "y"}],
            [
                (("scenes", 1, "ends_on"), "'x' is no scene of this job"),
                (("scenes", 2, "continues"), "'y' is no scene of this job"),
            ],
            id="all-unknown-ones",
        ),
        pytest.param(
            [{"continues": "s0"}],
            [
                (
                    ("scenes", 0, "continues"),
                    "is part of a cycle, in which each clip waits for the one before it: s0 -> s0",
                )
            ],
            id="itself",
        ),
        pytest.param(
            [{"continues": "s2"}, {"continues": "s0"}, {"ends_on": "s1"}],
            [
                (
                    ("scenes", 0, "continues"),
                    "is part of a cycle, in which each clip waits for the one before it: s0 -> s1 -> s2 -> s0",
                )
            ],
            id="cycle",
        ),
        pytest.param(
            [{"continues": "s1"}, {"continues": "s0"}, {"ends_on": "s3"}, {"continues": "s2"}],
            [
                (
                    ("scenes", 0, "continues"),
                    "is part of a cycle, in which each clip waits for the one before it: s0 -> s1 -> s0",
                ),
                (
                    ("scenes", 2, "ends_on"),
                    "is part of a cycle, in which each clip waits for the one before it: s2 -> s3 -> s2",
                ),
            ],
            id="two-cycles",
        ),
        pytest.param(
            [{}, {"continues": "s0", "start_image": "a.png"}],
            [(("scenes", 1, "continues"), "and start_image exclude each other: the clip has one frame there")],
            id="two-beginnings",
        ),
        pytest.param(
            [{}, {"ends_on": "s0", "end_image": "a.png"}],
            [(("scenes", 1, "ends_on"), "and end_image exclude each other: the clip has one frame there")],
            id="two-ends",
        ),
    ],
)
def test_what_is_no_graph_is_told_with_its_place(
    scenes: list[dict[str, Any]], told: list[tuple[tuple[int | str, ...], str]]
) -> None:
    assert problems(*scenes) == told


def test_each_variant_continues_its_own_kind() -> None:
    """A take the same take, and a model's clip that of the same model."""
    job = job_of({}, {"continues": "s0", "ends_on": "s0"}, models=["a", "b"], takes=2)
    upstreams = {scene.id: scene.upstream_ids for scene, _ in job.variants()}
    assert upstreams["s1.a.take-1"] == ("s0.a.take-1",)
    assert upstreams["s1.b.take-2"] == ("s0.b.take-2",)
    assert upstreams["s0.a.take-1"] == ()


def test_a_scene_of_a_comparison_has_no_model_of_its_own() -> None:
    (told,) = problems({}, {"model": "c"}, models=["a", "b"])
    assert told == (("scenes", 1, "model"), "models are compared on every scene: leave it out")
