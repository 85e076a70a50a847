"""Every model of the registry, in every ratio it lists, through the emulator, which knows the models' true inputs."""

import base64
import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from tests.support.servers import Loopback, answer
from tests.support.tokens import TOKEN
from videogen.app import open_run, prepare_job
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.emulator.rendering import encode as render
from videogen.errors import ValidationError
from videogen.execution.options import PreparedJob, RunOptions
from videogen.job.model import Job
from videogen.registry.load import read_registry
from videogen.registry.model_spec import ModelSpec
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult

pytestmark = pytest.mark.integration

REGISTRY = read_registry()
REFERENCES = Path(__file__).parents[2] / "examples" / "references"
LIGHTHOUSE, KEEPER = str(REFERENCES / "lighthouse.jpg"), str(REFERENCES / "keeper.png")
GIVEN: dict[str, dict[str, Any]] = {
    "none": {},
    "scene": {"scene_reference_url": LIGHTHOUSE},
    "characters": {"character_reference_urls": [KEEPER]},
    "both": {"scene_reference_url": LIGHTHOUSE, "character_reference_urls": [KEEPER]},
}
"""By scene id: its references, a photograph in 16:9 and a cut-out."""
LIGHT = {"kling-v2.1", "wan-2.5-i2v"}
"""Models that are tried by default, in their first ratio: all others take longer."""
TARGETS_S = {("svd", "16:9"): 3.0, ("veo-3.1", "16:9"): 6.4}
"""Where the shortest clip would not do: SVD's slow frames, and the 8 s for which Veo takes references one by one."""
FRAMES = {
    ("kling-v2.5-turbo", "4:3"): (1440, 1080),
    ("kling-v2.5-turbo", "3:4"): (1080, 1440),
    ("seedance-1-pro", "16:9"): (1920, 1080),
    ("seedance-1-pro", "9:16"): (1080, 1920),
}
"""Without references: what is cut out of 1920x1080 for a ratio that the model does not know, and what is left of
1920x1088 without the lines that only fill a coding block."""
IGNORED_BY_THE_ENDPOINT = {
    "kling-v2.1": {"resolution"},
    "kling-v2.5-turbo": {"resolution"},
    "hailuo-2.3": {"aspect_ratio"},
    "wan-2.5-i2v": {"aspect_ratio"},
}
"""Inputs that the module description names and the live API drops; see shared rulings in docs/reference."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1))) as server:
        yield server


@pytest.fixture(autouse=True)
def at_the_emulator(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    monkeypatch.setattr(render, "LOOP_S", 0.5)  # what is drawn does not matter here, and takes most of the time


async def run(job: Job, folder: Path) -> RunResult:
    """The job without Prefect."""
    return await run_prepared(await prepare_job(job, RunOptions(out=str(folder))))


async def run_prepared(prepared: PreparedJob) -> RunResult:
    async with open_run(prepared) as session:
        return await session.finish(await session.make_clips())


def pictures(inputs: Mapping[str, Any]) -> dict[str, list[Image.Image]]:
    """The pictures of a prediction's inputs, in their order, by the name of the input."""
    listed = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
    return {
        name: [Image.open(io.BytesIO(picture_at(url))) for url in urls]
        for name, urls in listed.items()
        if any(str(url).startswith("data:image/") or "/v1/files/" in str(url) for url in urls)
    }


def picture_at(url: str) -> bytes:
    """What was sent in the request, or uploaded where it was too large for that."""
    if url.startswith("data:"):
        return base64.b64decode(url.partition(",")[2])
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.get(f"{url}/download", headers=headers, trust_env=False).raise_for_status().content


def frame_and_length(path: Path) -> tuple[tuple[int, int], float, float]:
    """Width and height, frames a second, and seconds, of the frames that are in the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for packet in container.demux(stream) if packet.size)
        assert stream.average_rate
        return (stream.width, stream.height), float(stream.average_rate), float(frames / stream.average_rate)


def of_ratio(ratio: str) -> Any:
    """Equal to a width by height of this ratio, to 1 %."""
    width, height = map(int, ratio.split(":"))
    return pytest.approx(width / height, rel=0.01)


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("model", "ratio"),
    [
        pytest.param(name, ratio, id=f"{name}-{ratio}", marks=[pytest.mark.long] if number or name not in LIGHT else [])
        for name, spec in list(REGISTRY.models.items())[:8]
        for number, ratio in enumerate(spec.aspect_ratios)
    ],
)
async def test_each_model_delivers_what_was_asked(model: str, ratio: str, tmp_path: Path, emulator: Emulator) -> None:
    """The ratio is true to 1 %, the length within its tolerance, at 24 to 30 frames a second, for the planned price;
    whatever the references, which are sent as the model takes them. A model that needs one is not asked without."""
    spec, target_s = REGISTRY.models[model], TARGETS_S.get((model, ratio), 1.0)
    scenes = [{"id": name, "prompt": "A pier", "target_duration": target_s, **given} for name, given in GIVEN.items()]
    asked = {"model": model, "aspect_ratio": ratio}
    emulator.reset()
    if spec.parameters.image_required:
        with pytest.raises(ValidationError, match="scene_reference_url"):
            await run(Job.model_validate({**asked, "scenes": scenes}), tmp_path)
        assert emulator.ledger()["creates"] == 0
        scenes = scenes[1:]
    batch = await run(Job.model_validate({**asked, "scenes": scenes}), tmp_path)
    assert [(clip.status, clip.warnings) for clip in batch.clips] == [("success", ())] * len(scenes)
    rows = {row["id"]: row for row in emulator.ledger()["predictions"]}
    shown = set()
    for clip in batch.clips:
        (made,) = [rows[name] for name in clip.prediction_ids] or rows.values()  # without pictures all are one clip
        assert_sent(spec, ratio, clip.scene_id, made)
        assert_delivered(ratio, clip, tmp_path / "job" / str(clip.video_path))
        if clip.scene_id == "none" and (frame := FRAMES.get((model, ratio))):
            assert (clip.width, clip.height) == frame
            assert clip.size_bytes != made["bytes_served"]
        assert set(made["input"]) - set(made["effective_input"]) == IGNORED_BY_THE_ENDPOINT.get(model, set())
        if spec.price.per_gpu_second is None:
            assert Decimal(made["billed"]) == clip.cost
        shown |= {picture.tobytes() for found in pictures(made["input"]).values() for picture in found}
    if spec.parameters.image and (model, ratio) != ("veo-3.1", "16:9"):
        assert len(shown) == 3


def assert_sent(spec: ModelSpec, ratio: str, scene: str, made: Mapping[str, Any]) -> None:
    """The references went where the model takes them: one by one, the scene first, or as one start frame, or not."""
    sent = {name: [picture.size for picture in found] for name, found in pictures(made["input"]).items()}
    given = {"none": [], "scene": [(1600, 900)], "characters": [(500, 900)], "both": [(1600, 900), (500, 900)]}[scene]
    if not given or spec.parameters.image is None:
        assert sent == {}
    elif spec.references and ratio == spec.references.requires["aspect_ratio"]:
        assert sent == {spec.references.input: given}
    else:
        assert sent == {spec.parameters.image: [frame_size(spec, ratio, made["input"])]}
        width, height = spec.get_frame_size(ratio) or (0, 1)
        assert width / height == of_ratio(ratio)


def frame_size(spec: ModelSpec, ratio: str, inputs: Mapping[str, Any]) -> tuple[int, int]:
    """The size of a start frame: in the resolution that the model is asked for, where it is asked for one."""
    width, height = spec.get_frame_size(ratio) or (0, 0)
    lines = int(str(inputs.get("resolution", "0p")).removesuffix("p"))
    scale = max(1.0, lines / min(width, height))
    return round(width * scale / 2) * 2, round(height * scale / 2) * 2


def assert_delivered(ratio: str, clip: Clip, path: Path) -> None:
    """The file is in the ratio, the frame rate and the length that were asked for, and measures what the clip says."""
    (width, height), fps, length_s = frame_and_length(path)
    assert width / height == of_ratio(ratio)
    assert 23.9 <= fps <= 30
    assert length_s == pytest.approx(clip.requested_duration, abs=0.2)
    assert length_s >= clip.target_duration
    assert (clip.width, clip.height, clip.size_bytes) == (width, height, path.stat().st_size)
    assert clip.fps == pytest.approx(fps, abs=0.001)
    assert clip.actual_duration == pytest.approx(length_s, abs=0.002)


async def test_references_are_composed_to_one_start_frame_elsewhere(tmp_path: Path, emulator: Emulator) -> None:
    """The frame that was sent is kept for a person to look at."""
    scene = {"id": "a", "prompt": "p", "target_duration": 5, "character_reference_urls": [KEEPER]}
    emulator.reset()
    await run(Job.model_validate({"model": "kling-v2.5-turbo", "scenes": [scene]}), tmp_path)
    assert emulator.ledger()["predictions"][0]["effective_input"]["start_image"].startswith("data:image/jpeg;base64,")
    assert len(list((tmp_path / "job" / "frames").glob("*.jpg"))) == 1


async def test_a_clip_begins_and_ends_with_the_pictures_of_its_scene(tmp_path: Path, emulator: Emulator) -> None:
    """Both are sent as frames in the ratio of the job, and the manifest has the clip."""
    scene = {"id": "a", "prompt": "p", "target_duration": 5, "start_image": LIGHTHOUSE, "end_image": KEEPER}
    emulator.reset()
    batch = await run(Job.model_validate({"model": "kling-v2.5-turbo", "scenes": [scene]}), tmp_path)
    assert [clip.status for clip in batch.clips] == ["success"]
    (made,) = emulator.ledger()["predictions"]
    sent = pictures(made["effective_input"])
    assert {name: [picture.size for picture in found] for name, found in sent.items()} == {
        "start_image": [(1920, 1080)],
        "end_image": [(1920, 1080)],
    }
    assert sent["start_image"][0].tobytes() != sent["end_image"][0].tobytes()


def three_scenes_before(picture: Path) -> Job:
    """Three takes of a scene, on a model that takes references one by one."""
    scene = {"prompt": "p", "target_duration": 6, "scene_reference_url": str(picture)}
    scenes = [{"id": f"take-{take}", "take": take, **scene} for take in (1, 2, 3)]
    return Job.model_validate({"model": "veo-3.1", "scenes": scenes})


@pytest.fixture
def large_picture(tmp_path: Path) -> Path:
    """A PNG that fits no `data:` URL, whatever is made of it."""
    path = tmp_path / "large.png"
    Image.frombytes("RGB", (960, 540), random.Random(1).randbytes(960 * 540 * 3)).save(path)
    return path


@pytest.mark.long
async def test_a_large_reference_is_uploaded_once_for_all_scenes(
    tmp_path: Path, emulator: Emulator, large_picture: Path
) -> None:
    """The three predictions name one file, which the model could read."""
    emulator.reset()
    batch = await run(three_scenes_before(large_picture), tmp_path)
    ledger = emulator.ledger()
    sent = {url for made in ledger["predictions"] for url in made["effective_input"]["reference_images"]}
    assert (batch.verdict.status, ledger["creates"], ledger["uploads"]) == ("complete", 3, 1)
    assert [url.startswith(f"{emulator.url}/v1/files/") for url in sent] == [True]


@pytest.mark.long
async def test_a_large_public_reference_is_passed_through_untouched(
    tmp_path: Path, emulator: Emulator, large_picture: Path
) -> None:
    """The model fetches it where the job says; only https is public, so this server is called so."""
    prepared = await prepare_job(three_scenes_before(large_picture), RunOptions(out=str(tmp_path)))
    async with Loopback(*[answer(body=large_picture.read_bytes())] * 3) as server:
        url = f"{server.url}/large.png"
        references = {source: replace(found, url=url) for source, found in prepared.references.items()}
        emulator.reset()
        batch = await run_prepared(replace(prepared, references=references))
    ledger = emulator.ledger()
    assert (batch.verdict.status, ledger["uploads"], len(server.asked)) == ("complete", 0, 3)
    assert [made["input"]["reference_images"] for made in ledger["predictions"]] == [[url]] * 3
