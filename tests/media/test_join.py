"""Segments joined to one clip: what is there once, what is copied, and what is heard."""

from pathlib import Path
from threading import Event

import av
import pytest

from tests.support.builders import write_film
from videogen.errors import BadOutputError, StorageError
from videogen.media import inspect_video, join_clips


def luma(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        frames = (frame.reformat(64, 36, "gray") for frame in container.decode(video=0))
        return [frame.to_image().tobytes() for frame in frames]  # type: ignore[no-untyped-call]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def is_near(one: bytes, other: bytes) -> bool:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one) < 4


@pytest.fixture(scope="module")
def crossed(folder: Path) -> Path:
    """As `whole`, but with pictures that need later ones."""
    return write_film(folder / "crossed.mp4", preset="fast")


@pytest.mark.parametrize("length_s", [1.8, 1.5, 1.51])
def test_pictures_before_the_cut_are_copied(whole: Path, tmp_path: Path, length_s: float) -> None:
    """Byte for byte, though a cut falls between two of them; the last clip makes up for it."""
    out = tmp_path / "joined.mp4"
    join_clips([(whole, length_s), (whole, length_s), (whole, 1.2)], out)
    cut = -int(-length_s * 24 // 1)
    left = round((2 * length_s + 1.2) * 24) - 2 * cut
    source = packets(whole)
    assert packets(out) == [*source[:cut], *source[:cut], *source[:left]]
    assert inspect_video(out).duration == pytest.approx(2 * length_s + 1.2, abs=0.5 / 24 + 0.001)
    assert inspect_video(out).frames == len(luma(out)) == 2 * cut + left


def test_pictures_that_need_later_ones_are_encoded_again(crossed: Path, tmp_path: Path) -> None:
    """None is lost or there twice."""
    out = tmp_path / "joined.mp4"
    join_clips([(crossed, 1.3), (crossed, 1.0)], out)
    source, joined = luma(crossed), luma(out)
    expected = [*source[:32], *source[:23]]
    assert len(joined) == len(expected) == round(2.3 * 24)
    assert all(map(is_near, joined, expected))
    assert inspect_video(out).warnings == ()


def test_clips_of_two_sizes_become_one_of_the_first(whole: Path, slow: Path, tmp_path: Path) -> None:
    out = tmp_path / "joined.mp4"
    join_clips([(whole, 1.0), (slow, 2.0)], out)
    measured = inspect_video(out)
    assert (measured.width, measured.height, measured.fps, measured.frames) == (320, 180, 24, 72)


def test_a_clip_that_is_shorter_than_its_cut_gives_its_last_picture_to_the_next(whole: Path, tmp_path: Path) -> None:
    """The next one begins with it."""
    out = tmp_path / "joined.mp4"
    join_clips([(whole, 2.1), (whole, 1.5)], out)
    source = packets(whole)
    assert packets(out) == [*source[:47], *source[: round(3.6 * 24) - 47]]


@pytest.mark.parametrize("parts", ["heard-silent", "silent-heard", "heard-heard"])
def test_sound_is_kept_in_its_place(heard: Path, whole: Path, tmp_path: Path, parts: str) -> None:
    """A silent clip is silent there, and the sound is as long as the picture."""
    out = tmp_path / "joined.mp4"
    clips = {"heard": heard, "silent": whole}
    join_clips([(clips[name], 0.9) for name in parts.split("-")], out, keep_sound=True)
    measured = inspect_video(out)
    assert (measured.has_audio, measured.sound) == (True, "whole")
    loud = [read_loudness(out, at_s) > 0.01 for at_s in (0.45, 1.35)]
    assert loud == [name == "heard" for name in parts.split("-")]
    with av.open(str(out)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(1.8, abs=0.05)


def read_loudness(path: Path, at_s: float) -> float:
    """The largest value within a tenth of a second."""
    with av.open(str(path)) as container:
        near = (frame for frame in container.decode(audio=0) if abs(float(frame.time or 0) - at_s) < 0.1)
        return max(abs(value) for frame in near for value in memoryview(bytes(frame.planes[0])).cast("f"))


@pytest.mark.parametrize("kind", ["copied", "encoded", "heard"])
def test_a_strict_decoder_finds_nothing_wrong(
    whole: Path, crossed: Path, heard: Path, tmp_path: Path, kind: str
) -> None:
    """Each picture comes after the one before, in even steps."""
    out = tmp_path / "joined.mp4"
    parts = {"copied": [whole, whole], "encoded": [crossed, whole], "heard": [heard, heard]}[kind]
    join_clips([(path, 0.9) for path in parts], out, keep_sound=kind == "heard")
    with av.open(str(out)) as container:
        for stream in (*container.streams.video, *container.streams.audio):
            stream.codec_context.options = {"err_detect": "explode"}
        times = [frame.time for frame in container.decode() if isinstance(frame, av.VideoFrame)]
    assert times == pytest.approx([number / 24 for number in range(len(times))], abs=0.001)


def test_a_damaged_clip_is_named_and_nothing_is_left(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:5000])
    out = tmp_path / "joined.mp4"
    with pytest.raises(BadOutputError, match=r"cut\.mp4"):
        join_clips([(whole, 1.0), (tmp_path / "cut.mp4", 1.0)], out)
    stop = Event()
    stop.set()
    with pytest.raises(StorageError, match="given up"):
        join_clips([(whole, 1.0), (whole, 1.0)], out, stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mp4"]
