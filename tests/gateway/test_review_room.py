"""The review room: who may act, what an action leaves, and that a retake is paid for once."""

import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.conftest import wait_until
from tests.gateway.conftest import gateway, shoot, watching
from tests.support.review_rooms import (
    FILM,
    REGISTRY,
    TOKEN,
    FakeController,
    Reviewed,
    deliver_film,
    read_started_runs,
    reviewing,
    write_fake_run,
)
from videogen.cli.main import main
from videogen.emulator import EmulatorSettings, run_emulator
from videogen.gateway.actions import MAX_ACTION_BYTES, OneTimeTokens
from videogen.review import Review
from videogen.settings import read_settings

pytestmark = pytest.mark.integration
CHOICE = {"take_id": "storm.take-1", "chosen": True}
RETAKE = {"take_id": "storm.take-1", "prompt": "A heavier storm"}
ACTIONS: dict[str, Any] = {
    "choices": CHOICE,
    "retakes/price": RETAKE,
    "retakes": {"offer": "x"},
    "commands": {"action": "pause"},
}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(REGISTRY))
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def room(tmp_path: Path, controller: FakeController) -> Iterator[Reviewed]:
    """A film with two takes of each scene, and a command that only writes down that a run was started."""
    with reviewing(tmp_path, controller=controller, command=write_fake_run(tmp_path)) as reviewed:
        yield reviewed


def wait_until_run_has_ended(room: Reviewed, take_id: str = "storm.take-3") -> None:
    """Wait for the command that stands in for the run of a retake."""
    wait_until(lambda: room.visitor.get(f"/runs/r1/retakes/{take_id}")["state"] != "starting")


# -- takes ------------------------------------------------------------------------------------------------------------


def test_the_takes_of_each_scene_are_listed_with_their_clips(room: Reviewed) -> None:
    view = room.visitor.get("/runs/r1/takes")
    assert (view["job_id"], view["run_id"], view["status"]) == ("film", "r1", "complete")
    assert (view["is_reviewer"], view["can_retake"], view["actions"]) == (True, True, [])
    assert [[take["label"] for take in scene["takes"]] for scene in view["scenes"]] == [[1, 2], [1, 2]]
    assert [scene["scene_id"] for scene in view["scenes"]] == ["storm", "calm"]
    takes = room.visitor.takes()
    assert [name for name, take in takes.items() if take["chosen"]] == ["storm.take-2", "calm.take-2"]
    for take in takes.values():
        assert room.visitor.http.get(f"/{take['video']}").headers["content-type"] == "video/mp4"
        assert room.visitor.http.get(f"/{take['poster']}").headers["content-type"] == "image/jpeg"


def test_a_room_of_an_older_run_shows_the_takes_of_the_newest(room: Reviewed) -> None:
    """Their clips are served, although the older run did not make them."""
    scenes = [{**scene, "id": f"{scene['id']}-new"} for scene in FILM["scenes"]]
    deliver_film(room.shown, "r2", film={**FILM, "scenes": scenes})
    takes = room.visitor.takes("r1")
    assert "storm-new.take-1" in takes
    assert all(room.visitor.http.get(f"/{take['video']}").status_code == 200 for take in takes.values())
    assert takes == room.visitor.takes("r2")


def test_a_run_that_has_no_manifest_yet_shows_its_clips_as_they_come(tmp_path: Path) -> None:
    """The first run of a job. A delivered clip can be chosen at once, and the run will know it."""
    with reviewing(tmp_path, film=None) as room:
        room.folder.mkdir()
        room.shown.begin("r1", "storm", "calm")
        room.shown.tell("r1", "clip.started", clip_index=0, scene_id="storm", attempt=1)
        room.shown.tell("r1", "clip.progress", clip_index=0, scene_id="storm", remaining=5.0, fraction=0.5)
        takes = room.visitor.takes()
        assert {name: take["state"] for name, take in takes.items()} == {"storm": "running", "calm": "waiting"}
        assert (takes["storm"]["label"], takes["storm"]["fraction"]) == (None, 0.5)
        refused = room.visitor.send("/runs/r1/choices", {"take_id": "storm", "chosen": True})
        assert (refused.status_code, "is being made" in refused.text) == (409, True)


def test_a_killed_run_is_not_in_progress(room: Reviewed) -> None:
    room.shown.begin("r2", "storm.take-1")
    assert room.visitor.get("/runs/r1/takes")["status"] == "running"
    room.shown.kill("r2")
    assert room.visitor.get("/runs/r1/takes")["status"] == "interrupted"


def test_a_job_elsewhere_has_no_review_room(room: Reviewed, tmp_path: Path) -> None:
    """Nothing is created there, whatever the journal says."""
    elsewhere = tmp_path / "elsewhere" / "film"
    for number, folder in enumerate([str(elsewhere), "s3://films/film", str(room.shown.out / "other" / "film")]):
        room.shown.begin(f"e{number}", "storm", folder=folder)
        refused = room.visitor.http.get(f"/runs/e{number}/takes")
        assert (refused.status_code, "not below this gateway's folder" in refused.text) == (409, True)
    assert not elsewhere.exists()
    assert room.visitor.get("/runs/e0")["has_review"] is False
    assert room.visitor.get("/runs/r1")["has_review"] is True


def test_looking_at_a_job_whose_folder_was_deleted_makes_no_folder(room: Reviewed) -> None:
    shutil.rmtree(room.folder)
    assert room.watcher.http.get("/runs/r1/takes").status_code == 409
    assert not room.folder.exists()


# -- choose, rate, note -----------------------------------------------------------------------------------------------


def test_a_choice_is_in_the_choices_the_manifest_and_on_the_contact_sheet(room: Reviewed) -> None:
    view = room.visitor.act("/runs/r1/choices", CHOICE)
    assert [take["take_id"] for scene in view["scenes"] for take in scene["takes"] if take["chosen"]] == [
        "storm.take-1",
        "calm.take-2",
    ]
    assert "[storm]\nchosen = 1\n" in (room.folder / "choices.toml").read_text(encoding="utf-8")
    assert [name for name, clip in room.manifest.items() if clip["chosen"]] == ["storm.take-1", "calm.take-2"]
    page = (room.folder / "index.html").read_text(encoding="utf-8")
    assert page.index('id="storm.take-1"') < page.index('id="storm.take-2"')


def test_a_rating_and_a_note_are_written_and_removed(room: Reviewed) -> None:
    note = 'Two\nlines, <script>"quotes"</script> and ☃'
    room.visitor.act("/runs/r1/choices", {"take_id": "calm.take-1", "rating": 4, "note": note})
    assert (room.manifest["calm.take-1"]["rating"], room.manifest["calm.take-1"]["note"]) == (4, note)
    assert room.visitor.takes()["calm.take-1"]["note"] == note
    room.visitor.act("/runs/r1/choices", {"take_id": "calm.take-1", "rating": 0})
    assert (room.manifest["calm.take-1"]["rating"], room.manifest["calm.take-1"]["note"]) == (None, note)
    room.visitor.act("/runs/r1/choices", {"take_id": "calm.take-1", "note": ""})
    assert room.manifest["calm.take-1"]["note"] is None
    assert room.manifest["calm.take-2"]["rating"] is None


def test_two_people_who_rate_at_once_lose_nothing(room: Reviewed) -> None:
    def rate(take_id: str) -> int:
        return room.visitor.send("/runs/r1/choices", {"take_id": take_id, "rating": 3}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rate, room.manifest)) == [200] * 4
    assert [clip["rating"] for clip in room.manifest.values()] == [3] * 4


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"take_id": "storm.take-9", "chosen": True}, 422, id="unknown-take"),
        pytest.param({"take_id": "storm", "chosen": True}, 422, id="a-scene"),
        pytest.param({"take_id": "../film", "rating": 1}, 422, id="path"),
        pytest.param({"take_id": "storm.take-1"}, 422, id="nothing-said"),
        pytest.param({"take_id": "storm.take-1", "chosen": False}, 422, id="not-chosen"),
        pytest.param({"take_id": "storm.take-1", "rating": 6}, 422, id="six-stars"),
        pytest.param({"take_id": "storm.take-1", "rating": -1}, 422, id="minus"),
        pytest.param({"take_id": "storm.take-1", "rating": "5"}, 422, id="text"),
        pytest.param({"take_id": "storm.take-1", "rating": True}, 422, id="boolean"),
        pytest.param({"take_id": "storm.take-1", "note": "n" * 10_001}, 422, id="long-note"),
        pytest.param({"take_id": "storm.take-1", "note": "\ud83d"}, 422, id="half-a-character"),
        pytest.param({"take_id": "storm.take-1", "rating": 1, "\udc00": 1}, 422, id="half-a-name"),
        pytest.param({"take_id": "storm.take-1", "rating": 1, "prompt": "p"}, 422, id="unknown-field"),
        pytest.param([], 422, id="a-list"),
        pytest.param(None, 422, id="null"),
    ],
)
def test_a_choice_that_makes_no_sense_changes_nothing(room: Reviewed, body: Any, status: int) -> None:
    before = room.read_files()
    content = json.dumps(body).encode()
    headers = {
        "Origin": room.visitor.origin,
        "X-Action-Token": room.visitor.take_action_token(),
        "Content-Type": "application/json",
    }
    refused = room.visitor.http.post("/runs/r1/choices", content=content, headers=headers)
    assert (refused.status_code, bool(refused.json()["detail"])) == (status, True)
    assert room.read_files() == before


def test_a_take_that_was_not_delivered_cannot_be_chosen_but_noted(room: Reviewed) -> None:
    manifest = json.loads((room.folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["clips"][0] |= {"status": "failed", "video_path": None, "error": None}
    (room.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    refused = room.visitor.send("/runs/r1/choices", CHOICE)
    assert (refused.status_code, "was not delivered" in refused.text) == (422, True)
    room.visitor.act("/runs/r1/choices", {"take_id": "storm.take-1", "note": "pity"})
    assert room.manifest["storm.take-1"]["note"] == "pity"


# -- who may act ------------------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[str, dict[str, str | None], int]] = {
    "no-token": ("stranger", {"X-Action-Token": "x"}, 401),
    "wrong-bearer": ("stranger", {"X-Action-Token": "x", "Authorization": "Bearer wrong"}, 401),
    "watch-only": ("watcher", {"X-Action-Token": "x"}, 403),
    "foreign-origin": ("visitor", {"Origin": "http://evil.example"}, 403),
    "foreign-port": ("visitor", {"Origin": "http://127.0.0.1:1"}, 403),
    "origin-with-ours-in-it": ("visitor", {"Origin": "http://evil.example/http://127.0.0.1"}, 403),
    "origin-null": ("visitor", {"Origin": "null"}, 403),
    "no-origin": ("visitor", {"Origin": None}, 403),
    "broken-origin": ("visitor", {"Origin": "http://[::1"}, 403),
    "cross-site": ("visitor", {"Sec-Fetch-Site": "cross-site"}, 403),
    "same-site": ("visitor", {"Sec-Fetch-Site": "same-site"}, 403),
    "typed-address": ("visitor", {"Sec-Fetch-Site": "none"}, 403),
    "no-action-token": ("visitor", {"X-Action-Token": None}, 403),
    "empty-action-token": ("visitor", {"X-Action-Token": ""}, 403),
    "made-up-action-token": ("visitor", {"X-Action-Token": "made-up"}, 403),
}


def test_an_action_that_the_person_did_not_ask_for_is_refused(room: Reviewed, controller: FakeController) -> None:
    """By every route that acts, with a reason. Nothing is written, started or sent."""
    room.shown.begin("r2", "storm.take-1")
    before = room.read_files()
    for name, (who, headers, status) in REFUSALS.items():
        for path, body in ACTIONS.items():
            refused = getattr(room, who).send(f"/runs/r2/{path}", body, **headers)
            assert (refused.status_code, len(refused.text) > 10) == (status, True), (name, path)
    assert (room.read_files(), read_started_runs(room), controller.commands) == (before, [], [])


def test_an_action_token_is_good_for_one_action(room: Reviewed) -> None:
    token = room.visitor.take_action_token()
    headers = {"X-Action-Token": token}
    assert room.visitor.send("/runs/r1/choices", CHOICE, **headers).status_code == 200
    before = room.read_files()
    replayed = room.visitor.send("/runs/r1/choices", {**CHOICE, "take_id": "storm.take-2"}, **headers)
    assert (replayed.status_code, "used" in replayed.json()["detail"]) == (403, True)
    assert room.read_files() == before


def test_an_action_token_lasts_an_hour_and_there_are_not_too_many() -> None:
    now = 0.0
    tokens = OneTimeTokens[str](now=lambda: now)
    first, late = tokens.issue("first"), tokens.issue("late")
    assert (tokens.redeem(first), tokens.redeem(first), tokens.redeem("")) == ("first", None, None)
    now = 3601.0
    assert tokens.redeem(late) is None
    old = tokens.issue("old")
    for _ in range(1000):
        tokens.issue("new")
    assert tokens.redeem(old) is None


def test_an_action_that_is_too_long_is_not_read(room: Reviewed) -> None:
    body = {"take_id": "storm.take-1", "note": "n" * MAX_ACTION_BYTES}
    assert room.visitor.send("/runs/r1/choices", body).status_code == 422
    assert "choices.toml" not in room.read_files()


def test_a_form_of_another_kind_is_refused(room: Reviewed) -> None:
    """A form of another site can only send text that is not declared as JSON."""
    headers = {
        "Origin": room.visitor.origin,
        "X-Action-Token": room.visitor.take_action_token(),
        "Content-Type": "text/plain",
    }
    refused = room.visitor.http.post("/runs/r1/choices", content=json.dumps(CHOICE), headers=headers)
    assert refused.status_code == 422
    assert "choices.toml" not in room.read_files()


def test_a_watcher_looks_and_gets_no_means_to_act(room: Reviewed) -> None:
    view = room.watcher.get("/runs/r1/takes")
    assert (view["is_reviewer"], view["can_retake"], view["actions"]) == (False, False, [])
    assert room.watcher.http.get("/review").status_code == 200
    assert room.watcher.http.get("/review/token").status_code == 403
    assert room.stranger.http.get("/review").status_code == 401
    assert room.stranger.http.get("/review/token").status_code == 401


@pytest.mark.parametrize("path", ACTIONS)
def test_a_gateway_without_a_room_only_shows(tmp_path: Path, path: str) -> None:
    with watching(tmp_path / "out", token=TOKEN) as shown:
        deliver_film(shown)
        headers = {"Authorization": f"Bearer {TOKEN}", "Origin": str(shown.http.base_url).rstrip("/")}
        refused = shown.http.post(f"/runs/r1/{path}", json=ACTIONS[path], headers=headers)
        assert (refused.status_code, "--review" in refused.json()["detail"]) == (403, True)
        assert shown.get("/runs/r1", **headers)["has_review"] is False
        for address in ("/review", "/review.js", "/review/token", "/runs/r1/takes"):
            assert shown.http.get(address, headers=headers).status_code == 404
        assert not (shown.out / "film" / "choices.toml").exists()


def test_a_proxy_may_take_tls_away(room: Reviewed) -> None:
    """The origin is then https, and the host is passed on as the browser sent it."""
    headers = {"Host": "films.example", "Origin": "https://films.example"}
    assert room.visitor.send("/runs/r1/choices", CHOICE, **headers).status_code == 200
    headers = {"Host": "films.example:443", "Origin": "https://FILMS.example"}
    assert room.visitor.send("/runs/r1/choices", CHOICE, **headers).status_code == 200
    headers = {"Host": "films.example:8443", "Origin": "https://films.example"}
    assert room.visitor.send("/runs/r1/choices", CHOICE, **headers).status_code == 403


def test_the_room_is_described_and_has_the_same_policy(room: Reviewed) -> None:
    described = room.visitor.get("/openapi.json")["paths"]
    assert {f"/runs/{{run_id}}/{path}" for path in ("takes", *ACTIONS)} <= set(described)
    for address in ("/review", "/review.js", "/review.css"):
        policy = room.visitor.http.get(address).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


# -- retakes ----------------------------------------------------------------------------------------------------------


def test_a_price_is_told_and_changes_nothing(room: Reviewed) -> None:
    before = room.read_files()
    offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)
    assert (offer["take_id"], Decimal(offer["cost"]), offer["clips"]) == ("storm.take-3", Decimal("0.06"), 1)
    assert (offer["max_cost"], offer["provider"]) == ("1.00", "local")
    assert (room.read_files(), read_started_runs(room)) == (before, [])


def test_a_retake_is_described_and_started_once_however_often_it_is_confirmed(room: Reviewed) -> None:
    """A double click and a replay with a new action token: one run."""
    offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]

    def confirm(_number: int) -> int:
        return room.visitor.send("/runs/r1/retakes", {"offer": offer}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(confirm, range(4))) == [202, 409, 409, 409]
    assert confirm(0) == 409
    wait_until(lambda: len(read_started_runs(room)) == 1)
    assert read_started_runs(room) == [f"{room.job_file} --only=storm.take-3 --out={room.shown.out}"]
    text = (room.folder / "choices.toml").read_text(encoding="utf-8")
    assert '[storm.takes.3]\nprompt = "A heavier storm"\n' in text
    assert (room.folder / "logs" / "storm.take-3.log").exists()


def test_a_retake_keeps_how_its_model_take_differs_but_for_the_seed(room: Reviewed) -> None:
    """The prompt that is in the job file is not repeated."""
    described = {"3": {"model": "twin", "prompt": "A dark storm", "seed": 7}}
    settings = read_settings(VIDEOGEN_OUT=str(room.shown.out))
    Review.open(settings, "film").change_choices({"storm": {"takes": described}})
    manifest = json.loads((room.folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["clips"].append({**manifest["clips"][0], "scene_id": "storm.take-3", "take": 3, "clip_index": 4})
    (room.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert room.visitor.takes()["storm.take-3"]["own_prompt"] == "A dark storm"
    for body in ({"take_id": "storm.take-3", "seed": 9}, {"take_id": "storm.take-1", "prompt": "A storm"}):
        offer = room.visitor.act("/runs/r1/retakes/price", body)
        room.visitor.act("/runs/r1/retakes", {"offer": offer["offer"]})
        wait_until_run_has_ended(room, offer["take_id"])
    takes = tomllib.loads((room.folder / "choices.toml").read_text(encoding="utf-8"))["storm"]["takes"]
    assert (takes["4"], takes["5"]) == ({"model": "twin", "prompt": "A dark storm", "seed": 9}, {})


def test_an_offer_holds_for_what_it_was_made_for(room: Reviewed) -> None:
    """Another take that was added meanwhile, another price or another prompt needs another consent."""
    first, second = (room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"] for _ in range(2))
    room.visitor.act("/runs/r1/retakes", {"offer": first})
    wait_until_run_has_ended(room)
    refused = room.visitor.send("/runs/r1/retakes", {"offer": second})
    assert (refused.status_code, "storm.take-3 has been added" in refused.text) == (409, True)
    for change in ({"model": "twin"}, {"model": "heard"}):  # another clip for the same price, and another price
        offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]
        room.job_file.write_text(json.dumps({**FILM, **change}), encoding="utf-8")
        before = room.read_files()
        refused = room.visitor.send("/runs/r1/retakes", {"offer": offer})
        assert (refused.status_code, "has changed" in refused.text) == (409, True), change
        assert room.read_files() == before
        room.job_file.write_text(json.dumps(FILM), encoding="utf-8")
    assert len(read_started_runs(room)) == 1


def test_an_offer_is_good_for_its_own_job_alone(room: Reviewed) -> None:
    offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]
    (room.shown.out / "other").mkdir()
    room.shown.begin("o1", "a", job_id="other")
    room.shown.tell("o1", "run.completed", completed=1, verdict={"status": "complete"})
    assert room.visitor.send("/runs/o1/retakes", {"offer": offer}).status_code == 409
    assert read_started_runs(room) == []


def test_no_retake_is_made_while_a_run_of_the_job_is_in_progress(room: Reviewed) -> None:
    offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]
    room.shown.begin("r2", "storm.take-1")
    before = room.read_files()
    for path, body in (("retakes/price", RETAKE), ("retakes", {"offer": offer})):
        refused = room.visitor.send(f"/runs/r1/{path}", body)
        assert (refused.status_code, "r2 of film is in progress" in refused.text) == (409, True)
    assert (room.read_files(), read_started_runs(room)) == (before, [])


def test_a_retake_beyond_the_budget_is_refused_with_the_numbers(room: Reviewed) -> None:
    room.job_file.write_text(json.dumps({**FILM, "max_cost": "0.01"}), encoding="utf-8")
    before = room.read_files()
    refused = room.visitor.send("/runs/r1/retakes/price", RETAKE)
    assert (refused.status_code, "$0.01" in refused.json()["detail"]) == (422, True)
    assert room.read_files() == before


def test_without_the_job_file_there_are_no_retakes(tmp_path: Path) -> None:
    with reviewing(tmp_path, knows_job=False) as room:
        view = room.visitor.get("/runs/r1/takes")
        assert (view["can_retake"], view["retake_problem"]) == (False, None)
        refused = room.visitor.send("/runs/r1/retakes/price", RETAKE)
        assert (refused.status_code, "--review" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{}", "film.json"), (json.dumps({**FILM, "id": "other"}), "is the job other now"), (None, "film.json")],
    ids=["invalid", "another-job", "gone"],
)
def test_a_job_file_that_cannot_be_used_is_said(room: Reviewed, text: str | None, says: str) -> None:
    """Everything else goes on."""
    room.job_file.unlink()
    if text:
        room.job_file.write_text(text, encoding="utf-8")
    view = room.visitor.get("/runs/r1/takes")
    assert (view["can_retake"], says in view["retake_problem"]) == (False, True)
    assert room.visitor.send("/runs/r1/retakes/price", RETAKE).status_code == 422
    room.visitor.act("/runs/r1/choices", CHOICE)


def test_a_run_that_cannot_begin_is_said_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit('error: no disk')", encoding="utf-8")
    with reviewing(tmp_path, command=(sys.executable, str(tmp_path / "fails.py"))) as room:
        offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]
        assert room.visitor.act("/runs/r1/retakes", {"offer": offer})["state"] == "starting"
        wait_until_run_has_ended(room)
        state = room.visitor.get("/runs/r1/retakes/storm.take-3")
        assert (state["state"], state["said"]) == ("failed", "error: no disk")
        assert room.visitor.http.get("/runs/r1/retakes/storm.take-4").status_code == 404
        assert room.watcher.http.get("/runs/r1/retakes/storm.take-3").status_code == 404


@pytest.mark.long
def test_a_retake_is_made_by_a_real_run_and_paid_for_once(
    tmp_path: Path, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator keeps the books. The room finds the run of the take, and shows the clip."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    prompts = {"storm": "A storm", "calm": "A calm sea"}
    film = {
        **FILM,
        "takes": 1,
        "min_clips": 2,
        "scenes": [{**scene, "prompt": prompts[scene["id"]]} for scene in FILM["scenes"]],
    }
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as emulator:
        monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
        monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_test")
        run_id = shoot(tmp_path / "out", {scene["id"]: scene["prompt"] for scene in FILM["scenes"]}).run_id
        with reviewing(tmp_path, film=None) as room:
            room.job_file.write_text(json.dumps(film), encoding="utf-8")
            offer = room.visitor.act(f"/runs/{run_id}/retakes/price", {"take_id": "storm", "prompt": "A heavy storm"})
            assert (offer["take_id"], Decimal(offer["cost"])) == ("storm.take-2", Decimal("0.06"))
            assert Decimal(offer["spent_before"]) == Decimal("0.12")
            statuses = [
                room.visitor.send(f"/runs/{run_id}/retakes", {"offer": offer["offer"]}).status_code for _ in range(2)
            ]
            assert statuses == [202, 409]
            address = f"/runs/{run_id}/retakes/storm.take-2"
            wait_until(lambda: room.visitor.get(address)["state"] in ("ended", "failed"))
            state = room.visitor.get(address)
            log = (room.folder / "logs" / "storm.take-2.log").read_text(encoding="utf-8")
            assert state["state"] == "ended", log
            takes = room.visitor.takes(run_id)
            assert (takes["storm.take-2"]["chosen"], takes["storm.take-2"]["prompt"]) == (True, "A heavy storm")
            assert f"runs/{state['run_id']}/clips/" in takes["storm.take-2"]["video"]
            for take in takes.values():
                assert room.visitor.http.get(f"/{take['video']}").status_code == 200
        ledger = emulator.ledger()
        assert (ledger["creates"], Decimal(ledger["billed"])) == (3, Decimal("0.18"))


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_run_in_progress_takes_commands(room: Reviewed, controller: FakeController) -> None:
    room.shown.begin("r2", "storm.take-1", "storm.take-2")
    assert room.visitor.get("/runs/r1/takes")["actions"] == ["pause", "cancel", "retry", "cap"]
    room.shown.tell("r2", "run.paused", paused=True)
    assert room.visitor.get("/runs/r1/takes")["actions"] == ["resume", "cancel", "retry", "cap"]
    assert room.watcher.get("/runs/r1/takes")["actions"] == []
    sent: list[dict[str, Any]] = [
        {"action": "pause"},
        {"action": "resume"},
        {"action": "cancel", "scene_id": "storm.take-1"},
        {"action": "retry", "scene_id": "storm.take-1"},
        {"action": "cap", "value": "2.50"},
    ]
    assert [room.visitor.act("/runs/r2/commands", body) for body in sent] == [{"outcome": "accepted"}] * 5
    assert controller.commands == [
        ("r2", "pause", None, None),
        ("r2", "resume", None, None),
        ("r2", "cancel", "storm.take-1", None),
        ("r2", "retry", "storm.take-1", None),
        ("r2", "cap", None, Decimal("2.50")),
    ]


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "body",
    [
        {"action": "stop"},
        {"action": "cancel"},
        {"action": "cancel", "scene_id": "none"},
        {"action": "pause", "scene_id": "storm.take-1"},
        {"action": "cap"},
        {"action": "cap", "value": "-1"},
        {"action": "cap", "value": "1e9"},
        {"action": "cap", "value": "NaN"},
        {"action": "cap", "value": 5},
    ],
    ids=str,
)
def test_a_command_that_makes_no_sense_is_not_sent(
    room: Reviewed, controller: FakeController, body: dict[str, Any]
) -> None:
    room.shown.begin("r2", "storm.take-1")
    assert room.visitor.send("/runs/r2/commands", body).status_code == 422
    assert controller.commands == []


def test_the_outcome_of_a_command_is_told_as_it_is(room: Reviewed, controller: FakeController) -> None:
    room.shown.begin("r2", "storm.take-1")
    for outcome in ("the run is paused already", None):
        controller.outcome = outcome
        assert room.visitor.act("/runs/r2/commands", {"action": "pause"}) == {"outcome": outcome}
    controller.outcome = "refuse"
    assert room.visitor.send("/runs/r2/commands", {"action": "pause"}).status_code == 422


def test_a_run_that_has_ended_and_a_room_without_a_controller_take_no_commands(
    room: Reviewed, controller: FakeController, tmp_path: Path
) -> None:
    refused = room.visitor.send("/runs/r1/commands", {"action": "pause"})
    assert (refused.status_code, "has ended" in refused.text, controller.commands) == (409, True, [])
    (tmp_path / "second").mkdir()
    with reviewing(tmp_path / "second") as other:
        other.shown.begin("r2", "storm.take-1")
        assert other.visitor.get("/runs/r2/takes")["actions"] == []
        assert other.visitor.send("/runs/r2/commands", {"action": "pause"}).status_code == 409


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_makes_a_token_and_prints_the_address_with_it(tmp_path: Path) -> None:
    with gateway(tmp_path / "out", "--port", "0", "--review", prints_token=True) as (_, url):
        place, _, token = url.partition("/?token=")
        assert len(token) > 20
        with httpx.Client(base_url=place, trust_env=False) as http:
            assert http.get("/runs").status_code == 401
            assert http.get(f"/?token={token}").status_code == 200
            assert http.get("/review/token").status_code == 200


def test_two_commands_make_different_tokens(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        with gateway(tmp_path / "out", "--port", "0", "--review", prints_token=True) as (_, url):
            urls.append(url.partition("/?token=")[2])
    assert urls[0] != urls[1]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["{job}"], "only --review uses job files"),
        (["--review", "{folder}/none.toml"], "none.toml"),
        (["--review", "{job}", "{job}"], "are both the job film"),
    ],
    ids=["job-without-review", "no-such-file", "twice"],
)
def test_a_job_file_that_is_of_no_use_is_refused_at_once(
    tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.json").write_text(json.dumps(FILM), encoding="utf-8")
    given = [flag.format(job=tmp_path / "film.json", folder=tmp_path) for flag in flags]
    assert main(["gateway", "--port", "0", "--out", str(tmp_path / "out"), *given]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "watch_token", "says"),
    [("same", "same", "another token"), (None, "watch", "VIDEOGEN_GATEWAY_TOKEN, too")],
)
def test_a_watch_token_is_another_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str | None,
    watch_token: str,
    says: str,
) -> None:
    if token:
        monkeypatch.setenv("VIDEOGEN_GATEWAY_TOKEN", token)
    monkeypatch.setenv("VIDEOGEN_GATEWAY_WATCH_TOKEN", watch_token)
    assert main(["gateway", "--port", "0", "--out", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err


def test_the_secrets_of_the_gateway_are_not_given_to_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGEN_GATEWAY_TOKEN", "secret-of-the-gateway")
    monkeypatch.setenv("VIDEOGEN_GATEWAY_WATCH_TOKEN", "secret-of-watchers")
    (tmp_path / "tells.py").write_text("import os\nprint(dict(os.environ))", encoding="utf-8")
    with reviewing(tmp_path, command=(sys.executable, str(tmp_path / "tells.py"))) as room:
        offer = room.visitor.act("/runs/r1/retakes/price", RETAKE)["offer"]
        room.visitor.act("/runs/r1/retakes", {"offer": offer})
        wait_until_run_has_ended(room)
        log = (room.folder / "logs" / "storm.take-3.log").read_text(encoding="utf-8")
        assert ("VIDEOGEN_REGISTRY" in log, re.search("secret-of", log)) == (True, None)
