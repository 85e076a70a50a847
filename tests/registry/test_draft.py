"""The entry that is drafted from an input schema: valid, in agreement with the schema, and honest about guesses."""

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.planning.planner import build_plan
from videogen.planning.rules import find_problems
from videogen.registry.draft import draft_model
from videogen.registry.drift import compare
from videogen.registry.endpoint_schema import Endpoint, Snapshots, read_schema_file
from videogen.registry.model_spec import ModelSpec, Registry

TODAY = date(2026, 11, 29)
SNAPSHOTS = sorted(
    (path.parent.name, path.stem, path) for path in Snapshots().folder.glob("*/*.json")
)  # every one that is shipped
PROMPT = {"prompt": {"type": "string"}}
IMAGE = {"type": "string", "format": "uri"}
SECONDS = {"duration": {"type": "integer", "enum": [5, 10], "default": 5}}
RATIO = {"aspect_ratio": {"type": "string", "enum": ["16:9", "9:16"], "default": "16:9"}}


def make_endpoint(properties: dict[str, Any], required: tuple[str, ...] = (), **fields: Any) -> Endpoint:
    document = {"components": {"schemas": {"Input": {"properties": properties, "required": list(required)}}}}
    told = {"name": "maker/model", "is_official": True, "latest_version": "v1", **fields}
    return Endpoint.model_validate({**told, "openapi_schemas": {told["latest_version"]: document}})


def draft(endpoint: Endpoint) -> ModelSpec:
    """Return the drafted model, which agrees with its schema."""
    text = draft_model("new", endpoint, TODAY)
    spec = Registry.model_validate(tomllib.loads(text)).models["new"]
    assert [found.message for found in compare(spec, endpoint)] == []
    return spec


def draft_inputs(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the drafted model as the values that its file has."""
    endpoint = make_endpoint(properties, required)
    draft(endpoint)
    model: dict[str, Any] = tomllib.loads(draft_model("new", endpoint, TODAY))["models"]["new"]
    return model


def list_sent(spec: ModelSpec, tier: str | None = None, **scene: Any) -> dict[str, Any]:
    """Return the inputs that a plan of the model sends for a scene of 5 s at its first ratio."""
    images = {"scene_reference_url": "x.png"} if spec.parameters.image_required else {}
    scenes = [{"id": "a", "prompt": "x", "target_duration": 5, **images, **scene}]
    job = Job.model_validate(
        {"model": "new", "tier": tier, "aspect_ratio": next(iter(spec.aspect_ratios)), "scenes": scenes}
    )
    registry = Registry(models={"new": spec})
    assert [str(problem) for problem in find_problems(job, registry)] == []
    (request,) = build_plan(job, registry, digests={"x.png": "1"}, today=TODAY).requests
    return request.prediction.inputs


@pytest.mark.parametrize("path", [pytest.param(path, id=f"{owner}/{name}") for owner, name, path in SNAPSHOTS])
def test_the_draft_of_every_kept_schema_makes_a_plan(path: Path) -> None:
    """In every tier, without an edit, and with a price that is marked as unknown."""
    endpoint = Endpoint.model_validate(json.loads(path.read_text()))
    spec = draft(endpoint)
    assert spec.price.basis == "unknown"
    for tier in [None, *spec.tiers]:
        list_sent(spec, tier)


def test_the_fields_of_a_scene_are_recognised() -> None:
    """By the usual names, if the input takes that kind of value."""
    model = draft_inputs(
        {
            "prompt": {"type": "string", "maxLength": 900},
            "negative_prompt": {"type": "string"},
            "first_frame_image": IMAGE,
            "last_frame_image": IMAGE,
            "seed": {"type": "integer"},
            "reference_images": {
                "type": "array",
                "items": IMAGE,
                "description": "1 to 4, not with a first or last frame",
            },
            **SECONDS,
        },
        ("prompt", "first_frame_image"),
    )
    assert model["parameters"] == {
        "prompt": "prompt",
        "negative_prompt": "negative_prompt",
        "image": "first_frame_image",
        "end_image": "last_frame_image",
        "seed": "seed",
        "image_required": True,
        "end_image_needs_start": True,
        "longest_prompt": 900,
    }
    assert model["references"] == {
        "input": "reference_images",
        "max": 4,
        "excludes": ["start_image", "end_image"],
    }


@pytest.mark.parametrize(
    ("inputs", "duration"),
    [
        pytest.param(SECONDS, {"sizes": [5, 10], "input": "duration"}, id="enum"),
        pytest.param(
            {"seconds": {"type": "integer", "minimum": 3, "maximum": 15}},
            {"steps": {"min": 3, "max": 15}, "input": "seconds"},
            id="range",
        ),
        pytest.param(
            {"duration": {"type": "integer", "minimum": -1, "maximum": 15, "description": "4 to 12 seconds, or -1"}},
            {"steps": {"min": 4, "max": 12}, "input": "duration"},
            id="words-narrow-the-range",
        ),
        pytest.param(
            {"duration": {"type": "string", "enum": ["5s", "10s"]}},
            {"sizes": [{"seconds": 5, "inputs": {"duration": "5s"}}, {"seconds": 10, "inputs": {"duration": "10s"}}]},
            id="texts",
        ),
        pytest.param(
            {
                "num_frames": {"type": "integer", "minimum": 81, "maximum": 121, "default": 81},
                "frames_per_second": {"type": "integer", "default": 16},
            },
            {
                "frames": {
                    "counts": [81, 97, 113, 121],
                    "input": "num_frames",
                    "fps": 16,
                    "fps_input": "frames_per_second",
                }
            },
            id="frames",
        ),
        pytest.param(
            {"duration": {"type": "integer", "minimum": 12}},
            {"steps": {"min": 12, "max": 12}, "input": "duration"},
            id="no-longest",
        ),
        pytest.param({}, {"sizes": [{"seconds": 5, "inputs": {}}]}, id="none"),
    ],
)
def test_lengths_are_recognised(inputs: dict[str, Any], duration: dict[str, Any]) -> None:
    assert draft_inputs({**PROMPT, **inputs})["duration"] == {"mode": "discrete", **duration}


def test_any_length_of_a_number_is_continuous() -> None:
    model = draft_inputs({**PROMPT, "duration": {"type": "number", "minimum": 1, "maximum": 20}})
    assert model["duration"] == {"mode": "continuous", "min": 1, "max": 20, "input": "duration"}


@pytest.mark.parametrize(
    ("inputs", "required", "ratios"),
    [
        pytest.param(RATIO, (), {"16:9": {"aspect_ratio": "16:9"}, "9:16": {"aspect_ratio": "9:16"}}, id="enum"),
        pytest.param(
            {"aspect_ratio": {"type": "string", "enum": ["landscape", "portrait"]}},
            (),
            {"16:9": {"aspect_ratio": "landscape"}, "9:16": {"aspect_ratio": "portrait"}},
            id="words",
        ),
        pytest.param(
            {"size": {"type": "string", "enum": ["832*480", "480*832"]}},
            (),
            {"16:9": {"size": "832*480"}, "9:16": {"size": "480*832"}},
            id="sizes",
        ),
        pytest.param(
            {"width": {"type": "integer", "default": 832}, "height": {"type": "integer", "default": 480}},
            (),
            {
                "16:9": {"width": 832, "height": 480},
                "9:16": {"width": 480, "height": 832},
                "1:1": {"width": 624, "height": 624},
            },
            id="width-and-height",
        ),
        pytest.param({"image": IMAGE}, ("image",), {"16:9": {}, "9:16": {}, "1:1": {}}, id="of-the-start-image"),
        pytest.param({}, (), {"16:9": {}}, id="none"),
    ],
)
def test_ratios_are_recognised(inputs: dict[str, Any], required: tuple[str, ...], ratios: dict[str, Any]) -> None:
    assert draft_inputs({**PROMPT, **SECONDS, **inputs}, required)["aspect_ratios"] == ratios


def test_a_ratio_of_an_unusual_shape_gets_a_frame_size() -> None:
    model = draft_inputs({**PROMPT, **SECONDS, "aspect_ratio": {"type": "string", "enum": ["5:4"]}})
    width, height = model["frame_sizes"]["5:4"]
    assert width / height == pytest.approx(5 / 4, rel=0.01)


def test_resolutions_become_tiers() -> None:
    """The draft is the lowest, the standard the default of the schema, and the final the highest."""
    resolution = {"resolution": {"type": "string", "enum": ["1080p", "480p", "4k", "720p"], "default": "720p"}}
    model = draft_inputs({**PROMPT, **SECONDS, **resolution})
    assert model["default_tier"] == "standard"
    assert {tier: sent["resolution"] for tier, sent in model["tiers"].items()} == {
        "draft": "480p",
        "standard": "720p",
        "final": "4k",
    }


def test_sizes_in_pixels_become_ratios_and_tiers() -> None:
    """Each tier sends the size of its own height."""
    sizes = ["832*480", "480*832", "1280*720", "720*1280", "1920*1080", "1080*1920"]
    size = {"size": {"type": "string", "enum": sizes, "default": "1280*720"}}
    spec = draft(make_endpoint({**PROMPT, **SECONDS, **size}))
    assert [list_sent(spec, tier)["size"] for tier in ("draft", None, "final")] == ["832*480", "1280*720", "1920*1080"]


def test_a_switch_for_drafts_belongs_to_the_tier_of_that_name() -> None:
    spec = draft(make_endpoint({**PROMPT, **SECONDS, "draft": {"type": "boolean", "default": False}}))
    assert [list_sent(spec, tier)["draft"] for tier in ("draft", None, "final")] == [True, False, False]


def test_defaults_that_may_cost_money_are_always_sent() -> None:
    """Sound is off unless the job asks for it; other defaults are left to the endpoint."""
    model = draft_inputs(
        {
            **PROMPT,
            **SECONDS,
            "generate_audio": {"type": "boolean", "default": True},
            "fps": {"type": "integer", "enum": [24, 48], "default": 24},
            "loop": {"type": "boolean", "default": False},
        }
    )
    assert model["fixed"] == {"generate_audio": False, "fps": 24}
    assert model["audio"] == {"inputs": {"generate_audio": True}}


@pytest.mark.parametrize(
    ("inputs", "condition"),
    [
        pytest.param(
            {"duration": {**SECONDS["duration"], "description": "10 seconds only with 480p."}},
            {"seconds": 10, "send": {"resolution": "480p"}},
            id="length-only-with",
        ),
        pytest.param(
            {"duration": {**SECONDS["duration"], "description": "1080p only with 5 seconds."}},
            {"inputs": {"resolution": "1080p"}, "lengths": [5]},
            id="quality-only-with",
        ),
        pytest.param(
            {"duration": {**SECONDS["duration"], "description": "10 seconds not with hdr or image."}},
            {"start_image": True, "lengths": [5]},
            id="length-not-with",
        ),
        pytest.param(
            {
                "aspect_ratio": {
                    "type": "string",
                    "enum": ["16:9", "adaptive"],
                    "description": "Must be adaptive with a first or last frame.",
                }
            },
            {"start_image": True, "send": {"aspect_ratio": "adaptive"}},
            id="adaptive",
        ),
    ],
)
def test_simple_rules_become_conditions(inputs: dict[str, Any], condition: dict[str, Any]) -> None:
    resolution = {"type": "string", "enum": ["480p", "1080p"], "default": "480p"}
    model = draft_inputs({**PROMPT, **RATIO, **SECONDS, "image": IMAGE, "resolution": resolution, **inputs})
    assert model["when"] == [condition]


def test_other_rules_are_kept_as_comments() -> None:
    """On one line each, whatever a description contains."""
    described = {"type": "integer", "enum": [5], "description": "Must not\nbe used = [on]\u2028Fridays\x7f\x00"}
    text = draft_model("new", make_endpoint({**PROMPT, "duration": described}), TODAY)
    (line,) = [line for line in text.splitlines() if "Fridays" in line]
    assert line.startswith('# duration: "Must not be used = [on]')
    tomllib.loads(text)


def test_what_cannot_be_known_is_marked() -> None:
    """The price, the time that it takes, and the inputs that are not recognised."""
    odd = {"texture": {"type": "string"}, "style": {"type": "string"}}
    text = draft_model("new", make_endpoint(odd, ("texture",)), TODAY)
    lines = text.splitlines()
    assert any(line.startswith("typical_run_seconds = 180") and "# guess" in line for line in lines)
    assert any(line.startswith("duration = ") and "# QUESTION" in line for line in lines)
    asked = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    assert "QUESTION: what does it cost? Look it up at https://replicate.com/maker/model" in asked
    assert "QUESTION: texture is required" in asked
    assert "Not sent: style" in asked


def test_a_community_model_is_run_by_version_and_billed_by_time() -> None:
    version = "a" * 64
    spec = draft(make_endpoint({**PROMPT, **SECONDS}, is_official=False, latest_version=version))
    assert spec.version == version
    assert spec.price.per_gpu_second is not None


def test_a_model_without_inputs_is_refused() -> None:
    with pytest.raises(ValidationError, match="maker/model does not describe its inputs"):
        draft_model("new", make_endpoint({}), TODAY)


_NAMES = st.sampled_from(
    ["prompt", "image", "duration", "aspect_ratio", "size", "resolution", "mode", "audio", "seed", "num_frames", "fps"]
) | st.text(min_size=1, max_size=8)
_NUMBERS = st.integers(-5, 300)
_VALUES = st.one_of(
    st.fixed_dictionaries({"type": st.just("boolean")}, optional={"default": st.booleans()}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={"minimum": _NUMBERS, "maximum": _NUMBERS, "default": _NUMBERS},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("string"),
            "enum": st.lists(st.sampled_from(["5", "5s", "16:9", "1:2", "720p", "4k", "pro", "8*9", ""]), min_size=1),
        }
    ),
    st.fixed_dictionaries({"type": st.just("integer"), "enum": st.lists(_NUMBERS, min_size=1)}),
    st.fixed_dictionaries({"type": st.just("string")}, optional={"format": st.just("uri"), "description": st.text()}),
)


@given(st.dictionaries(_NAMES, _VALUES, min_size=1))
def test_every_schema_gives_an_entry_that_can_be_read(properties: dict[str, Any]) -> None:
    """Whatever the inputs are called and take."""
    text = draft_model("new", make_endpoint(properties), TODAY)
    Registry.model_validate(tomllib.loads(text))


# -- files with a schema ----------------------------------------------------------------------------------------------

_INPUT = {"properties": {**PROMPT, "duration": {"$ref": "#/$defs/seconds"}}, "$defs": {"seconds": {"enum": [5]}}}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_INPUT, id="input-schema"),
        pytest.param({"components": {"schemas": {"Input": {"properties": PROMPT}}}}, id="openapi"),
        pytest.param(
            {"latest_version": {"id": "1", "openapi_schema": {"components": {"schemas": {"Input": _INPUT}}}}},
            id="answer",
        ),
        pytest.param(make_endpoint(PROMPT).model_dump(), id="snapshot"),
    ],
)
def test_a_schema_is_read_from_a_file(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    inputs = read_schema_file(path, "maker/model").read_inputs(None)
    assert inputs is not None
    assert "prompt" in inputs.schemas


def test_a_file_without_a_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text("[1]")
    with pytest.raises(ValidationError, match="describes no inputs"):
        read_schema_file(path, "maker/model")
    path.write_text(json.dumps(make_endpoint(PROMPT).model_dump()))
    with pytest.raises(ValidationError, match="is a snapshot of maker/model, not of maker/other"):
        read_schema_file(path, "maker/other")
