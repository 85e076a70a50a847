"""docs/deploy.md, step by step, on a real Prefect server and a stand-in for Docker."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import wait_until
from tests.support.docker_daemon import DockerDaemon, docker_daemon
from tests.support.pages import ROOT, find_consoles, make_environment, run_console, write_files
from tests.support.prefect_api import call_prefect, find_deployment, find_runs
from tests.support.servers import KEY_ID, SECRET, database
from tests.support.tokens import TOKEN
from tests.support.tools import find_tool
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.errors import DISTRIBUTION

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("deployed-runs"),
]

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SERVE, TRIGGER, PREPARE, DOCKER, KUBERNETES = find_consoles(PAGE)
IMAGE = f"registry.example/films/videogen:{version(DISTRIBUTION)}"


# --- one Python file


@contextmanager
def serve(folder: Path, api: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `serve.py` until the end of the block, and go on when its deployment is on the server."""
    write_files(PAGE, folder)
    environment = make_environment(folder, api, programs=Path(sys.executable).parent)
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    ((command, _),) = SERVE
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "polling for scheduled runs" in read_log(folder), lambda: read_log(folder))
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_log(folder: Path) -> str:
    return (folder / "serve.log").read_text(encoding="utf-8")


def test_one_file_serves_the_flow_with_its_schedule(tmp_path: Path, prefect_api: str) -> None:
    """Clips are beside the file. Ctrl-C pauses the schedule, until the file runs again."""
    with serve(tmp_path, prefect_api) as process:
        deployment = find_deployment(prefect_api, "nightly")
        assert deployment
        assert (deployment["version"], deployment["tags"], deployment["paused"]) == (
            version(DISTRIBUTION),
            ["films"],
            False,
        )
        (schedule,) = deployment["schedules"]
        assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 2 * * *", True)
        run_console(TRIGGER, tmp_path, make_environment(tmp_path, prefect_api, programs=Path(sys.executable).parent))
        assert len(list((tmp_path / "out" / "film" / "clips").glob("harbour-*.mp4"))) == 1
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(250) == 0
        deployment = find_deployment(prefect_api, "nightly")
        assert deployment
        assert deployment["paused"]
    with serve(tmp_path, prefect_api):
        deployment = find_deployment(prefect_api, "nightly")
        assert deployment
        assert not deployment["paused"]


@pytest.mark.parametrize(
    ("stop", "prediction", "state"),
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), "canceled", "CRASHED", id="ctrl-c"),
        pytest.param(lambda pid: os.killpg(pid, signal.SIGTERM), "canceled", "CANCELLED", id="service-manager"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), "succeeded", "COMPLETED", id="kill"),
    ],
)
def test_what_stops_the_file_in_mid_run(
    tmp_path: Path, prefect_api: str, stop: Any, prediction: str, state: str
) -> None:
    """What reaches all of its processes cancels the predictions; what reaches only itself waits for its runs."""
    with run_emulator(EmulatorSettings(latency_s=(8.0, 8.0))) as emulator:
        token = {"REPLICATE_API_TOKEN": TOKEN, "REPLICATE_BASE_URL": emulator.url}
        with serve(tmp_path, prefect_api, **token) as process:
            deployment = find_deployment(prefect_api, "nightly")
            assert deployment
            run = call_prefect("POST", f"{prefect_api}/deployments/{deployment['id']}/create_flow_run", {})
            wait_until(lambda: emulator.ledger()["running"] == 1, lambda: read_log(tmp_path))
            stop(process.pid)
            assert process.wait(250) == 0
        assert [each["status"] for each in emulator.ledger()["predictions"]] == [prediction]
    assert call_prefect("GET", f"{prefect_api}/flow_runs/{run['id']}")["state_type"] == state


# --- an image


@dataclass
class Checkout:
    """A checkout of videogen with the files of the page, and what its containers reach."""

    folder: Path
    environment: dict[str, str]
    api: str
    emulator: Emulator
    journal: str

    def run(self, console: list[tuple[str, str]], **variables: str) -> None:
        answers = f"{TOKEN}\n{self.journal}\n{SECRET}\n"
        run_console(console, self.folder, self.environment | variables, answers=answers)


@pytest.fixture(scope="module")
def checkout(
    tmp_path_factory: pytest.TempPathFactory, prefect_api: str, postgresql: str, s3: str
) -> Iterator[Checkout]:
    """After the preparations: the packages are installed, the secrets are saved, and the limit exists."""
    home = tmp_path_factory.mktemp("deploy")
    folder = home / "checkout"
    others = shutil.ignore_patterns(".*", "out", "tests", "__pycache__", "mutants", "uv.lock")
    shutil.copytree(ROOT, folder, ignore=others)
    shutil.copy(ROOT / ".dockerignore", folder)
    write_files(PAGE, folder)
    (folder / ".env").write_text("PASSWORD=of the person who deploys\n")
    environment = make_environment(home, prefect_api, programs=folder / ".venv" / "bin")
    find_tool("uv", package="uv")
    cache = subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    environment |= {"UV_CACHE_DIR": cache, "UV_PYTHON": sys.executable}
    journal = database(postgresql, "postgresql+psycopg")
    open_s3(s3).create_bucket(Bucket="films")
    with run_emulator(EmulatorSettings(latency_s=(0.2, 0.2))) as emulator:
        checkout = Checkout(folder, environment, prefect_api, emulator, journal)
        checkout.run(PREPARE, JOURNAL=journal)
        yield checkout


def open_s3(s3: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
    return boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **keys)


def list_bucket(s3: str) -> list[str]:
    return [found["Key"] for found in open_s3(s3).list_objects_v2(Bucket="films")["Contents"]]


@pytest.fixture(scope="module")
def docker(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory, s3: str) -> Iterator[DockerDaemon]:
    """A daemon that has built the image and run it once.

    Its containers find the emulator where Replicate is, and the tests' S3 server where AWS is.
    """
    elsewhere = {"REPLICATE_BASE_URL": checkout.emulator.url, "AWS_ENDPOINT_URL": s3}
    with docker_daemon(tmp_path_factory.mktemp("docker"), elsewhere) as daemon:
        checkout.environment["DOCKER_HOST"] = daemon.url
        checkout.run(DOCKER)
        yield daemon


def test_a_run_in_docker_makes_its_clips(checkout: Checkout, docker: DockerDaemon, s3: str) -> None:
    """Build, push, deploy, run. Clips are in the bucket, the journal is in PostgreSQL, and nobody can read a secret."""
    assert (docker.tags[0], docker.pushed[0]) == (IMAGE, IMAGE)
    deployment = find_deployment(checkout.api, "in-docker")
    assert deployment
    assert deployment["job_variables"] == {
        "image": IMAGE,
        "image_pull_policy": "Always",
        "auto_remove": True,
        "mem_limit": "1g",
        "env": {
            "VIDEOGEN_OUT": "s3://films",
            "VIDEOGEN_TOKEN_BLOCK": "replicate-token",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "videogen",
        },
    }
    run = find_runs(checkout.api, deployment["id"])[0]
    assert run["state"]["name"] == "Completed", docker.containers[0].log.read_text(encoding="utf-8")
    clips = [key for key in list_bucket(s3) if key.startswith("lighthouse/clips/") and key.endswith(".mp4")]
    assert len(clips) == 8
    readable = json.dumps([deployment, call_prefect("GET", f"{checkout.api}/work_pools/films-docker"), run])
    assert not any(secret in readable for secret in (TOKEN, SECRET, checkout.journal))


def test_a_container_gets_what_the_page_says(checkout: Checkout, docker: DockerDaemon) -> None:
    """As the Docker daemon is asked for it. The token is not in it: the run itself reads it from its block."""
    container = docker.containers[0]
    asked, given = container.asked, container.environment
    assert (asked["Image"], asked["Cmd"]) == (IMAGE, ["prefect", "flow-run", "execute"])
    assert (asked["HostConfig"]["AutoRemove"], asked["HostConfig"]["Memory"]) == (True, 1 << 30)
    of_run = {name for name in given if name.startswith("PREFECT__")}
    assert {name: value for name, value in given.items() if name not in of_run} == {
        "PREFECT_API_URL": checkout.api,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "videogen",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "True",  # of Prefect's default profile
        "VIDEOGEN_JOURNAL_URL": checkout.journal,
        "VIDEOGEN_OUT": "s3://films",
        "VIDEOGEN_TOKEN_BLOCK": "replicate-token",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


def test_the_image_has_nothing_of_the_machine_that_builds_it(docker: DockerDaemon) -> None:
    """No `.venv` and no `.env` of the checkout."""
    names = {path.name for path in (docker.image.folder / "context").iterdir()}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    listed = {line.removeprefix("!").partition("/")[0] for line in lines if line.startswith("!")}
    assert names - {".dockerignore"} == listed


def test_a_stopped_container_cancels_its_predictions_and_its_run_comes_again(
    checkout: Checkout, docker: DockerDaemon
) -> None:
    """By SIGTERM, as `docker stop` and the eviction of a pod send it. The next worker makes the clip."""
    deployment = find_deployment(checkout.api, "in-docker")
    assert deployment
    job = {"id": "stopped", "scenes": [{"id": "a", "prompt": "A storm", "target_duration": 5}]}
    body = {"parameters": {"job": job}}
    run = call_prefect("POST", f"{checkout.api}/deployments/{deployment['id']}/create_flow_run", body)["id"]
    worker = DOCKER[-1:]
    with run_emulator(EmulatorSettings(latency_s=(240.0, 240.0))) as slow, ThreadPoolExecutor(1) as background:
        docker.network["REPLICATE_BASE_URL"] = slow.url
        working = background.submit(checkout.run, worker)
        wait_until(lambda: slow.ledger()["running"] == 1)
        process = docker.containers[-1].process
        assert process
        process.send_signal(signal.SIGTERM)
        working.result()
        assert [each["status"] for each in slow.ledger()["predictions"]] == ["canceled"]
    assert call_prefect("GET", f"{checkout.api}/flow_runs/{run}")["state"]["name"] == "AwaitingRetry"
    docker.network["REPLICATE_BASE_URL"] = checkout.emulator.url
    checkout.emulator.reset()
    checkout.run(worker)
    state = call_prefect("GET", f"{checkout.api}/flow_runs/{run}")["state"]["name"]
    assert state == "Completed", docker.containers[-1].log.read_text(encoding="utf-8")
    assert checkout.emulator.ledger()["creates"] == 1


RENDER = """
import asyncio, json, sys
from uuid import UUID
from prefect.client.orchestration import get_client
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

async def render():
    async with get_client() as client:
        deployment = await client.read_deployment_by_name("videogen/in-kubernetes")
        run = await client.create_flow_run_from_deployment(deployment.id)
        pool = await client.read_work_pool("films-kubernetes")
        job = await KubernetesWorkerJobConfiguration.from_template_and_values(
            pool.base_job_template, deployment.job_variables, client=client
        )
        job.prepare_for_flow_run(run, deployment, await client.read_flow(run.flow_id), pool, "worker")
        await client.delete_flow_run(run.id)
    print(json.dumps(job.job_manifest))

asyncio.run(render())
"""


def test_a_job_in_kubernetes_is_what_the_page_says(checkout: Checkout, docker: DockerDaemon) -> None:
    """The manifest that Prefect's worker would create: with the secret by its name only."""
    checkout.run(KUBERNETES)
    done = subprocess.run(
        ["python", "-W", "ignore", "-c", RENDER],
        env=checkout.environment,
        cwd=checkout.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    manifest = json.loads(done.stdout)
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    assert (spec["ttlSecondsAfterFinished"], spec["backoffLimit"]) == (3600, 0)
    assert pod["terminationGracePeriodSeconds"] == 60
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container.pop("env")}
    assert {name: value for name, value in environment.items() if not name.startswith("PREFECT__")} == {
        "PREFECT_API_URL": checkout.api,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "videogen",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "True",  # of Prefect's default profile
        "VIDEOGEN_OUT": "s3://films",
        "VIDEOGEN_TOKEN_BLOCK": "replicate-token",
    }
    secret = yaml.safe_load((checkout.folder / "secret.yaml").read_text(encoding="utf-8"))
    assert container == {
        "name": "prefect-job",
        "image": IMAGE,
        "imagePullPolicy": "Always",
        "args": ["prefect", "flow-run", "execute"],
        "envFrom": [{"secretRef": {"name": secret["metadata"]["name"]}}],
        "resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "1Gi"}},
    }


@pytest.mark.parametrize(
    ("name", "value"), [("finished_job_ttl", "soon"), ("image_pull_policy", "Sometimes"), ("memory_limit", 1)]
)
def test_a_wrong_value_is_refused_when_you_deploy(
    checkout: Checkout, docker: DockerDaemon, name: str, value: Any
) -> None:
    """By Prefect's server, against the schema of the work pool; the deployment stays as it is."""
    file = checkout.folder / "wrong.yaml"
    text = (checkout.folder / "containers.yaml").read_text(encoding="utf-8")
    wrong = yaml.safe_load(text)
    wrong["deployments"][1]["work_pool"]["job_variables"][name] = value
    file.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    command = "env -u VIDEOGEN_HOME prefect --no-prompt deploy --name in-kubernetes --prefect-file wrong.yaml"
    done = subprocess.run(
        ["bash", "-c", command],
        env=checkout.environment,
        cwd=checkout.folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.search(rf"{value}\W* is not (valid|one of)", done.stderr), done.stderr
