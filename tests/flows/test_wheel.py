import os
import re
import subprocess
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.flows.conftest import CommandLine
from videogen.errors import DISTRIBUTION, get_install_hint

JOB = """
[[scenes]]
id = "a"
prompt = "A lighthouse at dusk"
target_duration = 5
"""

OWN_FLOWS = {
    "__init__": "",
    "generate": """
import asyncio

from prefect import flow

from videogen.flows.generate import generate


@flow
async def make_film() -> None:
    state = await generate("film.toml", return_state=True)
    (clip,) = (await state.aresult()).clips
    print(f"{state.name}: {clip.video_path.partition('-')[0]}")


asyncio.run(make_film())
""",
}
"""A person's own package of flows, with the name of a module that version 0.1.0 had there."""

TYPED = "import videogen; from pathlib import Path; print(Path(videogen.__file__).with_name('py.typed').is_file())"


@pytest.mark.timeout(900)
@pytest.mark.long
def test_the_wheel_alone_runs_a_job(command: CommandLine) -> None:
    """Installed into an empty environment, in an empty folder: registry, schemas, flow and emulator are all in it."""
    folder, source = command.folder, Path(__file__).parents[2]
    python = folder / "env" / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(source)], folder)
    run(["uv", "venv", "--quiet", "--python", "3.11", str(folder / "env")], folder)
    run([*install, *map(str, (folder / "dist").glob("*.whl"))], folder)
    assert run([str(python), "-c", TYPED], folder) == "True\n"
    empty = folder / "empty"
    empty.mkdir()
    (empty / "film.toml").write_text(JOB)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REPLICATE_", "VIDEO"))}
    environment |= command.environment
    assert run([str(python.with_name("videogen")), "--version"], empty, environment) == "0.1.0\n"
    assert "all agree" in run([str(python.with_name("videogen")), "models", "check", "--offline"], empty, environment)
    done = run([str(python.with_name("videogen")), "run", "film.toml"], empty, environment)
    assert "complete: all 1 clips delivered" in done
    assert len(list((empty / "out" / "film" / "clips").glob("*.mp4"))) == 1
    again = run([str(python.with_name("videogen")), "run", "film.toml"], empty, environment)
    assert "all 1 clips were delivered before and are reused" in again
    assert not list(python.parent.parent.glob("lib/*/site-packages/flows"))
    (empty / "flows").mkdir()
    for name in ("__init__", "generate"):
        (empty / "flows" / f"{name}.py").write_text(OWN_FLOWS[name])
    assert run([str(python), "-m", "flows.generate"], empty, environment) == "Completed: clips/a\n"


def test_the_extras_belong_to_our_own_distribution() -> None:
    """Not to another company's package that is called `videogen` on PyPI."""
    ours = distribution(DISTRIBUTION)
    assert {entry.name for entry in ours.entry_points if entry.group == "console_scripts"} == {"videogen"}
    for extra in ("postgres", "s3"):
        assert f"pip install '{ours.name}[{extra}]'" in get_install_hint(extra)
        assert extra in ours.metadata.get_all("Provides-Extra", [])


def test_nothing_tells_to_install_another_companys_package() -> None:
    """Neither a page nor a message."""
    root = Path(__file__).parents[2]
    places = [root / "README.md", root / "CONTRIBUTING.md"]
    for folder in ("changelog.d", "deployments", "docs", "flows", "videogen"):
        places += [path for path in (root / folder).rglob("*") if path.suffix in (".md", ".py", ".toml", ".yaml", "")]
    said = [
        path
        for path in places
        if path.is_file() and re.search(r"videogen\[\w+\]|pip install '?videogen\b(?!-)", path.read_text())
    ]
    assert said == []


def run(arguments: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout
