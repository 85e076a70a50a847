"""What a player honours is honoured: the way up, the shape of pixels, the aperture, the colours, the codec, the time.

Every variant shows the same four fields (red and green above, blue and white below), stored in another way.
"""

import struct
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from tests.media.variants import BLUE, GREEN, HLG, PQ, RED, VARIANTS, WHITE, Variant, make_hdr, write_variant
from videogen.media import ConformResult, conform, inspect_video
from videogen.media.tones import Transfer, map_colour

FIELDS = RED, GREEN, BLUE, WHITE


def with_aperture(path: Path, size: tuple[int, int], offset: tuple[int, int]) -> Path:
    """Add a `clap` box to the picture's description; the file's header is at its end, so that nothing else moves."""
    data = bytearray(path.read_bytes())
    numbers = (size[0], 1, size[1], 1, offset[0], 1, offset[1], 1)
    box = struct.pack(">I4s4I4i", 40, b"clap", *numbers)
    at = data.index(b"avc1", data.index(b"stsd")) - 4
    (length,) = struct.unpack_from(">I", data, at)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = data.index(kind, data.index(b"moov")) - 4
        (inner,) = struct.unpack_from(">I", data, start)
        struct.pack_into(">I", data, start, inner + len(box))
    path.write_bytes(data[: at + length] + box + data[at + length :])
    return path


def first_picture(path: Path) -> Image.Image:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.side_data.get("DISPLAYMATRIX") is None
        image = frame.to_image(src_colorspace="ITU709")  # type: ignore[no-untyped-call]
        assert isinstance(image, Image.Image)
        return image


def fields_of(image: Image.Image) -> list[Any]:
    width, height = image.size
    spots = [(x, y) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return [image.convert("RGB").getpixel(spot) for spot in spots]


def are_the_four(found: list[Any], tolerance: int) -> bool:
    return found == [pytest.approx(each, abs=tolerance) for each in FIELDS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


def stored(folder: Path, name: str) -> Path:
    path = folder / f"{name.replace(':', '')}.mp4"
    return path if path.exists() else write_variant(path, VARIANTS[name], "mov" if name == "prores" else "mp4")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_clip_is_measured_as_a_player_shows_it(folder: Path, tmp_path: Path, name: str) -> None:
    """Its size, its poster, its codec, and whether somebody may not see it."""
    variant = VARIANTS[name]
    measured = inspect_video(stored(folder, name), poster=tmp_path / "poster.jpg")
    assert (measured.width, measured.height) == variant.shown
    assert (measured.codec, measured.frames) == (variant.name, 12)
    assert measured.notes == (() if variant.plays == "everywhere" else ("codec",))
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert poster.size == variant.shown
        assert are_the_four(fields_of(poster), 14)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_crop_shows_what_a_player_shows(folder: Path, tmp_path: Path, name: str) -> None:
    """Upright, in square pixels, in its colours, in a codec that plays everywhere."""
    variant = VARIANTS[name]
    done = conform(stored(folder, name), tmp_path / "out.mp4", ratio=(1, 1), fps=None, size=None, keep_audio=False)
    assert done == ConformResult(("transcoded",) if variant.plays == "nowhere" else ())
    measured = inspect_video(tmp_path / "out.mp4")
    edge = min(variant.shown)
    assert (measured.width, measured.height, measured.codec, measured.notes) == (edge, edge, "h264", ())
    picture = first_picture(tmp_path / "out.mp4")
    assert picture.size == (edge, edge)
    assert are_the_four(fields_of(picture), 14)


@pytest.mark.parametrize("name", VARIANTS)
def test_only_what_no_browser_plays_is_encoded_again_for_its_own_sake(folder: Path, tmp_path: Path, name: str) -> None:
    """A clip that is shown right by every player stays as it came."""
    variant = VARIANTS[name]
    done = conform(stored(folder, name), tmp_path / "out.mp4", ratio=None, fps=None, size=None, keep_audio=True)
    assert done == (ConformResult(("transcoded",)) if variant.plays == "nowhere" else None)


@pytest.mark.parametrize("name", ["turned-right", "upside-down", "mirrored", "wide-pixels", "full-range", "hevc"])
def test_dropping_the_sound_leaves_the_picture_as_it_is_shown(tmp_path: Path, name: str) -> None:
    """The copy is turned, stretched and coloured by its header as the original is."""
    variant = VARIANTS[name]
    heard = write_variant(tmp_path / "heard.mp4", Variant(**{**vars(variant), "sound_s": 0.5}))
    before = inspect_video(heard)
    assert conform(heard, tmp_path / "out.mp4", ratio=None, fps=None, size=None, keep_audio=False)
    after = inspect_video(tmp_path / "out.mp4", poster=tmp_path / "poster.jpg")
    assert (before.has_audio, after.has_audio) == (True, False)
    assert (after.width, after.height, after.codec) == (before.width, before.height, before.codec)
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert are_the_four(fields_of(poster), 14)


def test_a_clean_aperture_is_cut_out(tmp_path: Path) -> None:
    """Players differ in whether they heed it, so it is made true for all."""
    path = with_aperture(write_variant(tmp_path / "clip.mp4", Variant()), (160, 90), (80, 45))
    measured = inspect_video(path, poster=tmp_path / "poster.jpg")
    assert (measured.width, measured.height) == (160, 90)
    assert conform(path, tmp_path / "out.mp4", ratio=(16, 9), fps=None, size=None, keep_audio=False)
    picture = first_picture(tmp_path / "out.mp4")
    assert picture.size == (160, 90)
    assert fields_of(picture) == [pytest.approx(WHITE, abs=14)] * 4


# --- HDR


@pytest.mark.long_variants
@pytest.mark.parametrize("transfer", [pytest.param(PQ, id="pq"), pytest.param(HLG, id="hlg")])
def test_hdr_is_mapped_when_it_is_encoded_again_and_said(tmp_path: Path, transfer: int) -> None:
    """Tagging its code values as bt709 would make it grey: 0.58 of the signal is white paper in PQ."""
    path = write_variant(tmp_path / "hdr.mp4", make_hdr(transfer))
    assert inspect_video(path).notes == ("codec", "hdr")
    done = conform(path, tmp_path / "out.mp4", ratio=(1, 1), fps=None, size=None, keep_audio=False)
    assert done == ConformResult(("hdr",))
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.color_trc, context.color_primaries) == ("yuv420p", 1, 1)
    red, green, blue, white = fields_of(first_picture(tmp_path / "out.mp4"))
    for (strong, *weak), (was, *were) in (
        ((red[0], *red[1:]), (RED[0], *RED[1:])),
        ((green[1], green[0], green[2]), (GREEN[1], GREEN[0], GREEN[2])),
        ((blue[2], *blue[:2]), (BLUE[2], *BLUE[:2])),
    ):
        assert strong / (strong + sum(weak)) > was / (was + sum(were)) + 0.05  # more colourful than its code values
    assert max(white) - min(white) <= 6


def test_hdr_that_is_right_stays_as_it_came(tmp_path: Path) -> None:
    """A screen that shows HDR shows it."""
    path = write_variant(tmp_path / "hdr.mp4", make_hdr(PQ))
    assert conform(path, tmp_path / "out.mp4", ratio=(16, 9), fps=None, size=None, keep_audio=False) is None


@pytest.mark.parametrize(
    ("transfer", "signal", "shown"),
    [
        pytest.param("pq", 0.0, 0.0, id="pq-black"),
        pytest.param("pq", 0.357, 0.381, id="pq-20-nits-as-they-are"),
        pytest.param("pq", 0.5807, 0.912, id="pq-white-paper"),
        pytest.param("pq", 0.7518, 1.0, id="pq-1000-nits"),
        pytest.param("pq", 1.0, 1.0, id="pq-beyond"),
        pytest.param("hlg", 0.0, 0.0, id="hlg-black"),
        pytest.param("hlg", 0.75, 0.912, id="hlg-white-paper"),
        pytest.param("hlg", 1.0, 1.0, id="hlg-1000-nits"),
        pytest.param("sdr", 0.5, 0.5, id="sdr-grey"),
        pytest.param("sdr", 1.0, 1.0, id="sdr-white"),
    ],
)
def test_white_paper_is_nearly_white_and_grey_stays_grey(transfer: Transfer, signal: float, shown: float) -> None:
    """BT.2408: 203 nits are white paper, in PQ 58 % of the signal and in HLG 75 %; highlights are pressed above it."""
    assert map_colour((signal,) * 3, transfer) == pytest.approx((shown,) * 3, abs=0.01)


@pytest.mark.parametrize("transfer", ["pq", "hlg", "sdr"])
def test_brighter_never_becomes_darker(transfer: Transfer) -> None:
    """A face that is lit from one side has no band across it."""
    steps = [map_colour((step / 40, step / 80, step / 120), transfer) for step in range(41)]
    assert [red for red, _, _ in steps] == sorted(red for red, _, _ in steps)
    assert all(0 <= band <= 1 for colour in steps for band in colour)


# --- time


def times(path: Path) -> tuple[float, float]:
    """When a player shows the first picture, and when everything is over, in seconds."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
        assert container.duration is not None
        return float(first.time or 0), container.duration / 1_000_000


@pytest.mark.parametrize("starts_s", [1 / 48, 0.25, 1.0])
@pytest.mark.parametrize("ratio", [(16, 9), (1, 1)], ids=["copied", "cropped"])
@pytest.mark.parametrize("sound_s", [0, 0.5], ids=["silent", "sound-dropped"])
def test_a_picture_that_begins_late_begins_at_once_without_sound(
    tmp_path: Path, starts_s: float, ratio: tuple[int, int], sound_s: float
) -> None:
    """Some players show black until then, and its length is not what was measured."""
    path = write_variant(tmp_path / "late.mp4", Variant(starts_s=starts_s, sound_s=sound_s))
    assert times(path)[0] == pytest.approx(starts_s, abs=0.001)
    assert conform(path, tmp_path / "out.mp4", ratio=ratio, fps=None, size=None, keep_audio=False)
    first, end = times(tmp_path / "out.mp4")
    assert first == 0
    assert end == pytest.approx(0.5, abs=0.001)
    assert inspect_video(tmp_path / "out.mp4").frames == 12


@pytest.mark.parametrize("ratio", [(16, 9), (1, 1)], ids=["copied", "cropped"])
@pytest.mark.parametrize(
    ("starts_s", "sound_s"), [pytest.param(1.0, 1.5, id="late-picture"), pytest.param(0, 2.0, id="long-sound")]
)
def test_sound_that_is_kept_begins_and_ends_with_the_picture(
    tmp_path: Path, starts_s: float, sound_s: float, ratio: tuple[int, int]
) -> None:
    """A player shows as many seconds as the manifest says."""
    path = write_variant(tmp_path / "odd.mp4", Variant(starts_s=starts_s, sound_s=sound_s))
    assert conform(path, tmp_path / "out.mp4", ratio=ratio, fps=None, size=None, keep_audio=True)
    first, end = times(tmp_path / "out.mp4")
    assert first == 0
    assert end == pytest.approx(0.5, abs=0.03)
    assert inspect_video(tmp_path / "out.mp4").sound == "whole"
