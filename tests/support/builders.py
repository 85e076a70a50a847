"""The end of a run without the run: a job's folder with real clips and posters, and the batch of them."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.support.fakes import request_of, small_clip
from videogen import media
from videogen.errors import ModerationError
from videogen.job.model import Job, Scene
from videogen.results.clip import Clip, get_planned_fields
from videogen.results.run_result import RunResult
from videogen.results.verdict import judge
from videogen.storage.local import FileStore


def job_of(*scenes: dict[str, Any], **fields: Any) -> Job:
    """A job named `film`; a scene's place is its number."""
    wanted = [{"id": f"s{n}", "prompt": f"scene {n}", "target_duration": 5, **scene} for n, scene in enumerate(scenes)]
    return Job.model_validate({"id": "film", "scenes": wanted, **fields})


def deliver(store: FileStore, scene: Scene, video: bytes, **changes: Any) -> Clip:
    """The clip as a run leaves it: file and poster in their place, measured."""
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


def refused(scene: Scene, message: str) -> Clip:
    """A clip that the provider did not want to make, three times."""
    return Clip.make_failed(request_of(**scene.model_dump()), ModerationError(message), attempts=3)


def prompts_of(job: Job) -> dict[str, str]:
    return {scene.id: scene.prompt for scene in job.scenes}


def batch_of(job: Job, clips: Iterable[Clip], **changes: Any) -> RunResult:
    made = tuple(clips)
    return RunResult(
        run_id="run1",
        job_id=job.id,
        model=job.model,
        aspect_ratio=job.aspect_ratio,
        provider="api.replicate.com",
        verdict=judge(made, min_clips=1, required=frozenset()),
        total_generation_time=125.2,
        clips=made,
    ).model_copy(update=changes)


def delivered(folder: Path, job: Job, **clip: Any) -> tuple[FileStore, RunResult]:
    """The job's folder with a small clip for every scene; `clip` are the arguments of `small_clip`."""
    store = FileStore(folder)
    return store, batch_of(job, [deliver(store, scene, small_clip(1, **clip)) for scene in job.scenes])
