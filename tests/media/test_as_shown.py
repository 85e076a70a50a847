"""What a player honours is honoured: the way up, the shape of pixels, the aperture, the colours, the codec, the time.

Every variant shows the same four fields (red and green above, blue and white below), stored in another way.
"""

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from videogen.media import ConformResult, conform, inspect_video
from videogen.media.tones import Transfer, map_colour

RED, GREEN, BLUE, WHITE = (190, 40, 30), (40, 150, 60), (40, 60, 180), (200, 200, 200)
FIELDS = RED, GREEN, BLUE, WHITE
LIMITED, FULL = 1, 2
MATRICES = {0: None, 1: "ITU709", 5: "ITU601", 9: "BT2020"}


def four_fields(size: tuple[int, int]) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


@dataclass(frozen=True)
class Variant:
    """A way to store the four fields."""

    shown: tuple[int, int] = (320, 180)
    stored: tuple[int, int] = (320, 180)
    codec: str = "libx264"
    form: str = "yuv420p"
    turn: tuple[Image.Transpose, ...] = ()
    """What is done to the picture before it is stored; its matrix undoes that."""
    rotation: float = 0
    hflip: bool = False
    aspect: Fraction | None = None
    colours: tuple[int, int, int, int] = (1, 1, 1, LIMITED)
    """Primaries, transfer, matrix, range."""
    options: dict[str, str] = field(default_factory=dict)
    starts_s: float = 0
    frames: int = 12
    sound_s: float = 0
    name: str = "h264"
    plays: str = "everywhere"


def store(path: Path, variant: Variant, form: str = "mp4") -> Path:
    rate, base = 24, Fraction(1, 12288)
    primaries, transfer, matrix, colour_range = variant.colours
    with av.open(str(path), "w", format=form) as target:
        video = target.add_stream(variant.codec, rate=rate, options=variant.options)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = variant.stored
        video.pix_fmt = variant.form
        video.codec_context.time_base = base
        if variant.aspect:
            video.codec_context.sample_aspect_ratio = variant.aspect
        context = video.codec_context
        context.color_primaries, context.color_trc, context.color_range = primaries, transfer, colour_range
        context.colorspace = matrix
        if variant.rotation or variant.hflip:
            video.set_display_rotation(variant.rotation, hflip=variant.hflip)
        audio = target.add_stream("aac", rate=48000, layout="mono") if variant.sound_s else None
        image = four_fields(variant.shown)
        for method in variant.turn:
            image = image.transpose(method)
        image = image.resize(variant.stored)
        for index in range(variant.frames):
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            frame = frame.reformat(
                format=variant.form,
                dst_colorspace=MATRICES[matrix],
                dst_color_range="JPEG" if colour_range == FULL else "MPEG",
            )
            frame.pts, frame.time_base = int((index / rate + variant.starts_s) / base), base
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if audio is not None:
            for index in range(round(variant.sound_s * 48000 / 1024)):
                silence = av.AudioFrame(format="s16", layout="mono", samples=1024)
                silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                silence.sample_rate, silence.pts, silence.time_base = 48000, index * 1024, Fraction(1, 48000)
                target.mux(audio.encode(silence))
            target.mux(audio.encode(None))
    return path


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


T = Image.Transpose
VARIANTS = {
    "plain": Variant(),
    "turned-right": Variant(shown=(180, 320), turn=(T.ROTATE_90,), rotation=-90),
    "turned-left": Variant(shown=(180, 320), turn=(T.ROTATE_270,), rotation=90),
    "upside-down": Variant(turn=(T.ROTATE_180,), rotation=180),
    "mirrored": Variant(turn=(T.FLIP_LEFT_RIGHT,), hflip=True),
    "tall-shown-wide": Variant(stored=(180, 320), turn=(T.ROTATE_90,), rotation=-90),
    "wide-pixels": Variant(stored=(240, 180), aspect=Fraction(4, 3)),
    "tall-pixels": Variant(shown=(320, 240), stored=(320, 180), aspect=Fraction(3, 4)),
    "turned-with-wide-pixels": Variant(
        shown=(180, 320), stored=(240, 180), turn=(T.ROTATE_90,), rotation=-90, aspect=Fraction(4, 3)
    ),
    "full-range": Variant(form="yuvj420p", colours=(1, 1, 1, FULL)),
    "ten-bits": Variant(form="yuv420p10le", plays="nowhere"),
    "4:4:4": Variant(form="yuv444p", plays="nowhere"),
    "4:2:2": Variant(form="yuv422p", plays="nowhere"),
    "rgb": Variant(codec="libx264rgb", form="rgb24", colours=(1, 1, 0, FULL), plays="nowhere"),
    "mpeg4": Variant(codec="mpeg4", options={"q": "2"}, name="mpeg4", plays="nowhere"),
    "mjpeg": Variant(codec="mjpeg", form="yuvj420p", colours=(2, 2, 5, FULL), name="mjpeg", plays="nowhere"),
    "prores": Variant(codec="prores_ks", form="yuv422p10le", name="prores", plays="nowhere"),
    "hevc": Variant(codec="libx265", options={"x265-params": "log-level=none"}, name="hevc", plays="in places"),
    "av1": Variant(codec="libsvtav1", options={"preset": "12"}, name="av1", plays="in places"),
    "vp9": Variant(codec="libvpx-vp9", options={"cpu-used": "8"}, name="vp9", plays="in places"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


def stored(folder: Path, name: str) -> Path:
    path = folder / f"{name.replace(':', '')}.mp4"
    return path if path.exists() else store(path, VARIANTS[name], "mov" if name == "prores" else "mp4")


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
    heard = store(tmp_path / "heard.mp4", Variant(**{**vars(variant), "sound_s": 0.5}))
    before = inspect_video(heard)
    assert conform(heard, tmp_path / "out.mp4", ratio=None, fps=None, size=None, keep_audio=False)
    after = inspect_video(tmp_path / "out.mp4", poster=tmp_path / "poster.jpg")
    assert (before.has_audio, after.has_audio) == (True, False)
    assert (after.width, after.height, after.codec) == (before.width, before.height, before.codec)
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert are_the_four(fields_of(poster), 14)


def test_a_clean_aperture_is_cut_out(tmp_path: Path) -> None:
    """Players differ in whether they heed it, so it is made true for all."""
    path = with_aperture(store(tmp_path / "clip.mp4", Variant()), (160, 90), (80, 45))
    measured = inspect_video(path, poster=tmp_path / "poster.jpg")
    assert (measured.width, measured.height) == (160, 90)
    assert conform(path, tmp_path / "out.mp4", ratio=(16, 9), fps=None, size=None, keep_audio=False)
    picture = first_picture(tmp_path / "out.mp4")
    assert picture.size == (160, 90)
    assert fields_of(picture) == [pytest.approx(WHITE, abs=14)] * 4


# --- HDR

PQ, HLG = 16, 18


def hdr(transfer: int) -> Variant:
    names = {PQ: "smpte2084", HLG: "arib-std-b67"}
    parameters = f"log-level=none:colorprim=bt2020:transfer={names[transfer]}:colormatrix=bt2020nc"
    options = {"x265-params": parameters}
    return Variant(codec="libx265", form="yuv420p10le", colours=(9, transfer, 9, LIMITED), options=options, name="hevc")


@pytest.mark.parametrize("transfer", [pytest.param(PQ, id="pq"), pytest.param(HLG, id="hlg")])
def test_hdr_is_mapped_when_it_is_encoded_again_and_said(tmp_path: Path, transfer: int) -> None:
    """Tagging its code values as bt709 would make it grey: 0.58 of the signal is white paper in PQ."""
    path = store(tmp_path / "hdr.mp4", hdr(transfer))
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
    path = store(tmp_path / "hdr.mp4", hdr(PQ))
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
    path = store(tmp_path / "late.mp4", Variant(starts_s=starts_s, sound_s=sound_s))
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
    path = store(tmp_path / "odd.mp4", Variant(starts_s=starts_s, sound_s=sound_s))
    assert conform(path, tmp_path / "out.mp4", ratio=ratio, fps=None, size=None, keep_audio=True)
    first, end = times(tmp_path / "out.mp4")
    assert first == 0
    assert end == pytest.approx(0.5, abs=0.03)
    assert inspect_video(tmp_path / "out.mp4").sound == "whole"
