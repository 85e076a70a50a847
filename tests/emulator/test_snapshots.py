"""Models that are made from snapshots of input schemas."""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image, ImageStat

from tests.support.tokens import TOKEN
from videogen import Job, RunOptions, run_job
from videogen.cli import main as cli
from videogen.emulator import SnapshotError
from videogen.emulator.catalogue import MODELS, Catalogue
from videogen.emulator.clip_inputs import (
    derive_clip_format,
    find_audio,
    find_duration_s,
    find_first_frames,
    find_last_frames,
    find_other_files,
)
from videogen.emulator.endpoint_prices import PRICES
from videogen.emulator.endpoint_rules import RULES
from videogen.emulator.models import EmulatedModel, ModelError, PixelSize
from videogen.emulator.schemas import Property, image, images, make_openapi_schema, text
from videogen.emulator.snapshots import read_inputs
from videogen.providers.local import start_emulator

pytestmark = pytest.mark.integration

CATALOGUE = Catalogue()
MADE = [model.full_name for model in CATALOGUE.list_models() if model.full_name not in MODELS]
"""The models that are made from the shipped snapshots."""
WIDE, TALL, SQUARE = PixelSize(640, 360), PixelSize(360, 640), PixelSize(500, 500)
PIXVERSE, HUNYUAN, WAN_22 = "pixverse/pixverse-v6", "tencent/hunyuan-video", "wan-video/wan-2.2-i2v-fast"
V3, OMNI, O1 = "kwaivgi/kling-v3-video", "kwaivgi/kling-v3-omni-video", "kwaivgi/kling-o1"
SD_1, SD_20, SD_25 = "bytedance/seedance-1-lite", "bytedance/seedance-2.0", "bytedance/seedance-2.5"
RAY, LTX, P_VIDEO = "luma/ray-3.2", "lightricks/ltx-2.5-fast", "prunaai/p-video"
FULL_HD, HD = (1920, 1080), (1280, 720)

DEFAULT_CLIPS: dict[str, tuple[tuple[int, int], int, int, bool, str | None]] = {
    "bytedance/seedance-1-lite": (HD, 120, 24, False, None),
    "bytedance/seedance-1.5-pro": (HD, 120, 24, False, None),
    "bytedance/seedance-2.0": (HD, 120, 24, True, "0.90"),
    "bytedance/seedance-2.5": (HD, 120, 24, True, "1.1560"),
    "google/veo-3.1-fast": (FULL_HD, 192, 24, True, "1.20"),
    "google/veo-3.1-lite": (HD, 192, 24, False, "0.40"),
    "kwaivgi/kling-o1": (FULL_HD, 120, 24, False, "0.560"),
    "kwaivgi/kling-v2.6": (HD, 120, 24, True, "0.70"),
    "kwaivgi/kling-v3-omni-video": (FULL_HD, 120, 24, False, "1.120"),
    "kwaivgi/kling-v3-video": (FULL_HD, 120, 24, False, "1.120"),
    "lightricks/ltx-2.3-fast": (FULL_HD, 150, 25, True, "0.36"),
    "lightricks/ltx-2.5-fast": (FULL_HD, 150, 25, True, None),
    "luma/ray-2-720p": (HD, 120, 24, False, None),
    "luma/ray-3.2": (HD, 120, 24, False, "0.30"),
    "minimax/hailuo-02": (FULL_HD, 144, 24, False, None),
    "minimax/hailuo-2.3-fast": ((1366, 768), 144, 24, False, "0.19"),
    "pixverse/pixverse-v6": ((960, 540), 120, 24, False, "0.35"),
    "prunaai/p-video": (HD, 120, 24, True, "0.10"),
    "runwayml/gen-4.5": (HD, 120, 24, False, None),
    "tencent/hunyuan-video": ((864, 480), 129, 24, False, None),
    "vidu/q3-pro": (HD, 120, 24, True, None),
    "wan-video/wan-2.2-i2v-fast": ((854, 480), 81, 16, False, "0.05"),
    "wan-video/wan-2.5-t2v": (HD, 120, 24, False, None),
    "wan-video/wan-2.6-t2v": (HD, 120, 24, False, None),
    "wan-video/wan-2.7-i2v": (FULL_HD, 120, 24, True, "0.75"),
    "wan-video/wan-2.7-r2v": (FULL_HD, 120, 24, False, "0.75"),
    "wan-video/wan-2.7-t2v": (FULL_HD, 120, 24, True, "0.75"),
    "xai/grok-imagine-video": (HD, 120, 24, False, None),
    "xai/grok-imagine-video-1.5": (HD, 120, 24, True, None),
}
"""Of each model, the clip of minimal inputs: size, frames, frames per second, sound, and its price if it is known."""


def make_minimal_inputs(model: EmulatedModel, picture: Callable[..., str]) -> dict[str, Any]:
    """Return the required inputs of a model and nothing else."""
    files = {name for name, plain in model.properties.items() if plain.get("format") == "uri"}
    return {name: picture((320, 180)) if name in files else "a red ball" for name in model.required}


def run(client: Any, model: EmulatedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """Create a prediction by name, of a community model by version, and wait for its end."""
    if model.official:
        done: dict[str, Any] = client.run(model.full_name, inputs)
        return done
    answer = client.http.post("/v1/predictions", json={"version": model.version, "input": inputs})
    return client.until(answer.json()["id"], {"succeeded", "failed"})  # type: ignore[no-any-return]


def fill(name: str, **inputs: Any) -> tuple[EmulatedModel, dict[str, Any]]:
    """Return a model and the effective input of these inputs."""
    model = CATALOGUE.find_model(name)
    return model, model.fill_defaults(inputs)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in (PIXVERSE, HUNYUAN, WAN_22) else pytest.mark.long)
        for name in DEFAULT_CLIPS
    ],
)
def test_a_snapshot_makes_clips(
    client: Any, picture: Callable[..., str], download: Callable[..., Path], name: str
) -> None:
    """With minimal inputs, the file has the size, the frames and the sound of the defaults, and costs their price."""
    model = CATALOGUE.find_model(name)
    size, frames, fps, has_sound, price = DEFAULT_CLIPS[name]
    done = run(client, model, make_minimal_inputs(model, picture))
    with av.open(str(download(client, done))) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == size
        assert video.average_rate == fps
        assert sum(1 for _ in container.decode(video)) == frames
        assert bool(container.streams.audio) == has_sound
    entry = client.entry(done["id"])
    assert (Decimal(entry["billed"]), entry["price_known"]) == (Decimal(price or 0), price is not None)
    if model.official:
        assert done["metrics"]["video_output_duration_seconds"] == frames / fps


@pytest.mark.parametrize("name", MADE)
def test_every_shipped_snapshot_is_a_model(picture: Callable[..., str], name: str) -> None:
    """Its minimal inputs are valid, conflict with nothing and have a format, and its schema is published as it is."""
    model = CATALOGUE.find_model(name)
    given = make_minimal_inputs(model, picture)
    assert model.find_invalid_fields(given) == []
    inputs = model.fill_defaults(given)
    assert model.find_conflict(inputs) is None
    assert model.get_format(inputs, None).duration_s == find_duration_s(inputs)
    document = json.loads((CATALOGUE_FOLDER / f"{name}.json").read_bytes())
    assert model.make_openapi_schema() == document["openapi_schemas"][model.version_id]
    assert model.official == (name != HUNYUAN)


CATALOGUE_FOLDER = Path(__file__).parents[2] / "cassettes" / "schemas"


# -- the format from the inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "seconds"),
    [
        pytest.param({"duration": 7}, 7, id="integer"),
        pytest.param({"duration": 2.5}, Fraction(5, 2), id="number"),
        pytest.param({"duration": "5"}, 5, id="text"),
        pytest.param({"duration": "8s"}, 8, id="text-with-unit"),
        pytest.param({"seconds": 4}, 4, id="other-name"),
        pytest.param({"duration": -1}, 5, id="left-to-the-model"),
        pytest.param({"num_frames": 81, "frames_per_second": 16}, Fraction(81, 16), id="frames"),
        pytest.param({"video_length": 129, "fps": 24}, Fraction(129, 24), id="frames-under-another-name"),
        pytest.param({"num_frames": 48}, 2, id="frames-at-the-default-rate"),
        pytest.param({"num_frames": 81, "duration": 3}, 3, id="seconds-before-frames"),
        pytest.param({"duration": "long"}, 5, id="no-number"),
        pytest.param({"duration": True}, 5, id="boolean"),
        pytest.param({}, 5, id="none"),
    ],
)
def test_the_length_is_read_from_the_inputs(inputs: dict[str, Any], seconds: Fraction) -> None:
    """In seconds or in frames, as a number or a text, under any of the usual names."""
    assert find_duration_s(inputs) == seconds
    assert derive_clip_format(inputs, None, model="x").duration_s == pytest.approx(float(seconds), abs=0.03)


def test_frames_are_delivered_to_the_frame() -> None:
    """A number of frames is not converted to seconds and back."""
    clip = derive_clip_format({"num_frames": 97, "frames_per_second": 7}, None, model="x")
    assert (clip.frames, clip.fps) == (97, Fraction(7))


@pytest.mark.parametrize(
    ("inputs", "start", "size"),
    [
        pytest.param({"resolution": "480p"}, None, (854, 480), id="480p"),
        pytest.param({"resolution": "720p"}, None, (1280, 720), id="720p"),
        pytest.param({"resolution": "1080p", "aspect_ratio": "9:16"}, None, (1080, 1920), id="1080p-upright"),
        pytest.param({"resolution": "4k"}, None, (3840, 2160), id="4k"),
        pytest.param({"resolution": "2K"}, None, (2560, 1440), id="2k"),
        pytest.param({"quality": "540p"}, None, (960, 540), id="quality"),
        pytest.param({"mode": "standard"}, None, (1280, 720), id="mode-standard"),
        pytest.param({"mode": "pro"}, None, (1920, 1080), id="mode-pro"),
        pytest.param({"mode": "4k"}, None, (3840, 2160), id="mode-4k"),
        pytest.param({"mode": "turbo"}, None, (1280, 720), id="other-mode"),
        pytest.param({"size": "832*480"}, None, (832, 480), id="size"),
        pytest.param({"size": "1080x1920"}, None, (1080, 1920), id="size-with-x"),
        pytest.param({"size": "720p", "aspect_ratio": "1:1"}, None, (960, 960), id="square-of-the-same-area"),
        pytest.param({"width": 1279, "height": 721}, None, (1280, 720), id="width-and-height"),
        pytest.param({"aspect_ratio": "portrait"}, None, (720, 1280), id="portrait"),
        pytest.param({"aspect_ratio": "adaptive"}, TALL, (720, 1280), id="adaptive-follows-the-image"),
        pytest.param({"aspect_ratio": "auto"}, SQUARE, (960, 960), id="auto-follows-the-image"),
        pytest.param({"aspect_ratio": "auto"}, None, (1280, 720), id="auto-without-an-image"),
        pytest.param({}, TALL, (720, 1280), id="no-ratio-follows-the-image"),
        pytest.param({"aspect_ratio": "16:9"}, TALL, (1280, 720), id="a-ratio-stays"),
        pytest.param({"size": "1280*720"}, TALL, (1280, 720), id="a-size-stays"),
        pytest.param({"aspect_ratio": "0:9"}, None, (1280, 720), id="no-ratio"),
    ],
)
def test_the_size_is_read_from_the_inputs(
    inputs: dict[str, Any], start: PixelSize | None, size: tuple[int, int]
) -> None:
    """By name, by pixels, by the ratio, or by the shape of the start image."""
    assert derive_clip_format(inputs, start, model="some-model").size == size


def test_the_ratio_can_give_way_to_the_start_image() -> None:
    """Where the endpoint ignores the ratio with a start image, and only with one."""
    model, inputs = fill("kwaivgi/kling-v2.6", prompt="x", aspect_ratio="1:1")
    assert model.get_format(inputs, TALL).size == (720, 1280)
    assert model.get_format(inputs, None).size == (960, 960)


def test_a_models_name_may_have_its_resolution() -> None:
    """As in `ray-2-540p`, if no input says it."""
    assert derive_clip_format({}, None, model="ray-2-540p").size == (960, 540)
    assert derive_clip_format({"resolution": "1080p"}, None, model="ray-2-540p").size == (1920, 1080)


@pytest.mark.parametrize(
    ("inputs", "switch", "has_sound"),
    [
        pytest.param({"generate_audio": True}, True, True, id="on"),
        pytest.param({"generate_audio": False}, False, False, id="off"),
        pytest.param({"generate_audio_switch": True}, True, True, id="other-name"),
        pytest.param({"audio": True}, True, True, id="audio-as-a-switch"),
        pytest.param({"audio": "https://a.example/b.mp3"}, None, True, id="audio-as-a-file"),
        pytest.param({"audio": "https://a.example/b.mp3", "save_audio": False}, False, False, id="file-not-kept"),
        pytest.param({}, None, False, id="none"),
    ],
)
def test_sound_is_read_from_the_inputs(inputs: dict[str, Any], switch: bool | None, has_sound: bool) -> None:
    """By a switch under any of its names, or by a file."""
    assert find_audio(inputs) is switch
    assert derive_clip_format(inputs, None, model="x").audio == has_sound


@pytest.mark.parametrize(
    "inputs",
    [{"width": 99_999, "height": 99_999}, {"duration": 99_999}, {"fps": 1000}, {"num_frames": 10**9}],
    ids=["size", "seconds", "fps", "frames"],
)
def test_a_clip_that_no_machine_could_render_fails(inputs: dict[str, Any]) -> None:
    """A schema without limits lets everything pass; the model runs out of memory."""
    with pytest.raises(ModelError, match="out of memory"):
        derive_clip_format(inputs, None, model="x")


def test_the_inputs_of_pictures_are_found_by_name() -> None:
    """The first frame, the last one, and files that are no pictures; references are neither first nor last."""
    properties: dict[str, Property] = {
        "last_image": image(""),
        "image": image(""),
        "start_image": image(""),
        "rendered_photo": image(""),
        "style_image": image(""),
        "reference_image": image(""),
        "reference_images": images("", most=3),
        "reference_videos": images("", most=3),
        "audio": image(""),
        "prompt": text(""),
    }
    assert find_first_frames(properties) == ("start_image", "image", "rendered_photo")
    assert find_last_frames(properties) == ("last_image",)
    assert find_other_files(properties) == ("audio", "reference_videos")


@pytest.mark.long_variants
@pytest.mark.parametrize("render", ["quick", "smooth"])
def test_a_clip_goes_from_the_first_frame_to_the_last(
    launch: Any, picture: Callable[..., str], download: Callable[..., Path], render: str
) -> None:
    """It begins with the start image, ends with the end image, and is as long as without them."""
    client = launch(mode=render)
    frames = {"image": picture((320, 180), "red"), "last_frame_image": picture((320, 180), "blue")}
    done = client.run(PIXVERSE, {"prompt": "", "quality": "360p", **frames})
    with av.open(str(download(client, done))) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]  # type: ignore[no-untyped-call]
    assert len(pictures) == 120
    assert [find_colour(pictures[index]) for index in (0, 60, 100, -1)] == ["red", "red", "red", "blue"]
    assert find_colour(pictures[-6]) is None  # between the two


def find_colour(frame: Image.Image) -> str | None:
    red, _, blue = ImageStat.Stat(frame).mean
    return "red" if red > 200 and blue < 50 else "blue" if blue > 200 and red < 50 else None


# -- what no schema says ----------------------------------------------------------------------------------------------

CONFLICTS = [
    pytest.param(V3, {"end_image": "x"}, "requires start_image", id="end-without-start"),
    pytest.param(V3, {"prompt": "x" * 2501}, "at most 2500", id="long-prompt"),
    pytest.param(V3, {"multi_prompt": "?"}, "must be a JSON array", id="shots-not-json"),
    pytest.param(V3, {"multi_prompt": '[{"prompt": "a"}]'}, "must be a JSON array", id="shots-without-length"),
    pytest.param(V3, {"multi_prompt": '[{"prompt": "a", "duration": 4}]'}, "add up to 4 s", id="shots-too-short"),
    pytest.param(OMNI, {"mode": "4k", "reference_video": "x"}, "4k mode", id="4k-with-video"),
    pytest.param(OMNI, {"generate_audio": True, "reference_video": "x"}, "generate_audio", id="sound-with-video"),
    pytest.param(OMNI, {"reference_images": ["x"] * 8}, "At most 7", id="references"),
    pytest.param(O1, {"reference_images": ["x"] * 5, "reference_video": "x"}, "At most 4", id="references-with-video"),
    pytest.param(O1, {"duration": 7}, "must be 5 or 10", id="o1-7s"),
    pytest.param("google/veo-3.1-lite", {"resolution": "1080p", "duration": 6}, "8 seconds", id="veo-lite"),
    pytest.param(SD_1, {"reference_images": ["x"], "image": "x"}, "references", id="lite-frames"),
    pytest.param(SD_1, {"reference_images": ["x"] * 5}, "at most 4", id="lite-references"),
    pytest.param(SD_1, {"reference_images": ["x"], "resolution": "1080p"}, "1080p", id="lite-1080p"),
    pytest.param(SD_20, {"duration": 3}, "between 4 and 15 seconds, or -1", id="seedance-3s"),
    pytest.param(SD_20, {"duration": 0}, "between 4 and 15 seconds, or -1", id="seedance-0s"),
    pytest.param(SD_20, {"last_frame_image": "x", "reference_videos": ["x"]}, "references", id="seedance-frames"),
    pytest.param(SD_25, {"image": "x"}, "must be adaptive", id="seedance-ratio"),
    pytest.param("minimax/hailuo-02", {"duration": 10}, "768p", id="hailuo-10s"),
    pytest.param("minimax/hailuo-2.3-fast", {"duration": 10, "resolution": "1080p"}, "6 seconds", id="hailuo-fast"),
    pytest.param(LTX, {"duration": 12, "fps": 50}, "24 or 25", id="ltx-fps"),
    pytest.param(LTX, {"duration": 12, "resolution": "4k"}, "720p or 1080p", id="ltx-4k"),
    pytest.param(RAY, {"duration": 10, "start_image": "x"}, "10 seconds", id="ray-10s"),
    pytest.param("vidu/q3-pro", {"prompt": "x" * 5001}, "at most 5000", id="vidu-prompt"),
    pytest.param(HUNYUAN, {"width": 500}, "multiples of 16", id="hunyuan-width"),
    pytest.param(HUNYUAN, {"video_length": 130}, "multiple of 4", id="hunyuan-frames"),
]


@pytest.mark.parametrize(("name", "inputs", "error"), CONFLICTS)
def test_inputs_that_conflict_are_known(name: str, inputs: dict[str, Any], error: str) -> None:
    """Each of them is valid by the schema."""
    model, effective = fill(name, **{"prompt": "x", **inputs})
    assert error in (model.find_conflict(effective) or "")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        pytest.param(V3, {"end_image": "x", "start_image": "x"}, id="both-frames"),
        pytest.param(
            V3, {"multi_prompt": '[{"prompt": "a", "duration": 2}, {"prompt": "b", "duration": 3}]'}, id="shots"
        ),
        pytest.param(O1, {"duration": 7, "reference_video": "x"}, id="o1-7s-with-video"),
        pytest.param("google/veo-3.1-lite", {"resolution": "1080p", "duration": 8}, id="veo-lite-8s"),
        pytest.param(SD_20, {"duration": -1, "image": "x"}, id="left-to-the-model"),
        pytest.param(SD_25, {"image": "x", "aspect_ratio": "adaptive"}, id="adaptive"),
        pytest.param("minimax/hailuo-02", {"duration": 10, "resolution": "768p"}, id="hailuo-10s-768p"),
        pytest.param(LTX, {"duration": 20, "fps": 24}, id="ltx-20s"),
        pytest.param(RAY, {"duration": 10}, id="ray-10s-from-text"),
    ],
)
def test_inputs_that_go_together_do_not_conflict(name: str, inputs: dict[str, Any]) -> None:
    """The rules refuse nothing that the endpoint takes."""
    model, effective = fill(name, **{"prompt": "x", **inputs})
    assert model.find_conflict(effective) is None


def test_a_conflict_fails_the_prediction_for_free(client: Any) -> None:
    """It is accepted first, as on the live API, and costs nothing."""
    done = client.run(SD_20, {"prompt": "x", "duration": 3})
    assert (done["status"], done["error"]) == ("failed", "Duration must be between 4 and 15 seconds, or -1")
    assert client.entry(done["id"])["billed"] == "0"


@pytest.mark.parametrize(
    ("name", "inputs", "usd"),
    [
        pytest.param(V3, {"mode": "standard", "duration": 3}, "0.504", id="by-mode"),
        pytest.param(V3, {"mode": "standard", "duration": 3, "generate_audio": True}, "0.756", id="by-sound"),
        pytest.param(V3, {"mode": "4k", "generate_audio": True}, "2.10", id="4k"),
        pytest.param(O1, {"reference_video": "x"}, "0.84", id="by-reference-video"),
        pytest.param("kwaivgi/kling-v2.6", {"generate_audio": False}, "0.35", id="silent"),
        pytest.param(SD_20, {"resolution": "4k", "duration": 15}, "15.00", id="by-resolution"),
        pytest.param(SD_20, {"reference_videos": ["x"], "resolution": "480p"}, "0.50", id="by-reference-videos"),
        pytest.param(SD_20, {"duration": -1}, "0.90", id="length-of-the-model"),
        pytest.param("minimax/hailuo-2.3-fast", {"duration": 10}, "0.32", id="by-clip"),
        pytest.param(WAN_22, {"num_frames": 121, "interpolate_output": True}, "0.065", id="by-clip-whatever-length"),
        pytest.param(
            PIXVERSE, {"quality": "1080p", "generate_audio_switch": True, "duration": 8}, "1.84", id="quality"
        ),
        pytest.param(P_VIDEO, {"draft": True, "duration": 20}, "0.100", id="draft"),
        pytest.param(RAY, {"duration": 10}, "0.90", id="ray-10s"),
        pytest.param(RAY, {"resolution": "1080p"}, None, id="unknown-tier"),
        pytest.param("runwayml/gen-4.5", {}, None, id="unknown-price"),
        pytest.param(HUNYUAN, {}, None, id="unknown-price-of-a-community-model"),
    ],
)
def test_a_price_depends_on_the_effective_inputs(name: str, inputs: dict[str, Any], usd: str | None) -> None:
    """On resolution, mode, sound, reference videos and seconds, with the defaults of what is not given."""
    model, effective = fill(name, **{"prompt": "x", **inputs})
    assert model.price is not None
    assert model.price(effective) == (None if usd is None else Decimal(usd))
    assert model.has_known_price(effective) == (usd is not None)


def test_metrics_say_what_the_price_depends_on() -> None:
    """Under the names of the live API, whatever the input is called."""
    model, inputs = fill(V3, prompt="x", mode="4k", duration=7)
    assert model.get_billing_metrics(inputs) == {
        "video_output_count": 1,
        "video_output_duration_seconds": 7.0,
        "model_variant": "4k",
        "with_audio": False,
    }
    model, inputs = fill(PIXVERSE, prompt="x", generate_audio_switch=True)
    metrics = model.get_billing_metrics(inputs)
    assert (metrics["resolution_target"], metrics["with_audio"]) == ("540p", True)


@pytest.mark.parametrize("name", PRICES)
def test_every_tier_can_be_reached(name: str) -> None:
    """A tier that no values of the schema lead to would be a typing error."""
    properties = CATALOGUE.find_model(name).properties
    allowed = {True, False} | {value for plain in properties.values() for value in plain.get("enum", ())}
    assert {value for tier in PRICES[name].usd for value in tier} <= allowed


def test_rules_and_prices_are_of_models_that_there_are() -> None:
    """A name with a typing error would be a rule that never applies."""
    assert RULES.keys() | PRICES.keys() <= set(MADE)


# -- folders of snapshots ---------------------------------------------------------------------------------------------


def save_snapshot(folder: Path, name: str, properties: dict[str, Property], **more: Any) -> Path:
    document = make_openapi_schema(properties, ["prompt"])
    content = {"name": name, "is_official": True, "latest_version": "1", "openapi_schemas": {"1": document}} | more
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


MINE: dict[str, Property] = {"prompt": text(""), "seconds": {"type": "string", "enum": ["1", "2"], "default": "1"}}


def test_a_snapshot_of_ones_own_makes_a_model(launch: Any, tmp_path: Path, download: Callable[..., Path]) -> None:
    """It ships nowhere, is listed with the others, checks its inputs, and renders; its price is not known."""
    save_snapshot(tmp_path, "me/mine", MINE)
    client = launch(schemas=tmp_path)
    names = [f"{model['owner']}/{model['name']}" for model in client.http.get("/v1/models").json()["results"]]
    assert sorted(names) == sorted([*MODELS, *MADE, "me/mine"])
    assert client.post("me/mine", {"prompt": "x", "seconds": "3"}).status_code == 422
    done = client.run("me/mine", {"prompt": "x", "seconds": "2"})
    with av.open(str(download(client, done))) as container:
        assert container.streams.video[0].frames == 48
    entry = client.entry(done["id"])
    assert (entry["billed"], entry["price_known"]) == ("0", False)


def test_a_snapshot_of_ones_own_comes_before_a_shipped_one(tmp_path: Path) -> None:
    """The catalogue's own models stay what they are."""
    for name in (PIXVERSE, "google/veo-3.1"):
        save_snapshot(tmp_path, name, MINE)
    catalogue = Catalogue(tmp_path)
    assert list(catalogue.find_model(PIXVERSE).properties) == ["prompt", "seconds"]
    assert catalogue.find_model("google/veo-3.1") is MODELS["google/veo-3.1"]


def test_each_version_of_a_community_model_can_be_run(launch: Any, tmp_path: Path) -> None:
    """By its id; by name, which is the latest version, it is refused as on the live API."""
    old, new = (make_openapi_schema({"prompt": text(""), name: text("")}, ["prompt"]) for name in ("old", "new"))
    versions = {"a" * 64: old, "b" * 64: new}
    save_snapshot(tmp_path, "me/mine", {}, is_official=False, latest_version="b" * 64, openapi_schemas=versions)
    client = launch(schemas=tmp_path, latency_s=(9999, 9999))
    for version, document in versions.items():
        answer = client.http.post("/v1/predictions", json={"version": version, "input": {"prompt": "x"}})
        assert (answer.status_code, answer.json()["version"]) == (201, version)
        assert client.http.get(f"/v1/models/me/mine/versions/{version}").json()["openapi_schema"] == document
    assert client.post("me/mine", {"prompt": "x"}).status_code == 404
    assert client.http.get("/v1/models/me/mine").json()["latest_version"]["id"] == "b" * 64
    listed = client.http.get("/v1/models/me/mine/versions").json()["results"]
    assert [version["id"] for version in listed] == ["b" * 64, "a" * 64]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("{", "is not JSON", id="not-json"),
        pytest.param("[]", "is not a snapshot", id="a-list"),
        pytest.param('{"name": "me/mine"}', "openapi_schemas: Field required", id="no-schemas"),
        pytest.param('{"name": "me/other", "openapi_schemas": {}}', "name the file me/other.json", id="other-name"),
    ],
)
def test_a_file_that_is_no_snapshot_is_named(tmp_path: Path, content: str, said: str) -> None:
    """The emulator does not start without a model that it is told to have."""
    path = save_snapshot(tmp_path, "me/mine", MINE)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SnapshotError, match=said) as caught:
        Catalogue(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 2 and says what makes such a folder."""
    assert cli.main(["emulator", "--port", "0", "--schemas", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'none'}: there is no such folder" in err
    assert "videogen models check --snapshot" in err


def test_schemas_of_newer_cogs_are_read() -> None:
    """OpenAPI 3.1 writes null as a type or an alternative, and defaults may be null."""
    schemas = {
        "Input": {
            "required": ["prompt"],
            "properties": {
                "prompt": {"type": "string", "x-order": 1},
                "image": {"anyOf": [{"type": "string", "format": "uri"}, {"type": "null"}], "x-order": 0},
                "seed": {"type": ["integer", "null"], "default": None, "x-order": 2},
                "mode": {"allOf": [{"$ref": "#/components/schemas/mode"}], "default": "a", "x-order": 3},
                "any": {"anyOf": [{"type": "string"}, {"type": "integer"}], "x-order": 4},
                "loop": {"$ref": "#/components/schemas/loop", "x-order": 5},
            },
        },
        "mode": {"type": "string", "enum": ["a", "b"]},
        "loop": {"$ref": "#/components/schemas/loop"},
    }
    properties, required = read_inputs({"components": {"schemas": schemas}})
    assert (list(properties), required) == (["image", "prompt", "seed", "mode", "any", "loop"], ("prompt",))
    assert properties["image"] == {"type": "string", "format": "uri", "nullable": True, "x-order": 0}
    assert properties["seed"] == {"type": "integer", "nullable": True, "x-order": 2}
    assert properties["mode"]["enum"] == ["a", "b"]
    assert "type" not in properties["any"]


async def test_the_emulator_of_a_run_has_the_models_of_snapshots() -> None:
    """`--provider local` runs a model of one's own registry whose schema is shipped, and names one that it lacks."""
    async with start_emulator() as url, httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answers = [
            await http.post(f"/v1/models/{name}/predictions", json={"input": {"prompt": "x"}}, headers=headers)
            for name in ("xai/grok-imagine-video", "xai/grok-imagine-movie")
        ]
    assert [answer.status_code for answer in answers] == [201, 404]
    assert "did you mean 'xai/grok-imagine-video'?" in answers[1].json()["detail"]
    assert "--schemas" in answers[1].json()["detail"]


REGISTRY = """
[models.mine]
replicate = "pixverse/pixverse-v6"
source = "https://replicate.com/pixverse/pixverse-v6"
typical_run_seconds = 60
timeout_seconds = 300
duration = { mode = "discrete", input = "duration", sizes = [{ seconds = 5 }, { seconds = 8 }] }
aspect_ratios = { "16:9" = { aspect_ratio = "16:9" } }
parameters = { prompt = "prompt", image = "image" }
fixed = { quality = "360p" }
price = { per_second = "0.05", as_of = 2026-11-20, basis = "exact" }
"""


async def test_a_run_on_this_machine_makes_clips_of_a_model_that_ones_own_registry_adds(tmp_path: Path) -> None:
    """`--provider local` needs no more than the table: the clip has the size and the length of its inputs."""
    registry = tmp_path / "mine.toml"
    registry.write_text(REGISTRY, encoding="utf-8")
    scenes = [{"id": "a", "prompt": "a harbour", "target_duration": 5}]
    job = Job.model_validate({"id": "film", "model": "mine", "aspect_ratio": "16:9", "scenes": scenes, "min_clips": 1})
    result = await run_job(job, RunOptions(out=str(tmp_path / "out"), provider="local", registry=registry))
    (clip,) = result.clips
    assert (clip.status, clip.width, clip.height) == ("success", 640, 360), clip.error
    assert (clip.requested_duration, clip.cost) == (5, Decimal("0.25"))
