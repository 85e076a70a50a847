"""All parts of a deployment on this machine: PostgreSQL, Prefect's server, workers, the emulator."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.support.servers import database, free_port, postgresql_server, prefect_server
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.journal.store import Journal

ROOT = Path(__file__).parents[2]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
RUNS_AT_ONCE = 2
"""Of a worker, so that three runs are on two of them."""
PASSWORD = "videogen:open sesame"
"""Of Prefect's server."""


@dataclass
class Stage:
    """What deployments need, in one folder. Workers come and go."""

    folder: Path
    stack: ExitStack
    emulator: Emulator
    port: int = field(default_factory=free_port)
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ui: bool = False
    """Whether Prefect's server has its pages."""

    def start(self, address: str) -> None:
        """Starts Prefect's server on that PostgreSQL, and sets up pool, deployments, automations and limit."""
        self._prefect_database = database(address, "postgresql+asyncpg")
        self.start_server()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("REPLICATE_", "VIDEO", "PREFECT_"))}
        self.environment = {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": PASSWORD,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "REPLICATE_API_TOKEN": TOKEN,
            "REPLICATE_BASE_URL": self.emulator.url,
            "VIDEOGEN_HOME": str(self.folder),
            "VIDEOGEN_JOURNAL_URL": database(address, "postgresql+psycopg"),
            "VIDEOGEN_REGISTRY": str(ROOT / "tests" / "faults" / "models.toml"),
        }
        self.set_up()

    def set_up(self, *slots: str) -> None:
        """What a person does before the first run, and after each upgrade."""
        done = subprocess.run(
            [ROOT / "deployments" / "set-up", *slots], env=self.environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def set_up_things(self) -> list[str]:
        """The names of all deployments and automations on the server."""
        found = [*self._post("deployments/filter", {}), *self._post("automations/filter", {})]
        return sorted(each["name"] for each in found)

    def limit(self) -> int:
        """How many slots all runs share."""
        with closing(Journal(self.environment["VIDEOGEN_JOURNAL_URL"])) as journal:
            limit = journal.find_limit("replicate")
        assert limit
        return limit.slots

    def start_server(self) -> None:
        settings = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self._prefect_database,
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
            "PREFECT_SERVER_DATABASE_TIMEOUT": "120",  # queries are slow on a busy machine, and then answered by 500
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "120",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{self.port}",
        }
        if self.ui:
            settings["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{self.port}/api"
        self.api, self._server = self.stack.enter_context(prefect_server(self.folder, self.port, **settings))

    def kill_server(self) -> None:
        self._server.kill()
        self._server.wait()

    def start_worker(self, name: str, *, bounded: bool = True) -> None:
        """`bounded`: it takes a few runs at once, and leaves others to other workers; Prefect's worker then ends with
        an error when it is given a run again that it still has."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "videogen", "--name", name]
        if bounded:
            command += ["--limit", str(RUNS_AT_ONCE)]
        self._start_worker(name, command)

    def start_container(self, name: str) -> None:
        """Start a worker in a container as in `deployments/compose.yaml`: it ends with its first process."""
        namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        namespace += ["--map-root-user"] if os.geteuid() else []
        self._start_worker(name, [*namespace, str(ROOT / "deployments" / "worker")])

    def stop_container(self, name: str) -> None:
        """Send SIGTERM to the first process of a container, and wait until the container has ended."""
        worker = self.workers.pop(name)
        os.kill(_children(worker.pid)[0], signal.SIGTERM)
        worker.wait()

    def _start_worker(self, name: str, command: list[str]) -> None:
        with (self.folder / f"worker-{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        self.stack.callback(self.kill_worker, name)

    def kill_worker(self, name: str) -> None:
        """SIGKILL to the worker and to the flow runs it has started, as when its machine is gone."""
        worker = self.workers.pop(name, None)
        if worker is None:
            return
        children = _children(worker.pid)
        for pid in (worker.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()

    def worker_of(self, flow_run: str) -> str:
        """The name of the worker that runs it."""
        if workers := self.workers_of(flow_run):
            return workers[0]
        raise AssertionError(f"no worker runs it: {self.states(flow_run)}")

    def workers_of(self, flow_run: str) -> list[str]:
        """The names of the workers that have a process of it."""
        mark, found = f"={flow_run}".encode(), []
        for name, worker in self.workers.items():
            for pid in _children(worker.pid):
                with suppress(OSError):
                    if mark in Path(f"/proc/{pid}/environ").read_bytes():
                        found.append(name)
        return found

    def schedule(
        self, job: dict[str, Any] | str, *, deployment: str = "generate", in_s: float = 1.0, **parameters: Any
    ) -> str:
        """Has a deployment run the job, as its schedule would. Returns the id of the flow run."""
        deployment_id = self._get(f"deployments/name/videogen/{deployment}")["id"]
        return self.run_deployment(deployment_id, in_s=in_s, job=job, **parameters)

    def run_deployment(self, deployment_id: str, *, in_s: float = 1.0, **parameters: Any) -> str:
        """Schedule a flow run of any deployment, and return its id."""
        at = (datetime.now(UTC) + timedelta(seconds=in_s)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
        body = {"parameters": parameters, "state": state}
        return str(self._post(f"deployments/{deployment_id}/create_flow_run", body)["id"])

    def create_deployment(self, flow: str, name: str, *, entrypoint: str) -> str:
        """Deploy a flow of a file in the stage's folder as `deployments/prefect.yaml` does, and return its id."""
        like = self._get("deployments/name/videogen/generate")
        fields = {
            "name": name,
            "flow_id": self._post("flows/", {"name": flow})["id"],
            "entrypoint": entrypoint,
            "pull_steps": like["pull_steps"],
            "work_pool_name": "videogen",
            "job_variables": like["job_variables"],
        }
        return str(self._post("deployments/", fields)["id"])

    def find_subflows(self, flow_run: str) -> list[str]:
        """Return the ids of the flow runs that a flow run has called, the earliest first."""
        body = {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run]}}, "sort": "START_TIME_ASC"}
        return [str(run["id"]) for run in self._post("flow_runs/filter", body)]

    def find_run(self, job_id: str) -> str:
        """Return the id of the flow run that has this job as its parameter."""
        runs = self._post("flow_runs/filter", {"sort": "START_TIME_DESC"})
        return next(str(run["id"]) for run in runs if run["parameters"].get("job", {}).get("id") == job_id)

    def add_schedule(self, job: dict[str, Any], *, cron: str) -> str:
        """Has the deployment `generate` make the job anew, again and again. Returns the id of the schedule."""
        schedule = {
            "active": True,
            "schedule": {"cron": cron, "timezone": "UTC"},
            "parameters": {"job": job, "options": {"fresh": True}},
        }
        deployment_id = self._get("deployments/name/videogen/generate")["id"]
        (added,) = self._post(f"deployments/{deployment_id}/schedules", [schedule])
        return str(added["id"])

    def remove_schedule(self, schedule: str) -> None:
        deployment_id = self._get("deployments/name/videogen/generate")["id"]
        self._call("DELETE", f"deployments/{deployment_id}/schedules/{schedule}")

    def begun_runs_of(self, job_id: str) -> list[dict[str, Any]]:
        """The flow runs of a job that have begun, in the order in which they were due."""
        query = {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}}}
        runs = self._post("flow_runs/filter", query)
        return [run for run in runs if run["parameters"].get("job", {}).get("id") == job_id]

    def wait_for_runs(self, job_id: str, number: int, *, within_s: float = 600) -> list[dict[str, Any]]:
        """The first runs of a schedule, once so many have begun."""
        deadline = time.monotonic() + within_s
        while len(runs := self.begun_runs_of(job_id)) < number:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(1)
        return runs

    def pause(self, flow_run: str, name: str) -> None:
        """As the page does: `Suspended` leaves its process, `Paused` keeps it."""
        timeout = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        details = {"pause_timeout": timeout, "pause_reschedule": name == "Suspended"}
        state = {"type": "PAUSED", "name": name, "state_details": details}
        assert self._post(f"flow_runs/{flow_run}/set_state", {"state": state})["status"] == "ACCEPT"

    def cancel(self, flow_run: str) -> None:
        """As the page does, and `prefect flow-run cancel`."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        assert self._post(f"flow_runs/{flow_run}/set_state", {"state": state})["status"] == "ACCEPT"

    def verdict(self, flow_run: str) -> str | None:
        """Of its run in the journal, by the label that it has."""
        run_id = self._get(f"flow_runs/{flow_run}")["labels"]["videogen.run"]
        with closing(Journal(self.environment["VIDEOGEN_JOURNAL_URL"], read_only=True)) as journal:
            run = journal.find_run(run_id)
        assert run
        return run.verdict

    def state(self, flow_run: str) -> dict[str, Any]:
        state: dict[str, Any] = self._get(f"flow_runs/{flow_run}")["state"]
        return state

    def states(self, flow_run: str) -> list[str]:
        """The names of all states that it was in."""
        return [state["name"] for state in self._get(f"flow_run_states/?flow_run_id={flow_run}")]

    def hand_over(self, flow_run: str) -> None:
        """What `flows.take_over` does with the run of a lost worker, without asking whether it is lost."""
        state = {"type": "SCHEDULED", "name": "TakenOver"}
        assert self._post(f"flow_runs/{flow_run}/set_state", {"state": state})["status"] == "ACCEPT"

    def wait_for_creates(self, count: int, *, job_id: str | None = None, within_s: float = 300) -> None:
        """Wait until so many predictions were created: of all jobs, or of one of `job_of`."""
        deadline = time.monotonic() + within_s
        while (self.emulator.ledger()["creates"] if job_id is None else len(self.predictions_of(job_id))) < count:
            assert time.monotonic() < deadline, f"never {count} creates: {self.logs()}"
            time.sleep(0.2)

    def predictions_of(self, job_id: str) -> list[dict[str, Any]]:
        """The predictions of a job of `job_of` in the emulator's ledger."""
        made = self.emulator.ledger()["predictions"]
        return [each for each in made if each["input"]["prompt"].startswith(f"{job_id}, ")]

    def wait_for_end(self, *flow_runs: str, within_s: float = 300) -> list[str]:
        """The names of their final states."""
        deadline = time.monotonic() + within_s
        while not all(self.state(each)["type"] in FINAL for each in flow_runs):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)
        return [self.state(each)["name"] for each in flow_runs]

    def wait_for_state(self, flow_run: str, name: str, *, within_s: float = 300) -> None:
        deadline = time.monotonic() + within_s
        while self.state(flow_run)["name"] != name:
            assert time.monotonic() < deadline, f"{self.states(flow_run)}: {self.logs()}"
            time.sleep(0.5)

    def refusal(self, flow_run: str, *, within_s: float) -> str:
        """Why it failed in between; waits until it did."""
        deadline = time.monotonic() + within_s
        while True:
            states = self._get(f"flow_run_states/?flow_run_id={flow_run}")
            if failed := [state for state in states if state["type"] == "FAILED"]:
                return str(failed[0]["message"])
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)

    def logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in self.folder.glob("worker-*.log"))

    def _get(self, path: str) -> Any:
        return self._call("GET", path)

    def _post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        with httpx.Client(trust_env=False, timeout=30, auth=httpx.BasicAuth(*PASSWORD.split(":", 1))) as client:
            answer = client.request(method, f"{self.api}/{path}", **request).raise_for_status()
        return answer.json() if answer.content else None


@contextmanager
def stage_in(folder: Path, films: Path, *, ui: bool = False, **emulator: Any) -> Iterator[Stage]:
    """A stage with everything but workers."""
    (folder / "pg").mkdir(parents=True)
    with ExitStack() as stack:
        address = stack.enter_context(postgresql_server(folder / "pg"))
        server = stack.enter_context(run_emulator(EmulatorSettings(cache=films, **emulator)))
        stage = Stage(folder, stack, server, ui=ui)
        stage.start(address)
        yield stage


def job_of(name: str, scenes: int) -> dict[str, Any]:
    """A job of clips of two seconds that are like no other job's."""
    return {
        "id": name,
        "model": "quick",
        "timeout_seconds": 600,
        "scenes": [
            {"id": f"s{number:03d}", "prompt": f"{name}, scene {number}", "target_duration": 2}
            for number in range(scenes)
        ],
    }


@dataclass(frozen=True)
class Use:
    """How the account was used, from its predictions in the emulator's ledger."""

    peak: int
    makespan_s: float
    busy_s: tuple[float, ...]
    """By number of predictions that were running: for how long."""
    working_s: float
    """From the first create to the last one."""
    busy_while_work_s: float
    """Seconds of all predictions together, up to the last create."""

    @classmethod
    def of(cls, predictions: Sequence[dict[str, Any]]) -> "Use":
        spans = [(_at(each["created_at"]), _at(each["completed_at"])) for each in predictions]
        changes = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
        busy, number, peak = [0.0] * (len(spans) + 1), 0, 0
        for (at, change), (until, _) in zip(changes, [*changes[1:], changes[-1]], strict=True):
            number += change
            peak = max(peak, number)
            busy[number] += until - at
        first, last = min(begin for begin, _ in spans), max(begin for begin, _ in spans)
        while_work = sum(min(end, last) - begin for begin, end in spans)
        return cls(peak, changes[-1][0] - first, tuple(busy), last - first, while_work)

    def share_at_least(self, number: int) -> float:
        """Of the time from the first create to the last end."""
        return sum(self.busy_s[number:]) / self.makespan_s

    def efficiency(self, slots: int) -> float:
        """The share of the slots that was busy, from the first create to the last: while there was a clip to begin."""
        return self.busy_while_work_s / slots / self.working_s

    @property
    def prediction_s(self) -> float:
        """Seconds of all predictions together."""
        return sum(number * seconds for number, seconds in enumerate(self.busy_s))


def _at(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()


def _children(pid: int) -> list[int]:
    """The processes that it has started, and those that they have."""
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], check=False, capture_output=True, text=True)
    own = [int(line) for line in done.stdout.split()]
    return [*own, *(each for child in own for each in _children(child))]
