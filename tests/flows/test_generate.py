"""The main job, run as a person runs it: job in, clips out."""

import hashlib
import json
import os
import shutil
import signal
import time
import wave
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.conftest import FAULT_REGISTRY, CommandLine, wait_until
from tests.support.prefect_api import call_prefect
from videogen.emulator import Emulator
from videogen.media import inspect_video

EXAMPLES = Path(__file__).parents[2] / "examples"


def scenes(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": f"s{n:02d}", "prompt": f"scene {n}", "target_duration": 5, **fields} for n in range(count)]


def wait_for(ledger_of: Emulator, what: str, at_least: int) -> dict[str, Any]:
    deadline = time.monotonic() + 250
    while (ledger := ledger_of.ledger())[what] < at_least:
        assert time.monotonic() < deadline, f"never {at_least} {what}"
        time.sleep(0.1)
    return ledger


def test_the_example_makes_eight_whole_clips(command: CommandLine, prefect_api: str) -> None:
    """No account, no server of Replicate's: mp4 files, a manifest that tells the truth about them, a verdict."""
    shutil.copytree(EXAMPLES, command.folder / "examples")
    done = command.run("examples/lighthouse.toml")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("provider: local (REPLICATE_API_TOKEN is not set")
    assert "the progress of this run" not in done.err  # which Prefect would not have taken
    assert "could not report" not in done.out
    folder = command.folder / "out" / "lighthouse"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["verdict"]["status"], manifest["successful_clips"], manifest["total_cost"]) == (
        "complete",
        8,
        "3.150",
    )
    assert len(list((folder / "clips").glob("*.mp4"))) == 8
    for clip in manifest["clips"]:
        measured = inspect_video(folder / clip["video_path"])
        assert measured.sha256 == clip["sha256"]
        assert (measured.width, measured.height, measured.fps) == (clip["width"], clip["height"], clip["fps"])
        assert measured.duration == pytest.approx(clip["actual_duration"], abs=0.001)
        assert measured.width * 9 == measured.height * 16
        assert measured.warnings == ()
    assert_prefect_shows(prefect_api, manifest, folder)


def assert_prefect_shows(api: str, manifest: dict[str, Any], folder: Path) -> None:
    """A flow run named by job and model, tagged; a task run for each scene; artifacts and events of what came of it."""
    named = {"flow_runs": {"name": {"any_": ["lighthouse · kling-v2.5-turbo"]}}}
    (run,) = call_prefect("POST", f"{api}/flow_runs/filter", named)
    assert (run["state"]["name"], run["labels"].get("videogen.run")) == ("Completed", manifest["run_id"])
    assert set(run["tags"]) == {"model:kling-v2.5-turbo", "ratio:16:9"}
    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    found = call_prefect("POST", f"{api}/artifacts/filter", of_run)
    artifacts = {artifact["key"]: artifact["data"] for artifact in found}
    assert artifacts.keys() == {"lighthouse-verdict", "lighthouse-clips", "lighthouse-progress"}
    assert artifacts["lighthouse-progress"] == 100.0
    assert "all 8 clips delivered" in artifacts["lighthouse-verdict"]
    assert "![](data:image/jpeg;base64," in artifacts["lighthouse-verdict"]
    assert len(json.loads(artifacts["lighthouse-clips"])) == 8
    expected = {clip["scene_id"] for clip in manifest["clips"]}
    wait_until(lambda: {task["name"] for task in call_prefect("POST", f"{api}/task_runs/filter", of_run)} == expected)
    wait_until(lambda: events_of(api, "videogen.clip.completed", manifest["run_id"]) == expected)
    wait_until(lambda: events_of(api, "videogen.run.completed", manifest["run_id"]) == {"lighthouse"})
    assert events_of(api, "videogen.run.completed", manifest["run_id"], "videogen.folder") == {str(folder)}


def events_of(api: str, name: str, run_id: str, label: str = "prefect.resource.name") -> set[str]:
    """This label of the resources of Prefect's events of that name in a run."""
    found = call_prefect("POST", f"{api}/events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})
    resources = [event["resource"] for event in found["events"]]
    return {resource[label] for resource in resources if run_id in resource["prefect.resource.id"]}


def get(address: str) -> Any:
    return httpx.get(address, trust_env=False).json()


@pytest.mark.long
def test_twenty_clips_run_five_at_a_time(on_emulator: CommandLine, emulator: Emulator) -> None:
    """The peak is exactly five, and nothing is created twice."""
    done = on_emulator.run(on_emulator.quick_job(20), "--json")
    assert done.code == 0, done.err
    assert (emulator.ledger()["creates"], emulator.ledger()["peak"]) == (20, 5)


@pytest.mark.long
def test_a_run_that_is_killed_is_continued_without_paying_twice(on_emulator: CommandLine, emulator: Emulator) -> None:
    """Kill -9 with some clips delivered and some in flight: the next run creates only what was never created."""
    job = on_emulator.quick_job(12)
    first = on_emulator.start(job)
    wait_for(emulator, "creates", 8)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = on_emulator.run(job, "--json")
    assert done.code == 0, done.err
    ledger = emulator.ledger()
    assert ledger["creates"] == 12
    assert len({prediction["input"]["prompt"] for prediction in ledger["predictions"]}) == 12
    manifest = done.manifest
    assert manifest["successful_clips"] == 12
    for clip in manifest["clips"]:
        data = (on_emulator.folder / "out" / "film" / clip["video_path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == clip["sha256"]


@pytest.mark.long
def test_a_second_run_creates_nothing_and_a_fresh_one_everything(on_emulator: CommandLine, emulator: Emulator) -> None:
    """Every clip is reused at no cost, unless it is asked for anew."""
    job = on_emulator.quick_job(2)
    assert on_emulator.run(job, "--json").code == 0
    again = on_emulator.run(job, "--json")
    assert (again.code, emulator.ledger()["creates"]) == (0, 2)
    assert [clip["reused"] for clip in again.manifest["clips"]] == [True] * 2
    assert again.manifest["total_cost"] == "0"
    fresh = on_emulator.run(job, "--json", "--fresh")
    assert ([clip["reused"] for clip in fresh.manifest["clips"]], emulator.ledger()["creates"]) == ([False] * 2, 4)


@pytest.mark.long
def test_a_rough_cut_is_made_when_asked(on_emulator: CommandLine) -> None:
    """By its music alone, too, which is put under it. It is beside the pages that every run leaves, which link to it;
    what cannot be written is said in a line."""
    job, folder = on_emulator.job(*scenes(1, target_duration=1.5)), on_emulator.folder / "out" / "film"
    with wave.open(str(on_emulator.folder / "song.wav"), "wb") as song:
        song.setparams((1, 2, 44_100, 0, "NONE", "not compressed"))
        song.writeframes((b"\x00\x40" * 50 + b"\x00\xc0" * 50) * 1_000)
    done = on_emulator.run(job, "--music", "song.wav")
    cut = inspect_video(folder / "rough_cut.mp4")
    assert (done.code, cut.duration, cut.sound) == (0, 1.5, "whole")
    assert "cutting rough_cut.mp4" in done.out
    assert 'href="rough_cut.mp4"' in (folder / "index.html").read_text()
    (folder / "index.html").unlink()
    (folder / "index.html" / "in the way").mkdir(parents=True)
    again = on_emulator.run(job)
    assert again.code == 0
    assert "warning: index.html was not written: cannot write index.html" in again.out


def test_the_events_are_lines_of_json_when_asked(on_emulator: CommandLine) -> None:
    """As they happen, on standard output, and nothing else there; the gateway beside the run says where it is."""
    done = on_emulator.run(on_emulator.quick_job(2), "--jsonl", "--serve")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events[:1] + events[-1:]] == ["run.started", "run.completed"]
    ended = [event for event in events if event["event"] == "clip.completed"]
    assert sorted(event["scene_id"] for event in ended) == ["s0", "s1"]
    assert [event["completed"] for event in ended] == [1, 2]
    assert "watch it at http://127.0.0.1:" in done.err


@pytest.mark.long
def test_a_run_that_is_served_can_be_watched(on_emulator: CommandLine) -> None:
    """By the address that it prints, while it goes on."""
    process = on_emulator.start(on_emulator.quick_job(1), "--serve")
    assert process.stdout
    address = next(line for line in process.stdout if line.startswith("watch it at ")).split()[-1]
    wait_until(lambda: bool(listed_runs := get(f"{address}/runs")["runs"]) and listed_runs[0]["job_id"] == "film")
    assert "<title>" in httpx.get(address, trust_env=False).text
    process.communicate(timeout=250)
    assert process.returncode == 0


@pytest.mark.long
def test_a_job_too_large_for_a_parameter_is_run_by_its_file(on_emulator: CommandLine, prefect_api: str) -> None:
    """Prefect takes half a megabyte of parameters; these sixty scenes have more, and are all refused quickly."""
    wanted = [{"id": f"s{n}", "prompt": f"{n} " + "x" * 9000, "target_duration": 2} for n in range(60)]
    on_emulator.environment["VIDEOGEN_REGISTRY"] = str(FAULT_REGISTRY)
    job = on_emulator.job(*wanted, model="refused", id="large")
    done = on_emulator.run(job, "--json")
    assert (done.code, done.manifest["failed_clips"]) == (1, 60), done.err
    runs = call_prefect("POST", f"{prefect_api}/flow_runs/filter", {"sort": "START_TIME_DESC"})
    (run,) = [run for run in runs if run["parameters"].get("job") == str(job)]
    assert (run["name"], run["state"]["type"]) == ("large · refused", "FAILED")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, 143, id="sigterm"),
    ],
)
@pytest.mark.long
def test_an_interrupted_run_leaves_nothing_running(
    number: signal.Signals, code: int, on_emulator: CommandLine, emulator: Emulator
) -> None:
    """All predictions are cancelled remotely."""
    process = on_emulator.start(on_emulator.quick_job(8))
    wait_for(emulator, "creates", 5)
    process.send_signal(number)
    _, err = process.communicate(timeout=250)
    assert process.returncode == code, err
    assert emulator.ledger()["running"] == 0
    assert "Traceback" not in err


@pytest.mark.long
def test_ctrl_c_at_a_terminal_ends_a_run_that_has_its_own_servers(command: CommandLine) -> None:
    """It goes to every process there: Prefect's server and the emulator still hear what becomes of the run."""
    del command.environment["PREFECT_API_URL"]
    process = command.start(command.job(*scenes(8)))
    assert process.stdout
    for line in process.stdout:
        if "started, attempt 1" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=250)
    assert (process.returncode, err.splitlines()[-1]) == (
        130,
        "interrupted: delivered clips are kept, run the same command again to continue",
    )


def test_a_refused_token_ends_in_one_line(on_emulator: CommandLine) -> None:
    """Exit 3 before Prefect is even started, and the token is nowhere."""
    on_emulator.environment["REPLICATE_API_TOKEN"] = "bad"
    done = on_emulator.run(on_emulator.job(*scenes(3)))
    assert done.code == 3
    assert (done.out, len(done.err.splitlines())) == ("", 1)
    assert "Replicate refused the token (401)" in done.err
    assert "bad" not in done.out + done.err


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("fields", "flags", "message"),
    [
        pytest.param(
            {"model": "kling-v2.1"}, [], "film.json:1:13: scenes.0.scene_reference_url: kling-v2.1 needs", id="image"
        ),
        pytest.param(
            {}, ["--aspect-ratio", "21:9"], "kling-v2.5-turbo does not support '21:9'; it supports 16:9", id="ratio"
        ),
        pytest.param({"model": "nope"}, [], "'nope' is not in the registry", id="model"),
        pytest.param({}, ["--max-cost", "0.1"], "the plan costs $0.35, $0.25 above the cap", id="budget"),
        pytest.param({}, ["--min-clips", "0"], "command line: --min-clips", id="flag"),
        pytest.param({}, ["--no-such-flag"], "--no-such-flag", id="unknown-flag"),
    ],
)
def test_an_invalid_job_creates_nothing(
    fields: dict[str, Any], flags: list[str], message: str, on_emulator: CommandLine, emulator: Emulator
) -> None:
    """Exit 2, all that is wrong on standard error, no traceback, not one create."""
    done = on_emulator.run(on_emulator.job(*scenes(1), **fields), *flags)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert emulator.ledger()["creates"] == 0


def test_a_buffer_below_one_is_refused(on_emulator: CommandLine) -> None:
    """The message names the variable and what it may be."""
    on_emulator.environment["VIDEO_GENERATOR_DURATION_BUFFER"] = "0.9"
    done = on_emulator.run(on_emulator.job(*scenes(1)), "--dry-run")
    assert done.code == 2
    assert done.err == "error: VIDEO_GENERATOR_DURATION_BUFFER: must be a number of at least 1, not '0.9'\n"


def test_a_dry_run_prints_the_plan_and_creates_nothing(on_emulator: CommandLine, emulator: Emulator) -> None:
    """As one JSON object, or as a table."""
    job = on_emulator.job(*scenes(2), model="veo-3.1")
    on_emulator.environment["VIDEO_GENERATOR_DURATION_BUFFER"] = "1.5"
    plan = on_emulator.run(job, "--dry-run", "--json").manifest
    assert [row["buffered_duration"] for row in plan["scenes"]] == [7.5, 7.5]
    assert plan["total_cost"] == "3.200"
    assert "film: 2 of 2 clips to make with veo-3.1" in on_emulator.run(job, "--dry-run").out
    assert emulator.ledger()["creates"] == 0


@pytest.mark.long_variants
@pytest.mark.parametrize("flag", ["--help", "--dry-run"])
def test_help_and_dry_run_import_neither_prefect_nor_pyav(flag: str, on_emulator: CommandLine) -> None:
    """They answer at once."""
    on_emulator.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = on_emulator.run(on_emulator.job(*scenes(1)), flag)
    assert done.code == 0
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "videogen.cli.main" in imported
    assert not imported & {"prefect", "av", "replicate", "fastapi", "httpx", "jinja2"}
