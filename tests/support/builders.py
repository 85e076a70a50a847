"""Jobs, plans, requests, clips and results for tests, and the files they consist of: films and pictures."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
from PIL import Image

from videogen import media
from videogen.errors import ModerationError
from videogen.execution.poll_schedule import PollSchedule
from videogen.job.model import Job, Scene
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest, ImageInput
from videogen.registry.load import read_registry
from videogen.registry.model_spec import Registry
from videogen.results.clip import Clip, ClipFailure, get_planned_fields
from videogen.results.run_result import RunResult, list_film_scenes
from videogen.results.verdict import judge
from videogen.storage.local import FileStore


def job_of(*scenes: dict[str, Any], **fields: Any) -> Job:
    """Return a job named `film` with scenes `s0`, `s1` and so on."""
    wanted = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 5, **scene} for n, scene in enumerate(scenes)]
    return Job.model_validate({"id": "film", "scenes": wanted, **fields})


def deliver(store: FileStore, scene: Scene, video: bytes, **changes: Any) -> Clip:
    """Put a clip and its poster in their place, and return the clip as a run reports it."""
    for place in ("clips", "posters"):
        store.path(place).mkdir(exist_ok=True)
    names = {"video_path": f"clips/{scene.id}.mp4", "poster_path": f"posters/{scene.id}.jpg"}
    path = store.path(names["video_path"])
    path.write_bytes(video)
    measured = media.inspect_video(path, poster=store.path(names["poster_path"]))
    request = request_of(**scene.model_dump())
    known = get_planned_fields(request) | {"clip_index": scene.clip_index}
    facts = {"width": measured.width, "height": measured.height, "fps": measured.fps, "sha256": measured.sha256}
    spent = {"cost": Decimal("0.350"), "attempts": 1, "generation_time": 7.3}
    clip = Clip(status="success", actual_duration=measured.duration, **names, **known, **facts, **spent)
    return clip.model_copy(update=changes)


def refuse(scene: Scene, message: str) -> Clip:
    """Return a clip that the provider refused to make three times."""
    return Clip.make_failed(request_of(**scene.model_dump()), ModerationError(message), attempts=3)


def clip_of(index: int, *, failure: str | None = None, **changes: Any) -> Clip:
    """Return a clip of five seconds as a run reports it: delivered, or failed with the error code `failure`."""
    facts: dict[str, Any] = {
        "status": "failed" if failure else "success",
        "cost": Decimal(0) if failure else Decimal("0.35"),
        "error": ClipFailure(code=failure, message="it said no", retryable=False) if failure else None,
        "video_path": None if failure else f"clips/s{index}.mp4",
    }
    measured = {
        "actual_duration": 5.0,
        "width": 1920,
        "height": 1080,
        "fps": 24,
        "generation_time": 10.0,
        "attempts": 1,
    }
    planned = {"target_duration": 5, "original_target_duration": 5, "buffered_duration": 5, "requested_duration": 5}
    known = {"clip_index": index, "scene_id": f"s{index}", "model": "kling-v2.5-turbo", "buffer_cost_impact": 0}
    return Clip.model_validate(facts | measured | planned | known | changes)


def small_registry(*, defaults: dict[str, Any] | None = None, **models: dict[str, Any]) -> Registry:
    """Return a registry of models that each make clips of 5 or 10 seconds for $0.10 a second, but for what is given."""
    usual = {
        "typical_run_seconds": 60,
        "duration": {"mode": "discrete", "sizes": [5, 10], "input": "seconds"},
        "aspect_ratios": {"16:9": {"ratio": "wide"}},
        "parameters": {"prompt": "text"},
        "price": {"per_second": "0.10", "as_of": date(2026, 11, 1), "basis": "exact"},
    }
    named = {
        name: {"replicate": f"me/{name}", "source": f"https://example.com/{name}", **usual, **fields}
        for name, fields in models.items()
    }
    return Registry.model_validate({"models": named, "defaults": defaults or {}})


def prompts_of(job: Job) -> dict[str, str]:
    """Return the prompts of a job by scene."""
    return {scene.id: scene.prompt for scene in job.scenes}


def result_of(job: Job, clips: Iterable[Clip], **changes: Any) -> RunResult:
    """Return the result of a run that ended with these clips."""
    made = tuple(clips)
    return RunResult(
        run_id="run1",
        job_id=job.id,
        model=job.model,
        aspect_ratio=job.aspect_ratio,
        provider="api.replicate.com",
        verdict=judge(made, min_clips=1, required=frozenset()),
        total_generation_time=125.2,
        scenes=list_film_scenes(job),
        clips=made,
    ).model_copy(update=changes)


def deliver_all(folder: Path, job: Job, **clip: Any) -> tuple[FileStore, RunResult]:
    """Deliver a small clip for every scene of a job. The arguments `clip` go to `small_clip`."""
    store = FileStore(folder)
    return store, result_of(job, [deliver(store, scene, small_clip(1, **clip)) for scene in job.scenes])


@cache
def small_clip(seconds: float = 5.0, *, size: tuple[int, int] = (128, 72), fps: int = 8) -> bytes:
    """Return an mp4 of moving stripes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for index in range(round(seconds * fps)):
                picture = Image.linear_gradient("L").resize(size).rotate(9 * index).convert("RGB")
                frame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def request_of(**scene: Any) -> ClipRequest:
    """Return the request of one scene of five seconds on Kling v2.5. Fields that begin with `job_` go to the job."""
    fields = {name.removeprefix("job_"): scene.pop(name) for name in list(scene) if name.startswith("job_")}
    wanted = {"id": "a", "prompt": "p", "target_duration": 5, **scene, "take_of": None}
    job = Job.model_validate({"model": "kling-v2.5-turbo", "scenes": [wanted], **fields})
    request = build_plan(job, read_registry()).requests[0]
    return request.model_copy(update={"scene": request.scene.model_copy(update={"take_of": scene.get("take_of")})})


def change_prediction(request: ClipRequest, **fields: Any) -> ClipRequest:
    """Return the request with other fields of its prediction."""
    return request.model_copy(update={"prediction": request.prediction.model_copy(update=fields)})


def pictured_request(picture: ImageInput | list[ImageInput], **scene: Any) -> ClipRequest:
    """Return a request that sends one picture, or a list of them, as its start image."""
    request, pictures = request_of(**scene), picture if isinstance(picture, list) else [picture]
    names = [each.name for each in pictures]
    value = names if isinstance(picture, list) else names[0]
    images = {each.name: each for each in pictures}
    return change_prediction(request, inputs={**request.prediction.inputs, "start_image": value}, images=images)


def plan_of(scenes: int, **fields: Any) -> Plan:
    """Return the plan of a job with so many scenes of five seconds on Kling v2.5."""
    wanted = [{"id": f"s{n}", "prompt": f"p {n}", "target_duration": 5} for n in range(scenes)]
    job = Job.model_validate({"id": "film", "model": "kling-v2.5-turbo", "concurrency": 2, "scenes": wanted} | fields)
    return build_plan(job, read_registry())


# --- films


def write_film(
    path: Path,
    *,
    size: tuple[int, int] = (320, 180),
    fps: int = 24,
    frames: int = 48,
    picture: Callable[[int], Image.Image] | None = None,
    sound: bool = False,
    moov_first: bool = True,
    preset: str = "ultrafast",
) -> Path:
    """Encode a real mp4: noise that moves, unless `picture` draws each frame. Slower presets have B-frames."""
    paint = picture or make_moving(size)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"} if moov_first else {}) as target:
        video = target.add_stream("libx264", rate=fps, options={"preset": preset, "crf": "23"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = target.add_stream("aac", rate=48000, layout="mono") if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_image(paint(index))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, fps)
            target.mux(video.encode(frame))
            if audio is not None:
                target.mux(audio.encode(make_hiss(index, 48000 // fps)))
        target.mux(video.encode(None))
        if audio is not None:
            target.mux(audio.encode(None))
    return path


def make_moving(size: tuple[int, int]) -> Callable[[int], Image.Image]:
    width, height = size
    noise = Image.frombytes("L", (64, 64), random.Random(1).randbytes(64 * 64)).convert("RGB")
    wide = noise.resize((width + 64, height + 64), Image.Resampling.BICUBIC)
    return lambda index: wide.crop((index % 64, index % 32, index % 64 + width, index % 32 + height))


def make_hiss(index: int, samples: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="mono", samples=samples)
    frame.planes[0].update(random.Random(index).randbytes(samples * 2).ljust(frame.planes[0].buffer_size, b"\0"))
    frame.sample_rate, frame.pts, frame.time_base = 48000, index * samples, Fraction(1, 48000)
    return frame


def damage_sound(data: bytearray, source: Path) -> bytearray:
    with av.open(str(source)) as container:
        spots = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    for position, size in spots[5:15]:
        assert position is not None
        data[position : position + size] = b"\xff" * size
    return data


def unknown_sound(data: bytearray, source: Path) -> bytes:
    """Sound in AC-4, which FFmpeg cannot decode."""
    return bytes(data).replace(b"mp4a\0\0\0\0", b"ac-4\0\0\0\0", 1).replace(b"esds\0\0\0\0", b"dac4\0\0\0\0", 1)


def list_boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and bytes of each box at the top level of an mp4, heads included."""
    boxes, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        end = at + size if size else len(data)
        boxes.append((data[at + 4 : at + 8], data[at:end]))
        at = end
    return boxes


def strip_record(data: bytes) -> bytes:
    """Return a delivered clip without the XMP packet that must be its last box: the bytes that the model made."""
    kind, box = list_boxes(data)[-1]
    assert (kind, box[8:24].hex()) == (b"uuid", "be7acfcb97a942e89c71999491e3afac")
    return data[: -len(box)]


# --- pictures


def encode_image(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def make_exif(orientation: int) -> Image.Exif:
    """EXIF that asks for a turn and gives away a place."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera maker"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def make_noise(size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(3).randbytes(size[0] * size[1] * 3))


def make_halves(size: tuple[int, int]) -> Image.Image:
    """Blue at the left, red at the right."""
    image = Image.new("RGB", size, (30, 60, 200))
    image.paste((220, 30, 30), (size[0] // 2, 0, *size))
    return image


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    """A few hundred bytes that claim to be, and would decode to, a black picture of this size."""
    rows = zlib.compress(bytes((width // 8 + 1) * 64))
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), chunk(b"IDAT", rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- files that are in the way


def make_file(path: Path) -> None:
    path.touch()


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_broken(path: Path) -> None:
    path.symlink_to("/not/mounted")


# --- poll schedules


def list_looks(schedule: PollSchedule, run_s: float) -> list[float]:
    """When a prediction that takes `run_s` is looked at, up to the look that finds it finished."""
    at = [0.0]
    while at[-1] < run_s:
        at.append(at[-1] + schedule.next_delay_s(at[-1]))
    return at[1:]


def schedule_of(*run_s: float) -> PollSchedule:
    schedule = PollSchedule()
    for seconds in run_s:
        schedule.observe_run(seconds)
    return schedule
