"""The inputs of the models and the errors for invalid ones."""

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from videogen.emulator.catalogue import MODELS

KLING = "kwaivgi/kling-v2.5-turbo-pro"
VEO = "google/veo-3.1"
SEEDANCE = "bytedance/seedance-1-pro"
SVD = "stability-ai/stable-video-diffusion"
COGVIDEOX = "cuuupid/cogvideox-5b"

INPUTS = {
    "kwaivgi/kling-v2.1": ("prompt* start_image* end_image mode duration negative_prompt"),
    KLING: "prompt* start_image end_image image aspect_ratio duration negative_prompt",
    "minimax/hailuo-2.3": "prompt* first_frame_image duration resolution prompt_optimizer",
    "wan-video/wan-2.5-i2v": "image* prompt* negative_prompt audio resolution duration enable_prompt_expansion seed",
    VEO: "prompt* aspect_ratio duration image last_frame reference_images negative_prompt resolution generate_audio "
    "seed",
    SEEDANCE: "prompt* image last_frame_image duration resolution aspect_ratio fps camera_fixed seed",
    SVD: "input_image* video_length sizing_strategy frames_per_second motion_bucket_id cond_aug decoding_t seed",
    COGVIDEOX: "prompt* extend_prompt steps guidance num_outputs seed",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "kwaivgi/kling-v2.1": {"mode": "standard", "duration": 5},
    KLING: {"aspect_ratio": "16:9", "duration": 5},
    "minimax/hailuo-2.3": {"duration": 6, "resolution": "768p", "prompt_optimizer": True},
    "wan-video/wan-2.5-i2v": {"resolution": "720p", "duration": 5, "enable_prompt_expansion": True},
    VEO: {"aspect_ratio": "16:9", "duration": 8, "resolution": "1080p", "generate_audio": True},
    SEEDANCE: {"duration": 5, "resolution": "1080p", "aspect_ratio": "16:9", "fps": 24, "camera_fixed": False},
    SVD: {
        "video_length": "14_frames_with_svd",
        "sizing_strategy": "maintain_aspect_ratio",
        "frames_per_second": 6,
        "motion_bucket_id": 127,
        "cond_aug": 0.02,
        "decoding_t": 14,
    },
    COGVIDEOX: {"extend_prompt": True, "steps": 50, "guidance": 6, "num_outputs": 1, "seed": 42},
}


@pytest.mark.parametrize("model", INPUTS)
def test_a_model_publishes_its_inputs(client: Any, model: str) -> None:
    """The published schema has every input in order, the required ones and the defaults."""
    body = client.http.get(f"/v1/models/{model}").json()
    schemas = body["latest_version"]["openapi_schema"]["components"]["schemas"]
    properties = schemas["Input"]["properties"]
    names = INPUTS[model].replace("*", "").split()
    assert sorted(properties) == sorted(names)
    assert set(schemas["Input"]["required"]) == {name[:-1] for name in INPUTS[model].split() if name.endswith("*")}
    assert sorted(plain["x-order"] for plain in properties.values()) == list(range(len(names)))
    assert {name: properties[name]["default"] for name in DEFAULTS[model]} == DEFAULTS[model]
    assert body["is_official"] == (model not in (SVD, COGVIDEOX))


def test_enums_are_schemas_of_their_own(client: Any) -> None:
    """An enum is referred to, as cog publishes it, and lists its values."""
    schema = client.http.get(f"/v1/models/{VEO}").json()["latest_version"]["openapi_schema"]["components"]["schemas"]
    assert schema["Input"]["properties"]["duration"]["allOf"] == [{"$ref": "#/components/schemas/duration"}]
    assert schema["duration"]["enum"] == [4, 6, 8]
    assert schema["Output"] == {"type": "string", "title": "Output", "format": "uri"}


def test_models_are_listed(client: Any) -> None:
    """GET /v1/models shows all eight of the catalogue, besides those of snapshots."""
    body = client.http.get("/v1/models").json()
    assert {f"{model['owner']}/{model['name']}" for model in body["results"]} >= set(INPUTS) == set(MODELS)
    assert body["next"] is None


def test_a_version_is_found_by_its_id(client: Any) -> None:
    """GET …/versions/{id} has the schema; another id is 404."""
    path = f"/v1/models/{COGVIDEOX}/versions/"
    version = client.http.get(f"/v1/models/{COGVIDEOX}").json()["latest_version"]
    assert client.http.get(path + version["id"]).json() == version
    assert client.http.get(path + "0" * 64).status_code == 404


REFUSED = [
    pytest.param(KLING, {}, "required", "input", "prompt is required", id="required"),
    pytest.param(
        KLING,
        {"prompt": "x", "duration": 6},
        "enum",
        "input.duration",
        "duration must be one of the following: 5, 10",
        id="enum-integer",
    ),
    pytest.param(
        KLING,
        {"prompt": "x", "aspect_ratio": "4:3"},
        "enum",
        "input.aspect_ratio",
        'aspect_ratio must be one of the following: "16:9", "9:16", "1:1"',
        id="enum-string",
    ),
    pytest.param(
        SEEDANCE,
        {"prompt": "x", "duration": 13},
        "number_lte",
        "input.duration",
        "Must be less than or equal to 12",
        id="too-large",
    ),
    pytest.param(
        SEEDANCE,
        {"prompt": "x", "duration": 1},
        "number_gte",
        "input.duration",
        "Must be greater than or equal to 2",
        id="too-small",
    ),
    pytest.param(
        SEEDANCE,
        {"prompt": "x", "duration": 2.5},
        "invalid_type",
        "input.duration",
        "Invalid type. Expected: integer, given: number",
        id="not-whole",
    ),
    pytest.param(
        VEO,
        {"prompt": "x", "generate_audio": 1},
        "invalid_type",
        "input.generate_audio",
        "Invalid type. Expected: boolean, given: integer",
        id="not-a-boolean",
    ),
    pytest.param(
        KLING,
        {"prompt": None},
        "invalid_type",
        "input.prompt",
        "Invalid type. Expected: string, given: null",
        id="null",
    ),
    pytest.param(
        KLING,
        {"prompt": "x", "start_image": "frame.png"},
        "format",
        "input.start_image",
        "Does not match format 'uri'",
        id="not-a-url",
    ),
    pytest.param(
        VEO,
        {"prompt": "x", "reference_images": ["https://a.example/b.png"] * 4},
        "array_max_items",
        "input.reference_images",
        "Array must have at most 3 items",
        id="too-many",
    ),
    pytest.param(
        SVD,
        {"input_image": "https://a.example/b.png", "frames_per_second": 31},
        "number_lte",
        "input.frames_per_second",
        "Must be less than or equal to 30",
        id="community",
    ),
]


@pytest.mark.parametrize(("model", "inputs", "kind", "field", "description"), REFUSED)
def test_a_wrong_input_is_refused(
    client: Any, model: str, inputs: dict[str, Any], kind: str, field: str, description: str
) -> None:
    """422 names the field in `detail` and in `invalid_fields`, as problem+json with a newline at the end."""
    answer = client.post(model, inputs)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.text.endswith("\n")
    assert answer.json() == {
        "title": "Input validation failed",
        "detail": f"- {field}: {description}\n",
        "status": 422,
        "invalid_fields": [{"type": kind, "field": field, "description": description}],
    }


def test_every_wrong_field_is_named(client: Any) -> None:
    """All problems of one input come in one answer."""
    answer = client.post(VEO, {"duration": 10, "resolution": "4k"})
    assert [entry["type"] for entry in answer.json()["invalid_fields"]] == ["required", "enum", "enum"]


@pytest.mark.parametrize(
    ("body", "kind", "description"),
    [
        pytest.param({"input": {"prompt": "x"}}, "required", "version is required", id="no-version"),
        pytest.param({"version": VEO}, "required", "input is required", id="no-input"),
        pytest.param(
            {"version": VEO, "input": {"prompt": "x"}, "model": VEO},
            "additional_property_not_allowed",
            "Additional property model is not allowed",
            id="model",
        ),
    ],
)
def test_the_body_itself_is_checked(client: Any, body: dict[str, Any], kind: str, description: str) -> None:
    """Top-level keys are required or unknown: 422 with an empty field."""
    answer = client.http.post("/v1/predictions", json=body)
    assert answer.status_code == 422
    assert answer.json()["invalid_fields"] == [{"type": kind, "field": "", "description": description}]


def test_a_body_that_is_no_json_is_refused(client: Any) -> None:
    """400, no traceback."""
    assert client.http.post("/v1/predictions", content=b"{" * 100_000).status_code == 400


def test_unknown_inputs_are_dropped_in_silence(slow: Any) -> None:
    """A key the model does not have changes nothing: accepted, echoed, not seen by the model."""
    prediction = slow.create(KLING, {"prompt": "x", "resolution": "1080p", "duration": 10})
    assert prediction["input"] == {"prompt": "x", "resolution": "1080p", "duration": 10}
    entry = slow.entry(prediction["id"])
    assert entry["input"] == prediction["input"]
    assert entry["effective_input"] == {
        "prompt": "x",
        "duration": 10,
        "aspect_ratio": "16:9",
        "negative_prompt": "",
    }


def test_an_official_model_is_run_by_name_or_version(slow: Any) -> None:
    """Both paths take the name, the other one its published version too, bare or behind it; it is told as `hidden`."""
    digits = slow.http.get(f"/v1/models/{SEEDANCE}").json()["latest_version"]["id"]
    answers = [slow.post(SEEDANCE, {"prompt": "x"})]
    answers += (
        slow.http.post("/v1/predictions", json={"version": version, "input": {"prompt": "x"}})
        for version in (SEEDANCE, digits, f"{SEEDANCE}:{digits}")
    )
    for answer in answers:
        told = answer.json()
        assert (answer.status_code, told["model"], told["version"]) == (201, SEEDANCE, "hidden")


def test_versions_are_listed(client: Any) -> None:
    """GET …/versions shows the one version there is; of a model that is not there, 404."""
    body = client.http.get(f"/v1/models/{COGVIDEOX}/versions").json()
    assert body == {
        "next": None,
        "previous": None,
        "results": [client.http.get(f"/v1/models/{COGVIDEOX}").json()["latest_version"]],
    }
    assert client.http.get("/v1/models/a/b/versions").status_code == 404


@pytest.mark.long_variants
@pytest.mark.parametrize("size_px", [300, 900], ids=["200-kB", "2-MB"])
def test_a_large_picture_may_come_as_data(client: Any, size_px: int) -> None:
    """Large `data:` URLs are accepted against the advice of the documentation: the live API has no known limit."""
    noise = Image.effect_noise((size_px, size_px), 80).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    done = client.run("wan-video/wan-2.5-i2v", {"prompt": "x", "image": url, "resolution": "480p"})
    assert done["status"] == "succeeded", done["error"]


def test_a_community_model_is_run_by_version(slow: Any, picture: Callable[..., str]) -> None:
    """Its version is taken bare or behind its name, and the path of models does not know it."""
    version, inputs = MODELS[SVD].version, {"input_image": picture()}
    for text in (version, f"{SVD}:{version}"):
        answer = slow.http.post("/v1/predictions", json={"version": text, "input": inputs})
        assert answer.status_code == 201
        assert (answer.json()["model"], answer.json()["version"]) == (SVD, version)
    answer = slow.http.post(f"/v1/models/{SVD}/predictions", json={"input": inputs})
    assert (answer.status_code, answer.json()["detail"]) == (404, "The requested resource could not be found.")


@pytest.mark.parametrize(
    "version",
    [
        pytest.param("0" * 64, id="unknown"),
        pytest.param(SVD, id="community-by-name"),
        pytest.param(f"{VEO}:{MODELS[SVD].version}", id="another-models-version"),
    ],
)
def test_a_version_that_cannot_be_run_is_refused(client: Any, version: str) -> None:
    """422 with the API's own words, and where to look up the versions there are."""
    answer = client.http.post("/v1/predictions", json={"version": version, "input": {"prompt": "x"}})
    assert answer.status_code == 422
    assert answer.json()["title"] == "Invalid version or not permitted"
    assert answer.json()["detail"].startswith("The specified version does not exist (or perhaps")
    assert "GET /v1/models" in answer.json()["detail"]


UNKNOWN_MODELS = [
    pytest.param("bytedance/seedance-1", "did you mean 'bytedance/seedance-1-pro'?", id="short"),
    pytest.param("bytedance/Seedance-1-Pro", "did you mean 'bytedance/seedance-1-pro'?", id="case"),
    pytest.param("openai/sora-2", "'openai/sora-2'. To add it, save its input schema", id="not-close"),
]


@pytest.mark.parametrize(("model", "said"), UNKNOWN_MODELS)
def test_a_model_that_is_not_emulated_is_told_with_how_to_add_it(client: Any, model: str, said: str) -> None:
    """Every route about a model says so, in the live API's shape and after its own words."""
    answers = [
        client.post(model, {"prompt": "x"}),
        *(client.http.get(f"/v1/models/{model}{rest}") for rest in ("", "/versions", f"/versions/{'0' * 64}")),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json().keys()) == (404, {"detail", "status"})
        detail = answer.json()["detail"]
        assert detail.startswith(f"The requested resource could not be found. The emulator has no model {model!r}")
        assert said in detail
        assert "give --schemas a folder that has it. GET /v1/models lists the models that there are." in detail
