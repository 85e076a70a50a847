"""Jobs that were written for the first eight models have the plans and the keys that they always had."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from videogen.job.model import Job
from videogen.planning.planner import build_plan
from videogen.registry.load import read_registry

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("plans_of_old_jobs.json").read_text(encoding="utf-8"))
"""By job: the keys of its clips, and the SHA-256 of its plan as JSON, from before there were tiers."""
RATIOS = {
    "kling-v2.1": ["16:9"],
    "kling-v2.5-turbo": ["16:9", "9:16", "1:1", "4:3", "3:4"],
    "hailuo-2.3": ["16:9", "9:16", "1:1"],
    "wan-2.5-i2v": ["16:9", "1:1", "9:16"],
    "veo-3.1": ["16:9", "9:16"],
    "seedance-1-pro": ["16:9", "9:16", "1:1", "4:3", "3:4"],
    "svd": ["16:9", "9:16", "1:1"],
    "cogvideox": ["16:9", "1:1"],
}
DIGESTS = {"room.png": "a" * 64, "keeper.png": "b" * 64, "dog.png": "c" * 64}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sound": {"audio": True},
    "takes": {"takes": 2, "attempts": 1},
    "seeds": {"seed": 7, "negative_prompt": "rain"},
    "short": {"target_duration": 1.5},
}


def iterate_jobs() -> Iterator[tuple[str, Job]]:
    """Yield forty jobs by name: five for each model, in its ratios in turn."""
    pictures: list[dict[str, Any]] = [
        {},
        {"scene_reference_url": "room.png"},
        {"character_reference_urls": ["keeper.png", "dog.png"]},
    ]
    for model, ratios in RATIOS.items():
        for number, (kind, fields) in enumerate(KINDS.items()):
            scenes = [
                {"id": f"s{index}", "prompt": f"{kind} {index}", "target_duration": 4.0}
                | ({"scene_reference_url": "room.png"} | given)
                | {
                    name: value
                    for name, value in fields.items()
                    if name in ("seed", "negative_prompt", "target_duration")
                }
                for index, given in enumerate(pictures)
            ]
            ratio = ratios[number % len(ratios)]
            known = {name: value for name, value in fields.items() if name in ("audio", "takes", "attempts")}
            job = {"id": "film", "model": model, "aspect_ratio": ratio, "scenes": scenes, **known}
            yield f"{model}-{kind}", Job.model_validate(job)


def describe_plan(job: Job) -> dict[str, Any]:
    """Return the keys of the plan and its digest. Whether a price is published may change: it is left out."""
    plan = build_plan(job, read_registry(), digests=DIGESTS, cut_outs={"b" * 64})
    summary = plan.summary()
    for row in (summary, *summary["scenes"]):
        del row["cost_is_exact"]
    text = json.dumps(summary, sort_keys=True)
    return {"keys": [request.key for request in plan.requests], "plan": hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize(("name", "job"), [pytest.param(name, job, id=name) for name, job in iterate_jobs()])
def test_an_old_job_has_its_old_plan(name: str, job: Job) -> None:
    """Byte by byte, and with it the clips that were paid for."""
    assert describe_plan(job) == STORED[name]


def test_forty_plans_are_stored() -> None:
    assert len(STORED) == 40
