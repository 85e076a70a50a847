"""The compose file, as Compose itself reads it; nothing is started."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import miss_tool

FILE = Path(__file__).parents[2] / "deployments" / "compose.yaml"
SECRETS = {
    "POSTGRES_PASSWORD": "secret",
    "PREFECT_API_AUTH_STRING": "videogen:password",
    "VIDEOGEN_GATEWAY_TOKEN": "token",
}


def compose() -> list[str]:
    """The command of either version of Compose."""
    commands = (["docker", "compose"], ["docker-compose"])
    found = next((command for command in commands if shutil.which(command[0]) and _runs(command)), None)
    return found or miss_tool("docker-compose", package="docker-compose")


def config(**environment: str) -> "subprocess.CompletedProcess[str]":
    given = {"PATH": os.environ["PATH"], **environment}
    command = [*compose(), "--file", str(FILE), "config"]
    return subprocess.run(command, env=given, check=False, capture_output=True, text=True)


def environments() -> dict[str, dict[str, str]]:
    """By service: its environment, as the file says it."""
    services: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    return {name: service.get("environment", {}) for name, service in services.items()}


def test_compose_accepts_the_file() -> None:
    """With two workers; only this machine is let in."""
    done = config(**SECRETS)
    assert done.returncode == 0, done.stderr
    assert "replicas: 2" in done.stdout
    assert "@postgres/videogen" in done.stdout


FIRST, *OTHERS = SECRETS


@pytest.mark.parametrize("missing", [FIRST, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)])
def test_compose_asks_for_each_secret(missing: str) -> None:
    """None has a default."""
    done = config(**{name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


@pytest.mark.parametrize(
    ("variable", "services"),
    [
        ("REPLICATE_API_TOKEN", {"worker"}),
        ("VIDEOGEN_GATEWAY_TOKEN", {"gateway"}),
        ("PREFECT_API_AUTH_STRING", {"set-up", "worker"}),
        ("PREFECT_SERVER_API_AUTH_STRING", {"prefect"}),
        ("VIDEOGEN_JOURNAL_URL", {"set-up", "worker", "gateway"}),
    ],
)
def test_a_secret_is_given_to_those_who_need_it_only(variable: str, services: set[str]) -> None:
    """What a service does not have cannot be read from it."""
    assert {name for name, environment in environments().items() if variable in environment} == services


def test_prefects_server_listens_to_its_own_page_only() -> None:
    """Otherwise any page in a browser on this machine could call it."""
    services = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    (port,) = services["prefect"]["ports"]
    origins = environments()["prefect"]["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert origins == f"http://{port.removesuffix(':4200')}"


def test_every_port_is_open_to_this_machine_only() -> None:
    """Others come through what a person puts in front of it."""
    services = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:8474:8474"]


def _runs(command: list[str]) -> bool:
    return subprocess.run([*command, "version"], check=False, capture_output=True).returncode == 0
