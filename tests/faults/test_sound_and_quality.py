"""Clips that are heard or silent as the job says, and clips that show nothing."""

import json
from decimal import Decimal
from pathlib import Path

import av
import pytest

from tests.faults.conftest import PRICE, Stage, code, job_of, only
from videogen.app import prepare_job


def of_picture(path: Path) -> list[bytes]:
    """The video's packets as they are in the file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.long_variants
@pytest.mark.parametrize(("audio", "usd"), [(True, "1.60"), (False, "0.80")], ids=["heard", "silent"])
async def test_sound_is_asked_and_paid_for_only_where_it_is_wanted(stage: Stage, audio: bool, usd: str) -> None:
    """The plan, the clip and the provider's books tell the same price."""
    stage.emulate()
    prepared = await prepare_job(job_of("A boat", model="heard", audio=audio), stage.options)
    clip = only(await stage.shoot("A boat", model="heard", audio=audio))
    ledger = stage.emulator.ledger()
    assert ledger["predictions"][0]["effective_input"]["generate_audio"] is audio
    assert (clip.status, clip.has_audio) == ("success", audio)
    assert prepared.plan.total_cost == clip.cost == Decimal(ledger["billed"]) == Decimal(usd)


async def test_sound_that_comes_unasked_is_dropped_and_the_picture_copied(stage: Stage, films: Path) -> None:
    """Every packet of the picture is one that the provider sent."""
    stage.emulate()
    clip = only(await stage.shoot("A ship", model="talkative"))
    assert (clip.has_audio, clip.frames, clip.codec) == (False, 96, "h264")
    delivered = of_picture(stage.job_folder / str(clip.video_path))
    assert any(of_picture(film) == delivered for film in films.glob("*.mp4"))


async def test_sound_that_comes_unasked_is_kept_where_it_is_wanted(stage: Stage) -> None:
    """Although the plan warned that the model cannot be asked for it."""
    stage.emulate()
    prepared = await prepare_job(job_of("A ship", model="talkative", audio=True), stage.options)
    assert "talkative: sound is wanted, but the model cannot be asked for it (scene-1)" in prepared.plan.warnings
    assert only(await stage.shoot("A ship", model="talkative", audio=True)).has_audio


@pytest.mark.parametrize("picture", ["black", "frozen"])
async def test_a_clip_that_shows_nothing_is_warned_of(stage: Stage, picture: str) -> None:
    """It is delivered: some films begin black. The manifest says so."""
    stage.emulate(f'do = "wrong_picture"\npicture = "{picture}"')
    assert only(await stage.shoot()).status == "success"
    (clip,) = json.loads((stage.job_folder / "manifest.json").read_text())["clips"]
    assert clip["warnings"] == [picture]
    stage.books(creates=1, billed=1)


@pytest.mark.parametrize("picture", ["black", "frozen"])
async def test_a_strict_job_has_it_made_again(stage: Stage, picture: str) -> None:
    """As an attempt; what was paid for is kept for a person to look at."""
    stage.emulate(f'do = "wrong_picture"\npicture = "{picture}"')
    clip = only(await stage.shoot(strict_quality=True))
    assert (clip.status, clip.attempts, clip.cost, clip.warnings) == ("success", 2, 2 * PRICE, ())
    assert len(stage.rejected) == 1
    stage.books(creates=2, billed=2)


async def test_a_strict_job_without_any_good_clip_fails(stage: Stage) -> None:
    """Under its own code, after three attempts; nothing has a final name."""
    stage.emulate('do = "wrong_picture"\npicture = "black"\ntimes = "always"')
    clip = only(await stage.shoot(strict_quality=True))
    assert clip.error
    assert (clip.error.code, clip.error.retryable, clip.attempts) == ("quality", True, 3)
    assert "black from start to end" in clip.error.message
    assert stage.delivered == []
    stage.books(creates=3, billed=3)


async def test_another_model_is_tried_when_one_only_makes_black(stage: Stage) -> None:
    """As for every other end for good."""
    stage.emulate('do = "wrong_picture"\npicture = "black"')
    clip = only(await stage.shoot(strict_quality=True, attempts=1, fallback_models=["twin"]))
    assert (clip.status, clip.model) == ("success", "twin")


async def test_a_strict_job_does_not_reuse_what_a_lenient_one_took(stage: Stage) -> None:
    """The plan has its price; a lenient job goes on with the clip that is there."""
    stage.emulate('do = "wrong_picture"\npicture = "frozen"\ntimes = 2')
    assert only(await stage.shoot()).warnings == ("frozen",)
    assert only(await stage.shoot()).reused
    strict = await prepare_job(job_of(strict_quality=True), stage.options)
    assert strict.plan.total_cost == PRICE
    assert code(only(await stage.shoot(strict_quality=True, attempts=1))) == "quality"
    assert only(await stage.shoot()).reused
    clip = only(await stage.shoot(strict_quality=True))
    assert (clip.status, clip.reused, clip.warnings) == ("success", False, ())
    assert only(await stage.shoot(strict_quality=True)).reused
    stage.books(creates=3, billed=3)
