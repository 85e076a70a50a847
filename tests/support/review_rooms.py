"""A film with two takes of each scene, and a gateway in whose review room one can act on it."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.conftest import Shown, watching
from tests.support.builders import deliver, result_of, small_clip
from videogen.errors import InvalidError
from videogen.gateway.retakes import RUN_COMMAND, RetakeDesk
from videogen.gateway.review_room import ReviewRoom, RunAction, RunController
from videogen.job.choices import Choices
from videogen.job.model import Job
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import apply_choices
from videogen.settings import read_settings
from videogen.storage.local import FileStore

TOKEN, WATCH_TOKEN = "correct-horse", "battery-staple"
REGISTRY = Path(__file__).parents[1] / "faults" / "models.toml"
FILM: dict[str, Any] = {
    "id": "film",
    "model": "quick",
    "takes": 2,
    "min_clips": 1,
    "max_cost": "1.00",
    "scenes": [
        {"id": "storm", "prompt": "A storm", "target_duration": 2},
        {"id": "calm", "prompt": "A calm <b>sea</b>", "target_duration": 2},
    ],
}


@dataclass
class FakeController:
    """Keeps the commands that it is sent, and answers each as it is told."""

    outcome: str | None = "accepted"
    commands: list[tuple[Any, ...]] = field(default_factory=list)

    def send_command(
        self, run_id: str, action: RunAction, *, scene_id: str | None = None, value: Decimal | None = None
    ) -> int:
        if self.outcome == "refuse":
            raise InvalidError(f"run {run_id} has ended")
        self.commands.append((run_id, action, scene_id, value))
        return len(self.commands)

    def wait_for_outcome(self, command_id: int, timeout_s: float) -> str | None:
        return self.outcome


@dataclass
class Visitor:
    """A browser at the gateway, which sends the headers that browsers send."""

    shown: Shown
    http: httpx.Client

    @property
    def origin(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def get(self, address: str) -> Any:
        return self.http.get(address).raise_for_status().json()

    def take_action_token(self) -> str:
        return str(self.get("/review/token")["token"])

    def send(self, address: str, body: Any, **headers: str | None) -> httpx.Response:
        """Send an action as the page does, but for the headers that are given. None leaves a header out."""
        usual = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"}
        if "X-Action-Token" not in headers:
            usual["X-Action-Token"] = self.take_action_token()
        named = {name: value for name, value in {**usual, **headers}.items() if value is not None}
        return self.http.post(address, json=body, headers=named)

    def act(self, address: str, body: Any) -> Any:
        return self.send(address, body).raise_for_status().json()

    def takes(self, run_id: str = "r1") -> dict[str, dict[str, Any]]:
        view = self.get(f"/runs/{run_id}/takes")
        return {take["take_id"]: take for scene in view["scenes"] for take in scene["takes"]}


@dataclass
class Reviewed:
    """A gateway with a review room, a visitor who may act, one who may only watch, and one who has no token."""

    shown: Shown
    visitor: Visitor
    watcher: Visitor
    stranger: Visitor
    job_file: Path

    @property
    def folder(self) -> Path:
        return self.shown.out / "film"

    @property
    def manifest(self) -> dict[str, Any]:
        clips = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))["clips"]
        return {clip["scene_id"]: clip for clip in clips}

    def read_files(self) -> dict[str, bytes]:
        """Return the content of all files of the job."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


def deliver_film(shown: Shown, run_id: str = "r1", *, film: dict[str, Any] = FILM) -> RunResult:
    """Leave what a run of the film leaves: its clips, the manifest, and its events."""
    job, store = Job.model_validate(film), FileStore(shown.out / "film")
    clips = [_deliver_take(store, index, scene) for index, (scene, _) in enumerate(job.variants())]
    steps = {"cells_per_scene": job.variants_per_scene, "provider": "local", "run_id": run_id}
    batch = apply_choices(result_of(job, clips, **steps), Choices())
    shown.begin(run_id, *(clip.scene_id for clip in clips))
    for number, clip in enumerate(clips, 1):
        shown.tell(run_id, "clip.completed", completed=number, total=len(clips), **clip.model_dump(mode="json"))
    store.put_text(batch.manifest(), "manifest.json")
    verdict = batch.verdict.model_dump(mode="json")
    shown.tell(run_id, "run.completed", completed=len(clips), total=len(clips), verdict=verdict)
    shown.journal.end_run(run_id, verdict="complete")
    return batch


def _deliver_take(store: FileStore, index: int, scene: Any) -> Clip:
    alone = scene.model_copy(update={"take_of": None})
    changes = {"take_of": scene.take_of, "clip_index": index, "model": "quick", "prompt": scene.prompt}
    return deliver(store, alone, small_clip(2 + 0.5 * (scene.take - 1)), **changes)


@contextmanager
def reviewing(
    folder: Path,
    *,
    film: dict[str, Any] | None = FILM,
    controller: RunController | None = None,
    command: Sequence[str] = RUN_COMMAND,
    knows_job: bool = True,
) -> Iterator[Reviewed]:
    """Serve a folder with a review room, in which the film is delivered unless that is None."""
    job_file = folder / "film.json"
    job_file.write_text(json.dumps(film or FILM), encoding="utf-8")
    settings = read_settings(VIDEOGEN_OUT=str(folder / "out"), VIDEOGEN_REGISTRY=str(REGISTRY))
    desk = RetakeDesk([job_file] if knows_job else [], settings, command=command)
    room = ReviewRoom(settings, desk, controller)
    with watching(folder / "out", token=TOKEN, watch_token=WATCH_TOKEN, room=room) as shown:
        if film:
            deliver_film(shown, film=film)
        visitor, watcher, stranger = (_make_visitor(shown, token) for token in (TOKEN, WATCH_TOKEN, None))
        yield Reviewed(shown, visitor, watcher, stranger, job_file)
        for each in (visitor, watcher, stranger):
            each.http.close()


def _make_visitor(shown: Shown, token: str | None) -> Visitor:
    http = httpx.Client(base_url=shown.http.base_url, trust_env=False, timeout=60)
    if token:
        http.get(f"/?token={token}").raise_for_status()
    return Visitor(shown, http)


FAKE_RUN = """
import sys, time
from pathlib import Path
with Path(__file__).with_name('called.txt').open('a') as file:
    print(*sys.argv[1:], file=file)
until = time.monotonic() + 120
while Path(__file__).with_name('wait').exists() and time.monotonic() < until:
    time.sleep(0.05)
"""


def write_fake_run(folder: Path) -> tuple[str, ...]:
    """Return a command that writes down how it is called, in place of a run. It ends once there is no file `wait`."""
    script = folder / "fake_run.py"
    script.write_text(FAKE_RUN, encoding="utf-8")
    return sys.executable, str(script)


def read_started_runs(room: Reviewed) -> list[str]:
    """Return the calls of the fake run so far."""
    called = room.job_file.parent / "called.txt"
    return called.read_text(encoding="utf-8").splitlines() if called.exists() else []
