"""Chains of scenes on each model that takes a start frame: each clip begins where the one before is cut."""

import statistics
from collections.abc import Iterator
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import av
import pytest

from tests.registry.test_combinations import LIGHTHOUSE, make_smaller
from tests.registry.test_models import run_prepared
from tests.support.tokens import TOKEN
from videogen.app import prepare_job
from videogen.emulator import Emulator, EmulatorSettings, predictions, run_emulator
from videogen.emulator.rendering import encode as render
from videogen.execution.options import RunOptions
from videogen.job.model import Job
from videogen.registry.load import read_registry

pytestmark = [pytest.mark.integration, pytest.mark.long]

REGISTRY = read_registry()
ABLE = [name for name, spec in REGISTRY.models.items() if spec.parameters.image]
LENGTH = 5


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings(latency_s=(0.1, 0.1))) as server:
        yield server


def read_luma(path: Path, *, cut_s: float | None = None) -> list[int]:
    """The luma of the first picture, or of the last one before a clip is cut."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate
        wanted = 0 if cut_s is None else ceil(cut_s * float(stream.average_rate) - 1e-3) - 1
        for number, frame in enumerate(container.decode(stream)):
            if number <= wanted:
                last = frame
        small = last.reformat(320, 180, "gray").to_image()  # type: ignore[no-untyped-call]
    return list(small.tobytes())


@pytest.mark.parametrize("model", ABLE)
async def test_each_clip_of_a_chain_begins_where_the_one_before_is_cut(
    model: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within two steps of luma, for half of the picture at least."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    monkeypatch.setattr(render, "LOOP_S", 0.5)  # what is drawn does not matter here, and takes most of the time
    monkeypatch.setattr(predictions, "RenderSpec", make_smaller)
    spec = REGISTRY.models[model]
    target_s = min((*spec.duration.lengths, spec.duration.max if not spec.duration.lengths else 99)) - 0.4  # type: ignore[union-attr]
    scenes: list[dict[str, Any]] = [
        {
            "id": f"s{number}",
            "prompt": f"The scene {number}",
            "target_duration": target_s,
            "continues": f"s{number - 1}",
        }
        for number in range(LENGTH)
    ]
    del scenes[0]["continues"]
    if spec.parameters.image_required:
        scenes[0]["start_image"] = LIGHTHOUSE
    if spec.references and spec.references.required:
        pytest.fail("a model that requires a list of references has no start frame")
    ratio = "16:9" if "16:9" in spec.aspect_ratios else next(iter(spec.aspect_ratios))
    job = Job.model_validate({"id": "chain", "model": model, "aspect_ratio": ratio, "scenes": scenes})
    prepared = await prepare_job(job, RunOptions(out=str(tmp_path)))
    result = await run_prepared(prepared)
    assert [clip.status for clip in result.clips] == ["success"] * LENGTH, result.clips
    paths = [Path(prepared.folder) / str(clip.video_path) for clip in result.clips]
    for before, after in pairwise(paths):
        cut, first = read_luma(before, cut_s=target_s), read_luma(after)
        assert statistics.median(abs(one - other) for one, other in zip(cut, first, strict=True)) <= 2
