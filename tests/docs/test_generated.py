"""What is generated from the types is fresh, and holds what it is for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.generate_docs import ROOT, make_files
from videogen.settings import get_variable_names

SHIPPED = ["models.toml", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.toml"))]
TOMBI = str(Path(sys.executable).with_name("tombi"))


@pytest.mark.parametrize("path", make_files(), ids=lambda path: path.name)
def test_what_is_generated_is_fresh(path: Path) -> None:
    """Else: `just generate`."""
    assert path.read_text(encoding="utf-8") == make_files()[path]


def test_the_page_has_every_variable_once() -> None:
    """One table, which is the type's."""
    rows = [line for line in (ROOT / "docs" / "environment.md").read_text().splitlines() if line.startswith("| `")]
    names = get_variable_names().values()
    assert [sum(line.startswith(f"| `{name}` |") for line in rows) for name in names] == [1] * len(names)


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    """All shipped TOML in that folder, by the schemas that the files name, as an editor would."""
    return subprocess.run(
        [TOMBI, "lint", "--offline", *SHIPPED], cwd=folder, capture_output=True, text=True, timeout=250, check=False
    )


def test_all_shipped_toml_names_its_schema_and_follows_it() -> None:
    """Editors complete and underline by it."""
    done = lint(ROOT)
    assert (done.returncode, (ROOT / SHIPPED[0]).read_text().startswith("#:schema ./schemas/")) == (0, True)
    assert all((ROOT / name).read_text().startswith("#:schema ../schemas/") for name in SHIPPED[1:])


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        pytest.param("models.toml", "typical_run_s", "typical_runs_s", "is not allowed", id="unknown-field"),
        pytest.param("models.toml", '"exact"', '"exat"', "must be one of", id="value-not-in-list"),
        pytest.param("models.toml", '"4:3" =', '"4x3" =', "must match the pattern", id="no-ratio"),
        pytest.param("models.toml", "[5, 10]", '[5, "x"]', "expected a value of type", id="no-length"),
        pytest.param("examples/lighthouse.toml", "prompt =", "promt =", '"prompt" is required', id="missing-field"),
        pytest.param("examples/lighthouse.toml", "duration = 5", "duration = -5", "must be > 0", id="out-of-range"),
    ],
)
def test_a_broken_copy_is_underlined(name: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    """The schema says what the type says."""
    for each in (*SHIPPED, "schemas/job.schema.json", "schemas/models.schema.json"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / each, tmp_path / each)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    done = lint(tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr, name in done.stdout + done.stderr) == (1, True, True)


def test_an_own_registry_may_change_single_values(tmp_path: Path) -> None:
    """What the shipped registry says already is not asked for again."""
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    own = tmp_path / "mine.toml"
    own.write_text('#:schema ./schemas/models.schema.json\n\n[models."veo-3.1".price]\nper_second = "0.15"\n')
    done = subprocess.run([TOMBI, "lint", "--offline", str(own)], cwd=tmp_path, timeout=250, check=False)
    assert done.returncode == 0
