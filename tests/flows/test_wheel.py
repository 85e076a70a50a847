import os
import subprocess
from pathlib import Path

import pytest

from tests.flows.conftest import CommandLine

JOB = """
[[scenes]]
id = "a"
prompt = "A lighthouse at dusk"
target_duration = 5
"""


@pytest.mark.timeout(300)
def test_the_wheel_alone_runs_a_job(command: CommandLine) -> None:
    """Installed into an empty environment, in an empty folder: registry, schemas, flow and emulator are all in it."""
    folder, source = command.folder, Path(__file__).parents[2]
    python = folder / "env" / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(source)], folder)
    run(["uv", "venv", "--quiet", "--python", "3.11", str(folder / "env")], folder)
    run([*install, *map(str, (folder / "dist").glob("*.whl"))], folder)
    empty = folder / "empty"
    empty.mkdir()
    (empty / "film.toml").write_text(JOB)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "VIDEO"))}
    environment |= command.environment
    assert "all agree" in run([str(python.with_name("videogen")), "models", "check", "--offline"], empty, environment)
    done = run([str(python.with_name("videogen")), "run", "film.toml"], empty, environment)
    assert "complete: all 1 clips delivered" in done
    assert len(list((empty / "out" / "film" / "clips").glob("*.mp4"))) == 1


def run(arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
