"""`videogen models add` and `videogen models new`: from a model on Replicate to an entry in the user's registry."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tokens import TOKEN
from videogen.cli import main as cli
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.emulator.catalogue import Catalogue
from videogen.execution.options import RunOptions
from videogen.job.model import Job
from videogen.library import run_job
from videogen.registry.endpoint_schema import Snapshots
from videogen.registry.load import read_registry

pytestmark = pytest.mark.integration

VEO = "google/veo-3.1"
COGVIDEOX = "cuuupid/cogvideox-5b"
SCHEMA = str(Snapshots().folder / "google" / "veo-3.1.json")
FILM = """
model = "veo-new"
aspect_ratio = "16:9"
min_clips = 1
[[scenes]]
id = "harbour"
prompt = "Dawn over a harbour"
target_duration = 3
"""


class Command:
    """`videogen …` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Return the exit code, standard output and standard error."""
        code = cli.main([str(each) for each in arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture
def videogen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "VIDEOGEN_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return Command(capsys)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings()) as server:
        yield server


@pytest.fixture
def online(videogen: Command, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    return videogen


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The path of a registry file that is not there yet."""
    return tmp_path / "mine.toml"


# -- add --------------------------------------------------------------------------------------------------------------


def test_a_model_on_replicate_is_added_to_a_new_file(online: Command, mine: Path, tmp_path: Path) -> None:
    """It agrees with its schema, and plans with it say that nobody knows the price."""
    code, out, err = online("models", "add", VEO, "--name", "veo-new", "--registry", mine)
    assert (code, err) == (0, "")
    assert "veo-new: agrees" in out
    assert "THE PRICE IS NOT KNOWN: look it up at https://replicate.com/google/veo-3.1" in out
    film = tmp_path / "film.toml"
    film.write_text(FILM)
    code, out, err = online("plan", film, "--registry", mine, "--provider", "local")
    assert (code, err) == (0, "")
    assert "THE PRICE OF veo-new IS NOT KNOWN" in " ".join(out.split())
    assert online("models", "check", "veo-new", "--registry", mine)[0] == 0


def test_the_file_of_the_environment_is_extended_as_it_is(
    videogen: Command, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text stays, to the last byte, and a second model is added behind the first."""
    before = b'# mine\r\n[models."veo-3.1".price]\r\nper_second = "0.15"    # our contract'
    mine.write_bytes(before)
    monkeypatch.setenv("VIDEOGEN_REGISTRY", str(mine))
    for name in ("first", "second"):
        code, _, err = videogen("models", "add", VEO, "--schema", SCHEMA, "--name", name)
        assert (code, err) == (0, "")
    assert mine.read_bytes().startswith(before + b"\r\n")
    assert list(read_registry(mine).models)[-2:] == ["first", "second"]


def test_the_name_is_that_on_replicate_unless_another_is_given(videogen: Command, mine: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"properties": {"prompt": {"type": "string"}}}))
    assert videogen("models", "add", "maker/film-2", "--schema", schema, "--registry", mine)[0] == 0
    assert list(read_registry(mine).models)[-1] == "film-2"


def test_an_entry_that_its_schema_contradicts_is_added_with_the_reasons(
    videogen: Command, mine: Path, tmp_path: Path
) -> None:
    """So that the user can complete it."""
    schema = tmp_path / "schema.json"
    properties = {"prompt": {"type": "string"}, "texture": {"type": "string"}}
    schema.write_text(json.dumps({"properties": properties, "required": ["texture"]}))
    code, out, _ = videogen("models", "add", "maker/odd", "--schema", schema, "--registry", mine)
    assert code == 1
    assert "'texture' is required by the endpoint, and not sent with every clip" in out
    assert "odd" in read_registry(mine).models


def test_without_a_token_a_file_with_the_schema_is_needed(videogen: Command, mine: Path) -> None:
    code, _, err = videogen("models", "add", "google/veo-9", "--registry", mine)
    assert code == 2
    assert "REPLICATE_API_TOKEN is not set" in err
    assert "--schema FILE" in err
    assert not mine.exists()


@pytest.mark.long
def test_an_added_model_makes_clips_on_this_machine(videogen: Command, mine: Path, tmp_path: Path) -> None:
    """Though Replicate was never asked about it: its schema is kept beside the registry."""
    inputs = {"prompt": {"type": "string"}, "duration": {"type": "integer", "enum": [4, 8], "default": 4}}
    document = {"components": {"schemas": {"Input": {"type": "object", "required": ["prompt"], "properties": inputs}}}}
    (tmp_path / "odd.json").write_text(json.dumps(document))
    code, out, err = videogen("models", "add", "acme/odd", "--schema", tmp_path / "odd.json", "--registry", mine)
    assert (code, err) == (0, "")
    assert f"its schema is in {mine.parent / 'schemas'}" in out
    scene = {"id": "a", "prompt": "A pier", "target_duration": 3}
    job = Job.model_validate({"model": "odd", "min_clips": 1, "scenes": [scene]})
    result = asyncio.run(run_job(job, RunOptions(out=str(tmp_path / "out"), registry=mine, provider="local")))
    assert [(clip.status, clip.requested_duration) for clip in result.clips] == [("success", 4)]


def test_a_model_that_replicate_does_not_have_is_not_added(online: Command, mine: Path) -> None:
    code, _, err = online("models", "add", "google/veo-9", "--registry", mine)
    assert code == 2
    assert "google/veo-9 is not on Replicate (404)" in err
    assert not mine.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["add", VEO, "--schema", SCHEMA, "--name", "svd"], "'svd' is in the registry already", id="name"),
        pytest.param(["add", VEO, "--schema", SCHEMA, "--name", "mine"], "'mine' is in the registry", id="own-name"),
        pytest.param(["add", "veo"], "MODEL: 'veo' is not owner/name", id="no-owner"),
        pytest.param(["add", "a/b", "--schema", SCHEMA], "is a snapshot of google/veo-3.1, not of a/b", id="schema"),
    ],
)
def test_a_refused_model_leaves_the_file_as_it_is(
    videogen: Command, mine: Path, arguments: list[str], message: str
) -> None:
    before = '[models.mine]\nextends = "svd"\n'
    mine.write_text(before)
    code, _, err = videogen("models", *arguments, "--registry", mine)
    assert code == 2
    assert message in err
    assert mine.read_text() == before


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("models = { }\n", id="closed-table"),
        pytest.param("[models.svd\n", id="not-well-formed"),
        pytest.param("[models.svd]\nprice = 3\n", id="invalid"),
    ],
)
def test_a_file_that_cannot_be_extended_is_left_as_it_is(videogen: Command, mine: Path, before: str) -> None:
    mine.write_text(before)
    code, _, err = videogen("models", "add", VEO, "--schema", SCHEMA, "--name", "new", "--registry", mine)
    assert code == 2
    assert "mine.toml" in err
    assert mine.read_text() == before


def test_a_file_has_to_be_named(videogen: Command) -> None:
    code, _, err = videogen("models", "add", VEO, "--schema", SCHEMA, "--name", "new")
    assert code == 2
    assert "--registry FILE or in VIDEOGEN_REGISTRY" in err


def test_a_file_in_a_folder_that_is_missing_is_refused(videogen: Command, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "mine.toml"
    code, _, err = videogen("models", "add", VEO, "--schema", SCHEMA, "--name", "new", "--registry", path)
    assert code == 2
    assert "cannot write" in err


# -- new --------------------------------------------------------------------------------------------------------------


def test_new_models_and_those_that_are_gone_or_retire_are_listed(online: Command, mine: Path) -> None:
    """A model of the collections is new if no entry runs it; community models are not listed."""
    truth = Catalogue().list_models()
    registered = {spec.replicate for spec in read_registry().models.values()} - {VEO, COGVIDEOX}
    mine.write_text(
        '[models."veo-3.1"]\nreplicate = "google/veo-0"\n[models.cogvideox]\nreplicate = "cuuupid/cogvideox-0"\n'
        '[models.svd]\nretires = 2027-01-31\nsuccessor = "veo-3.1"\n'
    )
    code, out, err = online("models", "new", "--registry", mine, "--json")
    assert (code, err) == (0, "")
    news: dict[str, Any] = json.loads(out)
    assert {model["replicate"] for model in news["new"]} == {
        model.full_name for model in truth if model.official and model.full_name not in registered
    }
    assert news["gone"] == [
        {"id": "veo-3.1", "replicate": "google/veo-0"},
        {"id": "cogvideox", "replicate": "cuuupid/cogvideox-0"},
    ]
    assert news["retiring"] == [
        {
            "id": "svd",
            "replicate": "stability-ai/stable-video-diffusion",
            "retires": "2027-01-31",
            "successor": "veo-3.1",
        }
    ]
    code, out, err = online("models", "new", "--registry", mine)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any(line.startswith("new: google/veo-3.1: ") for line in lines)
    assert "gone: veo-3.1: google/veo-0 is not on Replicate any more" in lines
    assert "retires: svd: 2027-01-31; use veo-3.1" in lines


def test_new_models_cannot_be_listed_without_a_token(videogen: Command) -> None:
    code, _, err = videogen("models", "new")
    assert code == 2
    assert "REPLICATE_API_TOKEN is not set" in err
