"""The record in delivered clips, and their signatures: in every clip, in the manifest's SHA-256, and at no cost."""

import hashlib
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.media.test_record import box
from tests.support.builders import (
    change_prediction,
    job_of,
    make_halves,
    request_of,
    small_clip,
    strip_record,
    write_film,
)
from tests.support.certificates import write_signing_pair
from tests.support.fakes import FakeProvider, Script, generate, run_of
from videogen.app import prepare_job
from videogen.errors import SettingsError, StorageError
from videogen.execution.marking import ClipMarker, make_record
from videogen.execution.options import RunOptions
from videogen.media import MADE_BY_AI, ClipRecord, ClipSigner, read_provenance, read_signature
from videogen.planning.requests import ClipRequest
from videogen.results.clip import Clip
from videogen.settings import Settings

pytestmark = pytest.mark.integration

PROMPT = "A lighthouse & a <storm>"


async def deliver(folder: Path, *, marker: ClipMarker | None = None, output: bytes = b"", **scene: Any) -> Clip:
    """The clip of a prediction with this output, whose file is in the folder."""
    run = run_of(folder, FakeProvider([Script(output=output)]))
    run.marker = marker or run.marker
    return await generate(request_of(prompt=PROMPT, job_duration_tolerance=30, **scene), run)


def read_clip(folder: Path, clip: Clip) -> bytes:
    """Return the bytes of a delivered clip, which the manifest must describe."""
    data = (folder / str(clip.video_path)).read_bytes()
    assert (clip.sha256, clip.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    return data


def load_signer(folder: Path) -> ClipSigner:
    certificates, key = write_signing_pair(folder)
    return ClipSigner(certificates.read_bytes(), key.read_bytes())


async def test_a_delivered_clip_says_how_it_was_made(tmp_path: Path) -> None:
    """In its file, whose bytes but for the record are those of the model. Nothing is left of the work."""
    provider = FakeProvider()
    clip = await generate(request_of(prompt=PROMPT, seed=7), run_of(tmp_path, provider))
    data, found = read_clip(tmp_path, clip), read_provenance(tmp_path / str(clip.video_path))
    made_at = provider.predictions["prediction0"].created_at
    assert made_at is not None
    assert found.source_type == MADE_BY_AI
    assert found.record == ClipRecord(
        model="kling-v2.5-turbo",
        endpoint="kwaivgi/kling-v2.5-turbo-pro",
        prediction_ids=("prediction0",),
        prompt_sha256=hashlib.sha256(PROMPT.encode()).hexdigest(),
        seed=7,
        created_at=made_at.replace(microsecond=0),
    )
    assert (strip_record(data), b"lighthouse" in data) == (small_clip(), False)
    assert list((tmp_path / ".scratch").iterdir()) == []


async def test_a_clip_that_is_encoded_again_has_its_record_too(tmp_path: Path) -> None:
    """It is written last, into the file that is delivered."""
    film = write_film(tmp_path / "film", size=(180, 180), frames=24, picture=lambda _: make_halves((180, 180)))
    clip = await deliver(tmp_path, output=film.read_bytes(), target_duration=0.5)
    read_clip(tmp_path, clip)
    record = read_provenance(tmp_path / str(clip.video_path)).record
    assert (clip.height, record and record.prediction_ids) == (100, ("prediction0",))


async def test_a_clip_that_is_fetched_again_is_the_same_file(tmp_path: Path) -> None:
    """Its SHA-256 says so: clips that continue it are not made again."""
    provider, request = FakeProvider(), request_of(prompt=PROMPT)
    first = await generate(request, run_of(tmp_path, provider))
    (tmp_path / str(first.video_path)).unlink()
    again = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (again.reused, again.sha256, len(provider.created)) == (False, first.sha256, 1)


async def test_only_the_prediction_that_made_the_clip_is_named(tmp_path: Path) -> None:
    """Not the one that failed before, which the manifest lists."""
    provider = FakeProvider([Script(status="failed", error="out of memory")])
    run, request = run_of(tmp_path, provider), request_of()
    with pytest.raises(Exception, match="out of memory"):
        await generate(request, run)
    clip = await generate(request, run)
    record = read_provenance(tmp_path / str(clip.video_path)).record
    assert clip.prediction_ids == ("prediction0", "prediction1")
    assert record is not None
    assert record.prediction_ids == ("prediction1",)


async def test_a_reused_clip_stays_as_it_was_delivered(tmp_path: Path) -> None:
    """Also one of a version that wrote no records."""
    provider, request = FakeProvider(), request_of()
    plain = run_of(tmp_path, provider)
    plain.marker = ClipMarker(writes_record=False)
    first = await generate(request, plain)
    again = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (again.reused, read_clip(tmp_path, first)) == (True, small_clip())


async def test_the_record_can_be_switched_off(tmp_path: Path) -> None:
    """The file then has the bytes of the model."""
    clip = await deliver(tmp_path, marker=ClipMarker.of(Settings(VIDEOGEN_RECORD="false")))
    assert read_clip(tmp_path, clip) == small_clip()


async def test_a_segment_stays_as_the_model_made_it(tmp_path: Path) -> None:
    """The segment behind it is paid again if its bytes change."""
    request = request_of().model_copy(update={"segment": 1})
    clip = await generate(request, run_of(tmp_path, FakeProvider()))
    assert read_clip(tmp_path, clip) == small_clip()


async def test_the_manifest_of_the_models_provider_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its signature would not be valid with a record behind it. The log says why there is none."""
    output = small_clip() + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(40))
    with caplog.at_level(logging.INFO, logger="videogen"):
        clip = await deliver(tmp_path, output=output)
    assert read_clip(tmp_path, clip) == output
    assert "prediction0: nothing is written into the file: it has a C2PA manifest" in caplog.text


async def test_a_full_disk_is_an_error_of_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is delivered, and the next run downloads the clip and pays nothing."""
    from videogen.media import record

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    provider, request = FakeProvider(), request_of()
    with monkeypatch.context() as full:
        full.setattr(record, "_write", fail)
        with pytest.raises(StorageError, match="No space left on device"):
            await generate(request, run_of(tmp_path, provider))
    assert not list(tmp_path.glob("clips/*"))
    clip = await generate(request, run_of(tmp_path, provider, run_id="run2"))
    assert (clip.status, len(provider.created)) == ("success", 1)
    assert strip_record(read_clip(tmp_path, clip)) == small_clip()


def test_the_version_is_part_of_the_endpoint() -> None:
    request: ClipRequest = change_prediction(request_of(), endpoint="owner/name", version="0a1b")
    at = datetime(2026, 11, 30, tzinfo=UTC)
    assert make_record(request, ["p"], at).endpoint == "owner/name:0a1b"


# --- signatures


async def test_a_clip_is_signed_with_the_users_key(tmp_path: Path) -> None:
    """The record is in the file, too, and in the signed facts."""
    pytest.importorskip("c2pa", reason="pip install c2pa-python")
    clip = await deliver(tmp_path, marker=ClipMarker(signer=load_signer(tmp_path)))
    read_clip(tmp_path, clip)
    path = tmp_path / str(clip.video_path)
    signature, found = read_signature(path), read_provenance(path)
    assert signature is not None
    assert (signature.state, signature.record, found.record) == ("valid", found.record, signature.record)
    assert found.record is not None
    assert clip.warnings == ()
    assert list((tmp_path / ".scratch").iterdir()) == []


@pytest.mark.parametrize("spoiled", ["cut", "shorter", "full"])
async def test_a_clip_that_cannot_be_signed_is_delivered_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoiled: str
) -> None:
    """It is paid for, and whole. A signed copy that has not all of its frames is not delivered in its place."""
    pytest.importorskip("c2pa", reason="pip install c2pa-python")
    signer = load_signer(tmp_path)

    def spoil(path: Path, out: Path, record: ClipRecord) -> None:
        if spoiled == "full":
            raise StorageError(f"{path}: cannot be signed: No space left on device")
        out.write_bytes(path.read_bytes()[:-2000] if spoiled == "cut" else small_clip(4.5))

    monkeypatch.setattr(signer, "sign", spoil)
    clip = await deliver(tmp_path, marker=ClipMarker(signer=signer))
    assert (clip.status, clip.warnings) == ("success", ("unsigned",))
    assert strip_record(read_clip(tmp_path, clip)) == small_clip()
    assert "the clip of prediction0 is not signed" in caplog.text
    assert list((tmp_path / ".scratch").iterdir()) == []


async def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    await prepare_job(job_of({}, model="kling-v2.5-turbo"), RunOptions(out=str(folder / "out")))


async def test_a_wrong_key_is_found_before_anything_is_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the run is prepared, as is a plan."""
    pytest.importorskip("c2pa", reason="pip install c2pa-python")
    (tmp_path / "other").mkdir()
    certificates, key = write_signing_pair(tmp_path)
    _, other = write_signing_pair(tmp_path / "other")
    await prepare(tmp_path, monkeypatch, VIDEOGEN_C2PA_CERT=certificates, VIDEOGEN_C2PA_KEY=key)
    with pytest.raises(SettingsError, match="VIDEOGEN_C2PA_CERT, VIDEOGEN_C2PA_KEY: clips cannot be signed"):
        await prepare(tmp_path, monkeypatch, VIDEOGEN_C2PA_KEY=other)
    with pytest.raises(SettingsError, match=r"none\.pem: cannot be read: No such file"):
        await prepare(tmp_path, monkeypatch, VIDEOGEN_C2PA_KEY=tmp_path / "none.pem")
    monkeypatch.delenv("VIDEOGEN_C2PA_KEY")
    with pytest.raises(SettingsError, match="set both, or none"):
        await prepare(tmp_path, monkeypatch)


async def test_without_the_package_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to install it. Without the two variables, the package is not missed."""
    certificates, key = write_signing_pair(tmp_path)
    monkeypatch.setitem(sys.modules, "c2pa", None)
    await prepare(tmp_path, monkeypatch)
    with pytest.raises(SettingsError, match=r"pip install 'videogen-batch\[c2pa\]'"):
        await prepare(tmp_path, monkeypatch, VIDEOGEN_C2PA_CERT=certificates, VIDEOGEN_C2PA_KEY=key)
