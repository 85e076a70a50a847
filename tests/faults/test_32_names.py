"""Names that would lead out of the job's folder, or be one file on some systems."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.faults.conftest import Stage, job_of, shot
from videogen.app import open_run, prepare_job
from videogen.cli.main import main
from videogen.job.model import Job
from videogen.storage.local import FileStore

JobFile = Callable[..., Path]


def scene(id_: str) -> dict[str, Any]:
    return {"id": id_, "prompt": "p", "target_duration": 2}


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("ids", "says"),
    [
        pytest.param(["../x"], "scenes.0.id: '../x' cannot name a file", id="up"),
        pytest.param(["a/b"], "scenes.0.id: 'a/b' cannot name a file", id="folder"),
        pytest.param(["/etc/x"], "scenes.0.id: '/etc/x' cannot name a file", id="absolute"),
        pytest.param(["a\\b"], r"scenes.0.id: 'a\\b' cannot name a file", id="backslash"),
        pytest.param(["ok", "CON"], "scenes.1.id: 'CON' cannot name a file: Windows reserves it", id="device"),
        pytest.param(["lpt9.mp4"], "scenes.0.id: 'lpt9.mp4' cannot name a file: Windows reserves it", id="device-mp4"),
        pytest.param(["Storm", "storm"], "scenes.1.id: 'storm' is the id of an earlier scene, too", id="case-twins"),
        pytest.param(["x" * 300], f"scenes.0.id: '{'x' * 40}' cannot name a file: use 1 to 80", id="300-characters"),
        pytest.param(["a\n"], r"scenes.0.id: 'a\n' cannot name a file", id="newline"),
    ],
)
def test_32_a_scene_that_cannot_name_a_file_is_refused_before_anything_is_done(
    ids: list[str], says: str, job_file: JobFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2, by its place in the file, and not even the folder for the clips is there."""
    path = job_file([scene(id_) for id_ in ids])
    monkeypatch.chdir(path.parent)
    assert main(["run", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"{path.name}:1:" in err
    assert says in err
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.long_variants
@pytest.mark.parametrize("name", ["../up", "a/b", "NUL", ".."])
def test_32_a_job_that_cannot_name_a_folder_is_refused(
    name: str, job_file: JobFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what the file says its id is."""
    path = job_file(json.dumps({"id": name, "scenes": [scene("a")]}))
    assert main(["run", str(path)]) == 2
    assert f"{path.name}:1:2: id: {name!r} cannot name a file" in capsys.readouterr().err


NAMES = st.one_of(
    st.text(max_size=90),
    st.text(st.sampled_from("aA.0_-/\\:~ \x00"), max_size=90),
    st.sampled_from(["..", "../..", ".git", "con.x", "a..b", "-rf", "a.", "x" * 80, "~", "C:a"]),
)


@given(job_id=NAMES, ids=st.lists(NAMES, min_size=1, max_size=3))
def test_32_whatever_a_job_is_called_it_writes_into_its_folder(
    tmp_path_factory: pytest.TempPathFactory, job_id: str, ids: list[str]
) -> None:
    """Either it is no job, or each of its files is one of its own below `out`, its scratch too."""
    try:
        job = Job.model_validate({"id": job_id, "scenes": [scene(id_) for id_ in ids]})
    except ValidationError:
        return
    root = tmp_path_factory.mktemp("names", numbered=True)
    store = FileStore(root / "out" / job.id)
    names = [f"{place}/{one.id}-{'0' * 8}.{suffix}" for one in job.scenes for place, suffix in PLACES]
    for name in names:
        scratch = store.scratch(f"{Path(name).name}.part")
        scratch.write_text(name)
        store.put(scratch, name)
    written = [path for path in root.rglob("*") if path.is_file()]
    assert sorted(path.read_text() for path in written) == sorted(names)
    assert all(path.resolve().is_relative_to(root / "out" / job_id) for path in written)
    assert {path.name.lower() for path in root.iterdir()} == {"out"}


PLACES = [("clips", "mp4"), ("posters", "jpg")]


@pytest.mark.long_variants
@pytest.mark.parametrize("id_", ["a..b", "x" * 80, "A-._"])
async def test_32_the_oddest_names_that_are_allowed_are_delivered(stage: Stage, id_: str) -> None:
    """All files of the run are in its folder, the journal beside it."""
    stage.emulate()
    job = job_of()
    job = Job.model_validate(job.model_dump() | {"id": id_, "scenes": [scene(id_)]})
    async with open_run(await prepare_job(job, stage.options)) as session:
        assert (await shot(session)).successful_clips == 1
    outside = {path.name for path in stage.folder.rglob("*") if not path.is_relative_to(stage.folder / "out" / id_)}
    assert outside == {"plan.toml", "out", "journal.db"}
