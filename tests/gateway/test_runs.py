"""Models and runs as JSON."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from tests.gateway.conftest import PROMPTS, Played, Shown, emulated
from videogen.app import open_run, prepare_job
from videogen.events import RunCapChanged, RunPaused, RunResumed
from videogen.execution.options import RunOptions
from videogen.execution.runner import JobRunner
from videogen.execution.slots import Slot
from videogen.job.model import Job
from videogen.planning.requests import ClipRequest
from videogen.registry.load import read_registry


def test_every_model_is_told_as_a_form_needs_it(finished: Shown) -> None:
    """Prices are decimal strings; lengths are those that can be asked for."""
    models = {model["id"]: model for model in finished.get("/models")["models"]}
    assert models.keys() == read_registry().models.keys()
    kling, veo, svd = models["kling-v2.5-turbo"], models["veo-3.1"], models["svd"]
    assert kling["durations"] == {
        "mode": "discrete",
        "min": 5.0,
        "max": 10.0,
        "lengths": [5.0, 10.0],
        "automatic": None,
    }
    assert (kling["price"]["per_second"], kling["price"]["basis"]) == ("0.07", "exact")
    assert veo["durations"] == {
        "mode": "continuous",
        "min": 4.0,
        "max": 8.0,
        "lengths": [4.0, 6.0, 8.0],
        "automatic": None,
    }
    assert (veo["references"]["max"], veo["aspect_ratios"]) == (3, ["16:9", "9:16"])
    assert (svd["image_required"], svd["takes_prompt"]) == (True, False)
    assert finished.get("/models/veo-3.1") == veo


@pytest.mark.parametrize("address", ["/models/none", "/runs/none", "/runs/none/events", "/runs/none/clips/a.mp4"])
def test_what_is_not_there_is_not_found(finished: Shown, address: str) -> None:
    """Also for a stream, before it begins."""
    assert finished.http.get(address).status_code == 404


def test_a_run_that_is_over_adds_up_to_its_manifest(finished: Shown, played: Played) -> None:
    """Every clip's last state, the money, the verdict; failed clips count as done, and are told apart."""
    run = finished.get(f"/runs/{played.batch.run_id}")
    assert (run["job_id"], run["status"], run["verdict"]["status"]) == ("film", "partial", "partial")
    assert (run["completed"], run["failed"], run["total"], run["max_cost"]) == (3, 1, 3, "1.00")
    assert [(each["completed"], each["failed"]) for each in finished.get("/runs")["runs"]] == [(3, 1)]
    assert (Decimal(run["spent"]), Decimal(run["reserved"])) == (played.batch.total_cost, Decimal(0))
    assert [clip["scene_id"] for clip in run["clips"]] == list(PROMPTS)
    assert [clip["state"] for clip in run["clips"]] == ["delivered", "delivered", "failed"]
    assert [clip["prompt"] for clip in run["clips"]] == list(PROMPTS.values())
    for told, clip in zip(run["clips"], played.batch.clips, strict=True):
        made_at_the_end = {"generation_time", "chosen"}
        expected = clip.model_dump(mode="json", exclude=made_at_the_end)
        assert {name: told[name] for name in expected} == expected


def test_scenes_are_told_before_anything_is_made(live: Shown) -> None:
    live.begin("r1", "b", "a", max_cost="2.50", spent_before="1.05")
    run = live.get("/runs/r1")
    assert run["spent_before"] == "1.05"
    assert (run["status"], run["verdict"], run["spent"], run["max_cost"]) == ("running", None, "0", "2.50")
    assert [(clip["scene_id"], clip["state"]) for clip in run["clips"]] == [("b", "waiting"), ("a", "waiting")]


def test_a_new_attempt_begins_from_nothing(live: Shown) -> None:
    """Its error stays to be seen; its progress is not that of the attempt before."""
    live.begin("r1", "a")
    of_clip = partial(live.tell, "r1", clip_index=0, scene_id="a")
    of_clip(type_="clip.started", attempt=1)
    of_clip(type_="clip.progress", elapsed=8.0, remaining=2.0, fraction=0.8)
    of_clip(type_="clip.retrying", attempt=1, error={"code": "model-error", "message": "no"})
    assert live.get("/runs/r1")["clips"][0]["state"] == "retrying"
    of_clip(type_="clip.started", attempt=2)
    (told,) = live.get("/runs/r1")["clips"]
    assert (told["state"], told["attempt"], told["fraction"], told["error"]["message"]) == ("running", 2, 0.0, "no")


def test_a_clip_that_has_ended_has_no_progress(live: Shown) -> None:
    """What was left to do of it is nothing that stays."""
    live.begin("r1", "a", "b")
    for index, (scene_id, end) in enumerate({"a": "clip.completed", "b": "clip.failed"}.items()):
        of_clip = partial(live.tell, "r1", clip_index=index, scene_id=scene_id)
        of_clip(type_="clip.progress", elapsed=8.0, remaining=2.0, fraction=0.8)
        of_clip(type_=end)
    for clip in live.get("/runs/r1")["clips"]:
        assert clip.keys() & {"elapsed", "remaining", "fraction"} == set()


def test_a_run_tells_whether_it_is_paused_and_its_cap(live: Shown) -> None:
    """After the commands that it has obeyed so far; the events themselves are sent on."""
    live.begin("r1", "harbour")
    assert (live.get("/runs/r1")["paused"], live.get("/runs/r1")["max_cost"]) == (False, None)
    live.tell("r1", "run.paused", **RunPaused(sender="eve@there").payload())
    live.tell("r1", "run.cap_changed", **RunCapChanged(sender="eve@there", max_cost=Decimal(20)).payload())
    assert (live.get("/runs/r1")["paused"], live.get("/runs/r1")["max_cost"]) == (True, "20")
    live.tell("r1", "run.resumed", **RunResumed(sender="eve@there").payload())
    assert live.get("/runs/r1")["paused"] is False


def test_runs_are_paged_newest_first(live: Shown) -> None:
    """Every run is on exactly one page, also while new ones begin."""
    for number in range(5):
        live.begin(f"r{number}", "a", job_id=f"job-{number}")
    first = live.get("/runs?limit=2")
    assert [(run["run_id"], run["model"], run["total"]) for run in first["runs"]] == [
        ("r4", "quick", 1),
        ("r3", "quick", 1),
    ]
    live.begin("r5", "a")
    second = live.get(f"/runs?limit=2&before={first['next']}")
    last = live.get(f"/runs?limit=2&before={second['next']}")
    assert [run["run_id"] for run in second["runs"] + last["runs"]] == ["r2", "r1", "r0"]
    assert last["next"] is None


def test_a_long_run_is_told_by_its_latest_progress(live: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress that newer progress has overtaken is not read; what ended long ago is."""
    monkeypatch.setattr("videogen.journal.event_log.RECENT_EVENTS", 10)
    live.begin("r1", "a", "b")
    live.tell("r1", "clip.failed", clip_index=0, scene_id="a", error={"code": "x", "message": "y"}, completed=1)
    for number in range(30):
        live.tell("r1", "clip.progress", clip_index=1, scene_id="b", fraction=number / 100, completed=1)
    states = [(clip["state"], clip.get("fraction")) for clip in live.get("/runs/r1")["clips"]]
    assert states == [("failed", None), ("running", 0.29)]
    assert len(live.journal.snapshot_events("r1")) == 12


def test_a_run_that_is_writing_holds_up_nobody(live: Shown) -> None:
    """Nor is it held up: who watches takes no lock."""
    live.begin("r1", "a")
    with closing(sqlite3.connect(live.out / "journal.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert live.http.get("/runs/r1", timeout=5).status_code == 200
        assert live.http.get("/runs", timeout=5).status_code == 200


async def test_an_end_that_no_attempt_has_told_is_told(tmp_path: Path) -> None:
    """What breaks outside of an attempt ends its clip for who watches; it counts once, also if it comes after all."""

    async def broken(request: ClipRequest, session: JobRunner, slot: Slot) -> BaseException:
        return RuntimeError("not foreseen")

    with emulated(tmp_path, ""):
        job = Job.model_validate({"model": "quick", "scenes": [{"id": "a", "prompt": "A", "target_duration": 2}]})
        async with open_run(await prepare_job(job, RunOptions(out=str(tmp_path / "out")))) as session:
            (request,) = session.plan.requests
            await session.make_clip(request, broken)
            await session.make_clip(request)
            await session.flush()
            told = await session.run.journal.read_events(session.run.id)
    ends = [(type_, payload["completed"]) for _, type_, payload in told if type_ in ("clip.failed", "clip.completed")]
    assert ends == [("clip.failed", 1), ("clip.completed", 1)]
