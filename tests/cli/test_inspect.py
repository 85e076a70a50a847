"""`videogen inspect`: the facts of a file, and what it says of itself."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import small_clip, write_film
from tests.support.certificates import OWNER, write_signing_pair
from videogen.cli.main import main
from videogen.media import ClipRecord, ClipSigner, compute_prompt_digest, embed_record

pytestmark = pytest.mark.integration

RECORD = ClipRecord(
    model="kling-v2.5-turbo",
    endpoint="kwaivgi/kling-v2.5-turbo-pro",
    prediction_ids=("first", "second"),
    prompt_sha256=compute_prompt_digest("A storm"),
    seed=7,
    created_at=datetime(2026, 11, 30, 10, 17, 3, tzinfo=UTC),
)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(small_clip(2))
    assert embed_record(path, RECORD) is None
    return path


def sign(clip: Path) -> Path:
    pytest.importorskip("c2pa", reason="pip install c2pa-python")
    certificates, key = write_signing_pair(clip.parent)
    out = clip.with_name("signed.mp4")
    ClipSigner(certificates.read_bytes(), key.read_bytes()).sign(clip, out, RECORD)
    return out


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that are printed, with single blanks."""
    assert main(["inspect", str(path)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def inspect_as_json(path: Path, capsys: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_a_clip_is_described_for_people(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a few lines."""
    name, video, digest, *lines = inspect(clip, capsys)
    assert name == str(clip)
    assert video.startswith("video 128x72, 8 fps, 2 s, 16 frames, h264, no sound, ")
    assert len(digest.removeprefix("SHA-256 ")) == 64
    assert lines == [
        "source made by AI",
        "model kling-v2.5-turbo (kwaivgi/kling-v2.5-turbo-pro)",
        "predictions first, second",
        f"prompt SHA-256 {RECORD.prompt_sha256}",
        "seed 7",
        "created 2026-11-30 10:17:03 UTC",
    ]


def test_a_clip_is_described_for_programs(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one object."""
    told = inspect_as_json(clip, capsys)
    assert (told["file"], told["made_by_ai"], told["c2pa"]) == (str(clip), True, None)
    assert told["source_type"].endswith("/trainedAlgorithmicMedia")
    assert (told["video"]["frames"], told["video"]["codec"], told["video"]["size_bytes"]) == (
        16,
        "h264",
        clip.stat().st_size,
    )
    assert told["record"] == {
        "model": "kling-v2.5-turbo",
        "endpoint": "kwaivgi/kling-v2.5-turbo-pro",
        "prediction_ids": ["first", "second"],
        "prompt_sha256": RECORD.prompt_sha256,
        "seed": 7,
        "created_at": "2026-11-30T10:17:03+00:00",
    }


def test_a_clip_without_a_record_is_described_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_film(tmp_path / "film.mp4", frames=24, sound=True)
    _, video, _, *lines = inspect(film, capsys)
    assert (", sound, " in video, lines) == (True, ["record none of videogen"])
    told = inspect_as_json(film, capsys)
    assert (told["made_by_ai"], told["record"], told["video"]["has_audio"]) == (False, None, True)


def test_a_signature_is_verified(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 says that the file has changed since."""
    signed = sign(clip)
    assert inspect(signed, capsys)[-1] == f"C2PA valid, signed by Editor, {OWNER}, who is on no list of trusted signers"
    told = inspect_as_json(signed, capsys)
    assert (told["c2pa"]["state"], told["c2pa"]["record"]) == ("valid", told["record"])
    signed.write_bytes(signed.read_bytes().replace(b">first<", b">third<"))
    told = inspect_as_json(signed, capsys, code=1)
    assert (told["c2pa"]["state"], told["record"]["prediction_ids"]) == ("invalid", ["third", "second"])
    assert told["c2pa"]["problems"] == ["assertion.bmffHash.mismatch"]


def test_without_the_package_a_signature_is_not_verified(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is shown."""
    signed = sign(clip)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    *_, created, last = inspect(signed, capsys)
    assert created == "created 2026-11-30 10:17:03 UTC"
    assert last.startswith("C2PA not verified: ")
    assert "pip install 'videogen-batch[c2pa]'" in last
    assert inspect_as_json(signed, capsys)["c2pa"] == {"state": "unverified"}


def test_control_characters_of_a_record_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever wrote the file."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(small_clip(2))
    assert embed_record(path, ClipRecord("a\u009b31m\u202eb", "e", (), "0" * 64)) is None
    assert "model a\\x9b31m\\u202eb (e)" in inspect(path, capsys)
    assert main(["inspect", str(path), "--json"]) == 0
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize(
    ("data", "says"), [(None, "cannot be read: No such file"), (b"", "empty"), (small_clip(2)[:-9], "cut")]
)
def test_a_file_that_is_no_whole_video_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, says: str
) -> None:
    path = tmp_path / "clip.mp4"
    if data is not None:
        path.write_bytes(data)
    assert main(["inspect", str(path)]) == 1
    assert says in capsys.readouterr().err
