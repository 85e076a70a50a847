"""Who is measured, each in a process of its own: videogen without Prefect, and what people would use instead.

    uv run python -m benchmarks.contenders NAME CLIPS FOLDER

`REPLICATE_BASE_URL` says where the clips come from; they are written to FOLDER. The rivals are as their documentation
has them, five at a time, and check nothing of what they download.
"""

import asyncio
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

SLOTS = 5
MODEL = "bytedance/seedance-1-pro"
PROMPT = "A lighthouse at dusk"
INPUT = {"prompt": PROMPT, "duration": 2, "resolution": "480p", "aspect_ratio": "1:1"}
TAG = "replicate"


def ours(_clips: int, folder: Path) -> None:
    """videogen's own `JobRunner` on `job.json`, which Prefect's flow drives as well."""
    asyncio.run(_session(folder, scene_order=False))


def ours_in_scene_order(_clips: int, folder: Path) -> None:
    """As `ours`, begun in the order of the scenes and not the longest first."""
    asyncio.run(_session(folder, scene_order=True))


async def _session(folder: Path, *, scene_order: bool) -> None:
    from videogen.app import open_run, prepare_job
    from videogen.execution.options import RunOptions

    async with open_run(await prepare_job(str(folder / "job.json"), RunOptions(out=str(folder / "out")))) as session:
        if scene_order:
            clips = list(await asyncio.gather(*(session.make_clip(request) for request in session.plan.requests)))
        else:
            clips = await session.make_clips()
        await session.finish(clips)


def polling(clips: int, folder: Path) -> None:
    """The official client's create, and its wait, which looks every 0.5 s; `asyncio.Semaphore(5)`."""
    asyncio.run(_at_a_time(clips, folder, _created_and_waited_for))


def blocking(clips: int, folder: Path) -> None:
    """The official client's `async_run`, whose create waits for the end, for up to a minute; `asyncio.Semaphore(5)`."""
    asyncio.run(_at_a_time(clips, folder, _run))


async def _at_a_time(clips: int, folder: Path, make: Callable[..., Any]) -> None:
    from replicate.client import Client

    client, slots = Client(), asyncio.Semaphore(SLOTS)

    async def clip(number: int) -> None:
        async with slots:
            name, url = await make(client, number)
            (folder / f"{name}.mp4").write_bytes((await downloads.get(url)).content)

    async with httpx.AsyncClient(trust_env=False) as downloads:
        await asyncio.gather(*(clip(number) for number in range(clips)))


async def _created_and_waited_for(client: Any, _number: int) -> tuple[str, str]:
    prediction = await client.models.predictions.async_create(model=MODEL, input=INPUT)
    await prediction.async_wait()
    return prediction.id, prediction.output


async def _run(client: Any, number: int) -> tuple[str, str]:
    output = await client.async_run(MODEL, input=INPUT)
    return f"clip-{number}", str(output)


def batch_process(clips: int, folder: Path) -> None:
    """replicate-batch-process with `max_concurrent=5`.

    It imports a Gemini client that it does not declare, and refuses models that are not in its table: an empty module
    stands in for the first, and the table gets the bench's model.
    """
    for name in ("google", "google.generativeai"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from replicate_batch_process import BatchRequest, IntelligentBatchProcessor, main

    main.REPLICATE_MODELS[MODEL] = {
        "model_type": "video",
        "reference_image": False,
        "supported_params": {name: {"type": "str", "default": value} for name, value in INPUT.items()},
    }
    requests = [
        BatchRequest(PROMPT, MODEL, str(folder / f"clip-{number}.mp4"), {}, f"clip-{number}") for number in range(clips)
    ]
    asyncio.run(IntelligentBatchProcessor(max_concurrent=SLOTS).process_intelligent_batch(requests))


def _clip_in_a_thread(number: int, folder: Path) -> None:
    from replicate.client import Client

    prediction = Client().models.predictions.create(model=MODEL, input=INPUT)
    prediction.wait()
    (folder / f"clip-{number}.mp4").write_bytes(httpx.get(str(prediction.output), trust_env=False).content)


def prefect_tag_limit(clips: int, folder: Path) -> None:
    """A Prefect task that is mapped over all clips, with a concurrency limit of five on its tag."""
    from prefect import flow, task
    from prefect.client.orchestration import get_client

    make = task(tags=[TAG])(_clip_in_a_thread)

    @flow
    def clips_of_a_film() -> None:
        make.map(range(clips), folder).wait()

    async def limit() -> None:
        async with get_client() as client:
            await client.create_concurrency_limit(TAG, SLOTS)

    asyncio.run(limit())
    clips_of_a_film()


def prefect_threads(clips: int, folder: Path) -> None:
    """A Prefect task that is mapped over all clips, on a pool of five threads."""
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    make = task(_clip_in_a_thread)

    @flow(task_runner=ThreadPoolTaskRunner(SLOTS))  # type: ignore[arg-type]
    def clips_of_a_film() -> None:
        make.map(range(clips), folder).wait()

    clips_of_a_film()


def empty_flow(clips: int, folder: Path) -> None:
    """As many Prefect tasks that do nothing, five at a time; when the first and the last one began is in `began`."""
    from prefect import flow, task

    began: list[float] = []

    @task
    async def nothing(number: int) -> int:
        began.append(time.time())
        return number

    @flow
    async def tasks() -> None:
        slots = asyncio.Semaphore(SLOTS)

        async def one(number: int) -> None:
            async with slots:
                await nothing(number)

        await asyncio.gather(*(one(number) for number in range(clips)))

    asyncio.run(tasks())
    (folder / "began").write_text(f"{began[0]} {began[-1]}", encoding="utf-8")


CONTENDERS: dict[str, Callable[[int, Path], None]] = {
    each.__name__: each
    for each in (
        *(ours, ours_in_scene_order, polling, blocking, batch_process),
        *(prefect_tag_limit, prefect_threads, empty_flow),
    )
}


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))
