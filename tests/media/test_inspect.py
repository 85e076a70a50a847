"""Whether a file is a whole video, and which poster is made of it."""

import hashlib
import io
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Event

import av
import pytest
from PIL import Image, ImageStat

from tests.media.conftest import reframe, still
from tests.support.builders import damage_sound, make_hiss, make_moving, unknown_sound, write_film
from videogen.errors import BadOutputError, StorageError
from videogen.media import ConformResult, conform, inspect_video

Damage = Callable[[bytearray], bytes | bytearray]


# --- check: what is whole


def test_a_whole_clip_is_measured_exactly(whole: Path) -> None:
    """Every figure is the clip's own, none is rounded or guessed."""
    measured = inspect_video(whole)
    assert (measured.duration, measured.width, measured.height) == (2.0, 320, 180)
    assert (measured.fps, measured.frames, measured.codec) == (24.0, 48, "h264")
    assert (measured.has_audio, measured.warnings) == (False, ())
    assert measured.size_bytes == len(whole.read_bytes())
    assert measured.sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()


def test_sound_is_noticed_and_does_not_count_as_duration(heard: Path) -> None:
    """The duration is that of the pictures, though the sound is a little longer."""
    measured = inspect_video(heard)
    assert measured.has_audio
    assert measured.duration == 1.0


def test_a_header_at_the_end_is_as_good(tmp_path: Path) -> None:
    """moov after mdat is how most encoders write; it is whole too."""
    assert inspect_video(write_film(tmp_path / "late.mp4", moov_first=False)).frames == 48


def test_quicktime_is_taken_too(tmp_path: Path, whole: Path) -> None:
    """The QuickTime brand is the same container."""
    path = tmp_path / "quick.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mov") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    assert path.read_bytes()[8:12] == b"qt  "
    assert inspect_video(path).frames == 48


def spark(index: int) -> Image.Image:
    """Night, and one lamp that stays lit."""
    picture = Image.new("RGB", (320, 180))
    picture.paste((255, 240, 200), (150 + index, 80, 170 + index, 100))
    return picture


def late(index: int) -> Image.Image:
    """Black for most of the clip, a grey picture at its end."""
    return Image.new("RGB", (320, 180), (0, 0, 0) if index < 30 else (90, 90, 90))


@pytest.mark.parametrize(
    ("picture", "warnings"),
    [
        pytest.param(still((320, 180), (0, 0, 0)), ("black",), id="black"),
        pytest.param(still((320, 180), None), ("frozen",), id="frozen"),
        pytest.param(still((320, 180), (200, 200, 200)), ("frozen",), id="frozen-grey"),
        pytest.param(spark, (), id="small-thing-moves-at-night"),
        pytest.param(late, (), id="black-only-at-first"),
    ],
)
def test_black_and_frozen_clips_are_whole_but_warned_of(
    tmp_path: Path, picture: Callable[[int], Image.Image], warnings: tuple[str, ...]
) -> None:
    """The warning needs the flaw from start to end: a fade-in or a small move is a film."""
    assert inspect_video(write_film(tmp_path / "clip.mp4", picture=picture)).warnings == warnings


# --- check: what is not


def cut_in_half(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def cut_by_one(data: bytearray) -> bytes:
    return bytes(data[:-1])


def zero_tail(data: bytearray) -> bytearray:
    data[-len(data) // 4 :] = bytes(-(-len(data) // 4))
    return data


def zero_hole(data: bytearray) -> bytearray:
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    return data


def flip_bytes(data: bytearray) -> bytearray:
    """Eight bits of the pictures, as a bad disk does."""
    dice = random.Random(7)
    for _ in range(8):
        data[dice.randrange(data.index(b"mdat") + 1000, len(data))] ^= 1 << dice.randrange(8)
    return data


def swap_blocks(data: bytearray) -> bytearray:
    """Two blocks of a resumed download in the wrong order."""
    data[-8192:] = data[-4096:] + data[-8192:-4096]
    return data


def scramble_header(data: bytearray) -> bytearray:
    start = data.index(b"moov") + 200
    data[start : start + 300] = bytes(300)
    return data


def drop_pictures(data: bytearray) -> bytes:
    start = data.index(b"mdat") - 4
    return bytes(data[:start]) + struct.pack(">I4s", 8, b"mdat")


def append_page(data: bytearray) -> bytes:
    return bytes(data) + b"<html>502 Bad Gateway</html>"


def cut_endless(data: bytearray) -> bytes:
    """A box that says it ends where the file does cannot tell that it was cut; its last packet can."""
    start = data.index(b"mdat") - 4
    data[start : start + 4] = bytes(4)
    return bytes(data[:-100])


def promise_more(data: bytearray) -> bytearray:
    """A table of times for twice as many frames as there are."""
    for field in (data.index(b"mdhd") + 20, data.index(b"stts") + 12, data.index(b"elst") + 12):
        (value,) = struct.unpack_from(">I", data, field)
        struct.pack_into(">I", data, field, value * 2)
    return data


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(cut_in_half, "cut: its mdat ends at byte", id="cut-with-moov-first"),
        pytest.param(cut_by_one, "cut: its mdat ends at byte", id="cut-by-one-byte"),
        pytest.param(zero_tail, "damaged", id="zeroed-tail"),
        pytest.param(zero_hole, "damaged", id="zeroed-hole"),
        pytest.param(flip_bytes, "damaged", id="flipped-bits"),
        pytest.param(swap_blocks, "damaged", id="swapped-blocks"),
        pytest.param(scramble_header, "it holds no video stream", id="scrambled-header"),
        pytest.param(drop_pictures, "it holds no frames", id="header-without-pictures"),
        pytest.param(append_page, "ends at byte", id="page-appended"),
        pytest.param(cut_endless, "cut: a packet at byte", id="cut-without-a-length"),
        pytest.param(promise_more, "promises 4.000 s, but only 2.000 s", id="promises-more"),
    ],
)
def test_damage_is_caught(tmp_path: Path, whole: Path, damage: Damage, says: str) -> None:
    """Every damage that a download or a disk can do is found, and the message names the file."""
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damage(bytearray(whole.read_bytes())))
    with pytest.raises(BadOutputError, match=says) as caught:
        inspect_video(path)
    assert str(path) in str(caught.value)


def test_a_cut_with_the_header_last_is_caught(tmp_path: Path) -> None:
    """The other half of all cut files have no header at all."""
    path = write_film(tmp_path / "late.mp4", moov_first=False)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(BadOutputError, match=r"cut|without moov"):
        inspect_video(path)


@pytest.mark.parametrize(
    ("change", "sound", "notes"),
    [
        pytest.param(lambda data, _: data, "whole", (), id="whole"),
        pytest.param(damage_sound, "damaged", (), id="damaged"),
        pytest.param(unknown_sound, "unknown", ("sound",), id="without-a-decoder"),
    ],
)
def test_the_picture_is_whole_whatever_its_sound_is(
    tmp_path: Path, heard: Path, change: Callable[[bytearray, Path], bytes], sound: str, notes: tuple[str, ...]
) -> None:
    """The state of the sound is told beside it; dropped, it is no matter any more."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(change(bytearray(heard.read_bytes()), heard))
    measured = inspect_video(path)
    assert (measured.frames, measured.has_audio, measured.sound, measured.notes) == (24, True, sound, notes)
    for ratio in ((16, 9), (1, 1)):
        assert reframe(path, tmp_path / "out.mp4", ratio=ratio, keep_audio=False)
        assert (inspect_video(tmp_path / "out.mp4").sound, inspect_video(tmp_path / "out.mp4").frames) == ("none", 24)


def test_sound_without_a_decoder_is_kept_where_it_is_wanted(tmp_path: Path, heard: Path) -> None:
    """As it came; beside a picture that is encoded again it cannot be, which is said."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(unknown_sound(bytearray(heard.read_bytes()), heard))
    assert reframe(path, tmp_path / "same.mp4", ratio=(16, 9), keep_audio=True) is None
    assert reframe(path, tmp_path / "out.mp4", ratio=(1, 1), keep_audio=True) == ConformResult(("sound",))
    assert (inspect_video(path).sound, inspect_video(tmp_path / "out.mp4").sound) == ("unknown", "none")


def test_a_second_track_that_nobody_decodes_costs_nothing(tmp_path: Path) -> None:
    """Phones write APAC beside AAC: the track that can be heard counts, and is the one that is kept."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as target:
        video = target.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 320, 180, "yuv420p"
        tracks = [target.add_stream("aac", rate=48000, layout="mono") for _ in range(2)]
        for index in range(24):
            frame = av.VideoFrame.from_image(make_moving((320, 180))(index))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, 24)
            target.mux(video.encode(frame))
            for track in tracks:
                target.mux(track.encode(make_hiss(index, 2000)))
        target.mux(video.encode(None))
        for track in tracks:
            target.mux(track.encode(None))
    heard_first = path.read_bytes()
    data, at = heard_first, heard_first.index(b"mp4a\0\0\0\0")
    data = data[:at] + b"apac" + data[at + 4 :]
    at = data.index(b"esds", at)
    path.write_bytes(data[:at] + b"dapa" + data[at + 4 :])
    assert inspect_video(path).sound == "whole"
    assert reframe(path, tmp_path / "out.mp4", ratio=(1, 1), keep_audio=True) == ConformResult()
    assert inspect_video(tmp_path / "out.mp4").sound == "whole"


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9, 16, 512, 100_000])
@pytest.mark.parametrize("moov_first", [True, False], ids=["header-first", "header-last"])
def test_zeros_after_the_last_box_are_padding(tmp_path: Path, whole: Path, count: int, moov_first: bool) -> None:
    """Writers leave them, players do not mind, and the clip is paid for."""
    path = tmp_path / "padded.mp4"
    source = whole if moov_first else write_film(tmp_path / "late.mp4", moov_first=False)
    path.write_bytes(source.read_bytes() + bytes(count))
    assert inspect_video(path).frames == 48


@pytest.mark.parametrize("tail", [bytes(8) + b"x", b"\0\0\0\1", bytes(70_000) + b"PK"])
def test_what_is_not_only_zeros_is_no_padding(tmp_path: Path, whole: Path, tail: bytes) -> None:
    """Something was meant to be there."""
    path = tmp_path / "padded.mp4"
    path.write_bytes(whole.read_bytes() + tail)
    with pytest.raises(BadOutputError, match="damaged at byte"):
        inspect_video(path)


def image_bytes(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\n<!DOCTYPE html><title>Just a moment</title>", "not an mp4 but HTML or XML$", id="html"),
        pytest.param(b'{"detail": "Not found."}', "not an mp4 but JSON$", id="json"),
        pytest.param(b"upstream connect error", "not an mp4 but text$", id="text"),
        pytest.param(image_bytes("PNG"), "PNG", id="png"),
        pytest.param(image_bytes("JPEG"), "JPEG", id="jpeg"),
        pytest.param(image_bytes("GIF"), "GIF", id="gif"),
        pytest.param(b"\x1a\x45\xdf\xa3" + bytes(64), "WebM", id="webm"),
        pytest.param(bytes(4096), "zeros", id="zeros"),
        pytest.param(b"\x07\x01\x99\x80" * 16, "not an mp4 but something unknown$", id="unknown"),
        pytest.param(struct.pack(">I4s4s", 12, b"ftyp", b"isom"), "without moov, mdat", id="ftyp-alone"),
        pytest.param(struct.pack(">I4s4sI4s", 12, b"ftyp", b"isom", 3, b"moov"), "damaged at byte 12", id="tiny-box"),
        pytest.param(struct.pack(">I4s", 8, b"free") * 200_000, "boxes", id="endless-boxes"),
    ],
)
def test_what_came_instead_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    """A page, an error answer or a picture named .mp4 is called what it is."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with pytest.raises(BadOutputError, match=says):
        inspect_video(path)


SECRET = b"AKIAEXAMPLESECRET"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(SECRET, id="text"),
        pytest.param(b'{"Token": "%s"}' % SECRET, id="json"),
        pytest.param(b"<token>%s</token>" % SECRET, id="xml"),
        pytest.param(b"\x07\x01" + SECRET, id="binary"),
        pytest.param(struct.pack(">I4s4s", 12, b"ftyp", b"isom") + SECRET, id="after-a-box"),
        pytest.param(struct.pack(">I4s4sI4s", 12, b"ftyp", b"isom", 900, SECRET[:4]) + SECRET, id="as-a-cut-box"),
        pytest.param(struct.pack(">I4s4s4s", 12, b"ftyp", b"isom", b"\0\0\0\5") + SECRET, id="as-a-short-box"),
    ],
)
def test_rejected_bytes_are_never_quoted(tmp_path: Path, data: bytes) -> None:
    """An address may have led into a network that is not the job's business; its answer does not reach the manifest."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with pytest.raises(BadOutputError) as caught:
        inspect_video(path)
    said = str(caught.value).removeprefix(str(path))
    assert not any(SECRET[at : at + 4].decode() in said or SECRET[at : at + 2].hex(" ") in said for at in range(12))
    assert said.isprintable()


# --- check: what would take for ever


def raw_film(path: Path, size: tuple[int, int], frames: int = 3) -> Path:
    """Pictures that are not coded: all samples are of one size, so that the header alone says how many there are."""
    with av.open(str(path), "w", format="mov") as target:
        video = target.add_stream("rawvideo", rate=24)
        video.width, video.height, video.pix_fmt = *size, "rgb24"
        for index in range(frames):
            frame = av.VideoFrame.from_image(Image.new("RGB", size))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, 24)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
    return path


def many_samples(path: Path, count: int, size: tuple[int, int] = (64, 36)) -> None:
    """A header that says that there are `count` pictures, in a file of a few kilobytes."""
    data = bytearray(raw_film(path, size).read_bytes())
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, count)
    struct.pack_into(">I", data, data.index(b"stts") + 12, count)
    path.write_bytes(data)


def many_in_a_fragment(path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(path), "w", format="mp4", options=options) as target:
        video = target.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        for index in range(3):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 36)))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, 24)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
    data = bytearray(path.read_bytes())
    struct.pack_into(">I", data, data.index(b"trun") + 8, 2**31)
    path.write_bytes(data)


def many_edits(path: Path) -> None:
    data = bytearray(write_film(path, frames=3, moov_first=False).read_bytes())
    struct.pack_into(">I", data, data.index(b"elst") + 8, 2**30)
    path.write_bytes(data)


def a_million_a_second(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as target:
        video = target.add_stream("libx264", rate=1_000_000, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        for index in range(12):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 36)))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, 1_000_000)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda path: raw_film(path, (2, 60_000)), "a picture of 2x60000", id="two-by-60000"),
        pytest.param(lambda path: raw_film(path, (60_000, 2)), "a picture of 60000x2", id="60000-by-two"),
        pytest.param(lambda path: raw_film(path, (1, 60_000)), "a picture of 1x60000", id="one-column"),
        pytest.param(
            lambda path: raw_film(path, (9000, 9000), 1),
            "a picture of 9000x9000",
            id="81-megapixels",
            marks=pytest.mark.long,
        ),
        pytest.param(lambda path: many_samples(path, 2**31), "announces 2,147,483,648 samples", id="2-billion-samples"),
        pytest.param(lambda path: many_samples(path, 1_000_001), "announces 1,000,001 samples", id="a-million-samples"),
        pytest.param(
            lambda path: many_samples(path, 300_000, (1024, 1024)), "300,000 pictures of 1024x1024", id="3-hours-of-1k"
        ),
        pytest.param(many_in_a_fragment, "announces 2,147,483,6", id="2-billion-in-a-fragment"),
        pytest.param(many_edits, "announces 3,221,225,472 samples", id="a-billion-edits"),
        pytest.param(a_million_a_second, "a frame rate of 1e\\+06", id="a-million-a-second"),
    ],
)
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    """What a header announces is more than any clip has: neither memory nor time is spent on it."""
    path = tmp_path / "bomb.mp4"
    make(path)
    with pytest.raises(BadOutputError, match=says):
        inspect_video(path)


class Later(Event):
    """Is set from the so-many-th time that it is looked at."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("looks", [0, 1, 40])
def test_a_decoder_stops_when_it_is_told_to(tmp_path: Path, heard: Path, looks: int) -> None:
    """At the next packet: a thread that decodes hears neither of a timeout nor of Ctrl-C otherwise."""
    stop = Later(looks)
    with pytest.raises(StorageError, match="given up"):
        inspect_video(heard, poster=tmp_path / "poster.jpg", stop=stop)
    assert stop.left == -1
    for keep_audio, ratio in ((False, (16, 9)), (True, (1, 1))):
        with pytest.raises(StorageError, match="given up"):
            conform(heard, tmp_path / "out.mp4", ratio=ratio, fps=None, size=None, keep_audio=keep_audio, stop=Later(3))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_a_matter_of_storage(tmp_path: Path) -> None:
    """Not the provider's fault, so not its error."""
    nothing, out = tmp_path / "nothing.mp4", tmp_path / "out"
    with pytest.raises(StorageError, match="No such file"):
        inspect_video(nothing)
    with pytest.raises(StorageError, match="No such file"):
        conform(nothing, out, ratio=(1, 1), fps=None, size=None, keep_audio=True)


# --- poster


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        pytest.param((320, 180), (320, 180), id="never-enlarged"),
        pytest.param((1080, 1920), (540, 960), id="ratio-kept"),
    ],
)
def test_a_poster_keeps_the_ratio(tmp_path: Path, folder: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    """The longer edge is at most 960 px."""
    inspect_video(write_film(folder / "framed.mp4", size=size, frames=4), poster=tmp_path / "poster.jpg")
    with Image.open(tmp_path / "poster.jpg") as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", shown, {})
    assert [path.name for path in tmp_path.iterdir()] == ["poster.jpg"]


def test_a_poster_shows_the_frame_a_third_of_the_way_in(tmp_path: Path) -> None:
    """Not the first frame, which is often the start image or black; four frames of a second are looked at."""
    write_film(tmp_path / "clip.mp4", picture=lambda index: Image.new("L", (320, 180), 40 + 4 * index).convert("RGB"))
    inspect_video(tmp_path / "clip.mp4", poster=tmp_path / "poster.jpg")
    with Image.open(tmp_path / "poster.jpg") as image:
        assert ImageStat.Stat(image.convert("L")).mean[0] == pytest.approx(40 + 4 * 18, abs=4)


def test_a_poster_looks_past_black(tmp_path: Path) -> None:
    """A clip that is black a third of the way in is shown by a later frame."""
    write_film(tmp_path / "clip.mp4", picture=late)
    inspect_video(tmp_path / "clip.mp4", poster=tmp_path / "poster.jpg")
    with Image.open(tmp_path / "poster.jpg") as image:
        assert ImageStat.Stat(image.convert("L")).mean[0] == pytest.approx(90, abs=4)


def test_a_black_clip_still_gets_a_poster(tmp_path: Path) -> None:
    """There is nothing better to show than what there is."""
    write_film(tmp_path / "clip.mp4", picture=still((320, 180), (0, 0, 0)), frames=3)
    inspect_video(tmp_path / "clip.mp4", poster=tmp_path / "poster.jpg")
    assert (tmp_path / "poster.jpg").stat().st_size > 0


def test_a_poster_that_cannot_be_written_is_a_matter_of_storage(tmp_path: Path, whole: Path) -> None:
    """And nothing is left behind."""
    with pytest.raises(StorageError, match="No such file"):
        inspect_video(whole, poster=tmp_path / "missing" / "poster.jpg")
    assert list(tmp_path.iterdir()) == []


LIGHT = "import sys, videogen.media, videogen.references.fetch; print(*{'av', 'PIL', 'httpx'} & sys.modules.keys())"


def test_importing_costs_nothing() -> None:
    """A plan or a help text loads no decoder, no image library and no HTTP client."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.strip() == ""
