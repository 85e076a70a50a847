"""What is made of a video that is not as the job asks for."""

import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from tests.media.conftest import reframe, shown, still
from tests.support.builders import write_film
from videogen.errors import BadOutputError
from videogen.media import inspect_video


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        pytest.param((16, 9), (208, 116), id="16:9"),
        pytest.param((9, 16), (66, 120), id="9:16"),
        pytest.param((1, 1), (120, 120), id="1:1"),
        pytest.param((4, 3), (160, 120), id="4:3"),
        pytest.param((3, 4), (90, 120), id="3:4"),
        pytest.param((21, 9), (208, 88), id="21:9"),
    ],
)
def test_a_clip_is_cropped_to_the_ratio(
    tmp_path: Path, slow: Path, ratio: tuple[int, int], size: tuple[int, int]
) -> None:
    """The largest even picture of the ratio is cut out, and the frames stay as many and as long."""
    assert reframe(slow, tmp_path / "out.mp4", ratio=ratio)
    measured = inspect_video(tmp_path / "out.mp4")
    assert (measured.width, measured.height) == size
    assert (measured.frames, measured.duration) == (24, 3.0)


def test_the_crop_is_around_the_centre(tmp_path: Path) -> None:
    """What is in the middle stays in the middle; both edges go."""

    def target(index: int) -> Image.Image:
        picture = Image.new("RGB", (320, 180), (200, 40, 40))
        picture.paste((40, 160, 60), (80, 0, 240, 180))
        return picture

    write_film(tmp_path / "clip.mp4", picture=target, frames=4)
    reframe(tmp_path / "clip.mp4", tmp_path / "out.mp4", size=(160, 180))
    inspect_video(tmp_path / "out.mp4", poster=tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        difference = ImageChops.difference(image.convert("RGB"), Image.new("RGB", image.size, (40, 160, 60)))
    assert max(ImageStat.Stat(difference.crop((4, 4, 156, 176))).mean) < 8


@pytest.mark.long_variants
@pytest.mark.parametrize(
    ("size", "ratio", "becomes"),
    [
        pytest.param((1920, 1088), (16, 9), (1920, 1080), id="full-hd-in-blocks"),
        pytest.param((1088, 1920), (9, 16), (1080, 1920), id="the-same-upright"),
        pytest.param((2176, 928), (21, 9), (2164, 928), id="wide-in-blocks"),
        pytest.param((640, 368), (16, 9), (640, 360), id="small-in-blocks"),
        pytest.param((854, 480), (16, 9), None, id="rounded"),
        pytest.param((1366, 768), (16, 9), None, id="rounded-hd"),
        pytest.param((1248, 704), (16, 9), None, id="two-lines"),
        pytest.param((1112, 834), (4, 3), None, id="exact"),
    ],
)
def test_lines_that_only_fill_a_coding_block_are_cropped(
    tmp_path: Path, size: tuple[int, int], ratio: tuple[int, int], becomes: tuple[int, int] | None
) -> None:
    """Seedance's 1920x1088 is meant as 1920x1080; a size that was rounded is not worth encoding a clip again."""
    source = write_film(tmp_path / "clip.mp4", size=size, frames=2)
    done = reframe(source, tmp_path / "out.mp4", ratio=ratio)
    assert (done is None) == (becomes is None)
    if becomes:
        measured = inspect_video(tmp_path / "out.mp4")
        assert (measured.width, measured.height) == becomes


def test_the_tolerance_is_the_callers(tmp_path: Path) -> None:
    """With a tenth of a percent two lines go, too."""
    source = write_film(tmp_path / "clip.mp4", size=(1248, 704), frames=2)
    assert reframe(source, tmp_path / "out.mp4", ratio=(16, 9), tolerance=0.001)
    measured = inspect_video(tmp_path / "out.mp4")
    assert (measured.width, measured.height) == (1248, 702)


@pytest.mark.parametrize(
    "fps", [pytest.param(24.0, id="thrice"), pytest.param(30.0, id="uneven"), pytest.param(5.0, id="fewer")]
)
def test_the_frame_rate_changes_and_the_duration_does_not(tmp_path: Path, slow: Path, fps: float) -> None:
    """Frames are repeated or left out; the last one is held to its end."""
    assert reframe(slow, tmp_path / "out.mp4", fps=fps)
    measured = inspect_video(tmp_path / "out.mp4")
    assert measured.fps == fps
    assert measured.duration == pytest.approx(3.0, abs=1 / fps)
    assert measured.frames == round(3.0 * fps)


def test_frames_are_repeated_not_blended(tmp_path: Path) -> None:
    """A cut from dark to light stays a cut: every frame is one or the other."""
    write_film(
        tmp_path / "clip.mp4",
        fps=8,
        frames=8,
        picture=lambda index: Image.new("RGB", (320, 180), (40, 40, 40) if index < 4 else (200, 200, 200)),
    )
    reframe(tmp_path / "clip.mp4", tmp_path / "out.mp4", fps=24)
    with av.open(str(tmp_path / "out.mp4")) as container:
        means = [ImageStat.Stat(shown(frame)).mean[0] for frame in container.decode(video=0)]
    assert len(means) == 24
    assert [round(mean / 10) for mean in means] == [4] * 12 + [20] * 12


def test_a_rate_within_the_tolerance_is_left_alone(tmp_path: Path, whole: Path) -> None:
    """23.976 is 24 to the eye."""
    assert not reframe(whole, tmp_path / "out.mp4", fps=24000 / 1001)


def test_a_size_is_cropped_to_and_scaled_to(tmp_path: Path, slow: Path) -> None:
    """The model's own picture, 208x120, becomes the square asked for, without being squeezed."""
    assert reframe(slow, tmp_path / "out.mp4", size=(256, 256))
    measured = inspect_video(tmp_path / "out.mp4")
    assert (measured.width, measured.height) == (256, 256)


def test_nothing_asked_is_nothing_written(tmp_path: Path, heard: Path) -> None:
    """A clip that is as asked is not touched."""
    assert not reframe(heard, tmp_path / "out.mp4", ratio=(16, 9), fps=24, size=(320, 180))
    assert list(tmp_path.iterdir()) == []


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_dropping_the_sound_copies_the_picture(tmp_path: Path, heard: Path) -> None:
    """The pictures come out byte for byte; encoding them again would cost quality and time."""
    assert reframe(heard, tmp_path / "out.mp4", keep_audio=False)
    assert not inspect_video(tmp_path / "out.mp4").has_audio
    assert packets(tmp_path / "out.mp4", "video") == packets(heard, "video")


def test_kept_sound_is_copied_while_the_picture_changes(tmp_path: Path, heard: Path) -> None:
    """The sound comes out byte for byte beside the new picture."""
    assert reframe(heard, tmp_path / "out.mp4", ratio=(1, 1))
    assert inspect_video(tmp_path / "out.mp4").has_audio
    assert packets(tmp_path / "out.mp4", "audio") == packets(heard, "audio")


def test_a_conformed_clip_plays_at_once_and_says_its_colours(tmp_path: Path, slow: Path) -> None:
    """The header comes first, and the colours are tagged, so that browsers agree on both."""
    reframe(slow, tmp_path / "out.mp4", ratio=(1, 1))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_a_conformed_clip_keeps_its_colours(tmp_path: Path) -> None:
    """Tagging bt709 what was bt601 would turn a red orange."""
    write_film(tmp_path / "clip.mp4", picture=still((320, 180), (190, 40, 30)), frames=4)
    reframe(tmp_path / "clip.mp4", tmp_path / "out.mp4", ratio=(1, 1))
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        mean = ImageStat.Stat(shown(frame)).mean
    assert mean == pytest.approx([190, 40, 30], abs=6)


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    """No half-made clip appears under the final name, nor beside it."""
    source = tmp_path / "damaged.mp4"
    source.write_bytes(b"\0\0\0\x0cftypisom")
    with pytest.raises(BadOutputError, match="damaged"):
        reframe(source, tmp_path / "out.mp4", ratio=(1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.mp4"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from videogen.errors import StorageError
from videogen.media import conform
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    conform(Path(sys.argv[1]), Path(sys.argv[2]), ratio=(1, 1), fps=60, size=None, keep_audio=True)
except StorageError as exc:
    print(exc)
"""


def test_a_full_disk_is_a_matter_of_storage(tmp_path: Path, whole: Path) -> None:
    """Whatever had been written is removed, so that the disk is not fuller than before."""
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-c", FULL_DISK, str(whole), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.startswith(f"{out}: cannot be written: ")
    assert list(tmp_path.iterdir()) == []
