"""The compose file, as Compose itself reads it; nothing is started."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "deployments" / "compose.yaml"


def compose() -> list[str]:
    """The command of either version of Compose; skips the test where there is none."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and _runs(command):
            return command
    pytest.skip("there is no Docker Compose here")


def config(**environment: str) -> "subprocess.CompletedProcess[str]":
    given = {"PATH": os.environ["PATH"], **environment}
    command = [*compose(), "--file", str(FILE), "config"]
    return subprocess.run(command, env=given, check=False, capture_output=True, text=True)


def test_compose_accepts_the_file() -> None:
    """With two workers; only this machine is let in."""
    done = config(POSTGRES_PASSWORD="secret", VIDEOGEN_GATEWAY_TOKEN="token")
    assert done.returncode == 0, done.stderr
    assert "replicas: 2" in done.stdout
    assert "@postgres/videogen" in done.stdout


@pytest.mark.parametrize("missing", ["POSTGRES_PASSWORD", "VIDEOGEN_GATEWAY_TOKEN"])
def test_compose_asks_for_each_secret(missing: str) -> None:
    """None has a default."""
    given = {"POSTGRES_PASSWORD": "secret", "VIDEOGEN_GATEWAY_TOKEN": "token"}
    done = config(**{name: value for name, value in given.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr


def _runs(command: list[str]) -> bool:
    return subprocess.run([*command, "version"], check=False, capture_output=True).returncode == 0
