"""What is delivered of odd clips: once paid, once, and with a word about what is odd."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.media.variants import VARIANTS, Variant, make_hdr, write_variant
from tests.support.builders import clip_of, damage_sound, request_of, strip_record, unknown_sound, write_film
from tests.support.fakes import FakeProvider, Script, run_of
from videogen.errors import DurationError, SoundError, is_fallback_allowed, is_retryable
from videogen.execution.attempt import attempt_clip
from videogen.execution.delivery import mark_reused
from videogen.execution.slots import Slot, Slots
from videogen.media import inspect_video
from videogen.results.clip import Clip

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("sounds") / "heard.mp4", frames=24, sound=True)


async def deliver(folder: Path, output: bytes, **job: Any) -> Clip:
    """The clip of a scene of one second in 16:9 whose prediction gave this output."""
    asked = request_of(job_duration_tolerance=30, target_duration=0.5, **job)
    return await attempt_clip(asked, run_of(folder, FakeProvider([Script(output=output)])), Slot(Slots(1)))


@pytest.mark.parametrize(("longest", "status"), [(0.5, "failed"), (1.0, "success"), (8.0, "success")])
async def test_a_length_that_is_left_to_the_model_is_taken_as_it_comes(
    tmp_path: Path, heard: Path, longest: float, status: str
) -> None:
    """Up to the longest that was paid for; a clip below the target has a warning."""
    asked = request_of(job_duration_tolerance=0.1, target_duration=4, job_attempts=1).model_copy(
        update={"length_is_automatic": True, "requested_duration": longest}
    )
    run = run_of(tmp_path, FakeProvider([Script(output=heard.read_bytes())]))
    if status == "failed":
        with pytest.raises(DurationError, match=r"1\.00 s came for the 0\.5 s asked for"):
            await attempt_clip(asked, run, Slot(Slots(1)))
        return
    clip = await attempt_clip(asked, run, Slot(Slots(1)))
    assert (clip.status, clip.actual_duration, "short" in clip.warnings) == (status, 1.0, True)


@pytest.mark.parametrize("damage", [damage_sound, unknown_sound], ids=["damaged", "without-a-decoder"])
async def test_sound_that_nobody_wants_cannot_lose_a_picture(tmp_path: Path, heard: Path, damage: Any) -> None:
    """The picture is delivered alone, at the first attempt and without a warning."""
    clip = await deliver(tmp_path, bytes(damage(bytearray(heard.read_bytes()), heard)))
    assert (clip.status, clip.has_audio, clip.frames, clip.attempts, clip.warnings) == ("success", False, 24, 1, ())
    assert inspect_video(tmp_path / str(clip.video_path)).sound == "none"


async def test_damaged_sound_that_is_wanted_is_an_error_of_its_own(tmp_path: Path, heard: Path) -> None:
    """For good; what was paid for is kept, and the message says what can be done."""
    with pytest.raises(
        SoundError, match=r"the picture is whole, but its sound is damaged.*\.rejected.*audio"
    ) as caught:
        await deliver(tmp_path, bytes(damage_sound(bytearray(heard.read_bytes()), heard)), job_audio=True)
    assert (caught.value.code, is_retryable(caught.value), is_fallback_allowed(caught.value)) == (
        "bad-sound",
        False,
        True,
    )
    assert [path.suffix for path in (tmp_path / ".scratch").glob("*.rejected")] == [".rejected"]


async def test_sound_in_an_unknown_codec_that_is_wanted_is_kept_and_said(tmp_path: Path, heard: Path) -> None:
    """Somebody's player may know it."""
    data = bytes(unknown_sound(bytearray(heard.read_bytes()), heard))
    clip = await deliver(tmp_path, data, job_audio=True)
    assert (clip.has_audio, clip.warnings) == (True, ("sound",))
    assert strip_record((tmp_path / str(clip.video_path)).read_bytes()) == data


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("variant", "ratio", "codec", "size", "warnings"),
    [
        pytest.param(VARIANTS["prores"], "16:9", "h264", (320, 180), ("transcoded",), id="prores"),
        pytest.param(VARIANTS["hevc"], "16:9", "hevc", (320, 180), ("codec",), id="hevc"),
        pytest.param(VARIANTS["hevc"], "1:1", "h264", (180, 180), (), id="hevc-cropped"),
        pytest.param(VARIANTS["turned-right"], "9:16", "h264", (180, 320), (), id="turned"),
        pytest.param(VARIANTS["turned-right"], "1:1", "h264", (180, 180), (), id="turned-and-cropped"),
        pytest.param(make_hdr(16), "16:9", "hevc", (320, 180), ("codec", "hdr"), id="hdr"),
        pytest.param(make_hdr(16), "1:1", "h264", (180, 180), ("hdr",), id="hdr-cropped"),
    ],
)
async def test_the_manifest_says_what_came_and_what_is_delivered(
    tmp_path: Path, variant: Variant, ratio: str, codec: str, size: tuple[int, int], warnings: tuple[str, ...]
) -> None:
    """Measures and warnings are those of the file that lies there; a strict job takes them, too."""
    source = write_variant(tmp_path / "source", variant, "mov" if variant.name == "prores" else "mp4").read_bytes()
    clip = await deliver(tmp_path, source, job_aspect_ratio=ratio)
    assert (clip.codec, (clip.width, clip.height)) == (codec, size)
    assert tuple(word for word in clip.warnings if word != "frozen") == warnings


def test_a_clip_of_an_earlier_version_keeps_what_it_cost() -> None:
    """Also if it is reused again and again."""
    clip = clip_of(0)
    once = mark_reused(clip)
    assert (clip.paid, once.cost, once.paid, mark_reused(once).paid) == (None, Decimal(0), clip.cost, clip.cost)
