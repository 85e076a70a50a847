"""The delivered clips as one film."""

import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from threading import Event

import av
import pytest
from PIL import Image

from tests.support.builders import deliver, job_of, refuse, result_of, small_clip
from videogen.errors import BadOutputError, StorageError
from videogen.media import check_music, inspect_video
from videogen.reports.rough_cut import draw_slate, write_rough_cut
from videogen.results.run_result import RunResult
from videogen.results.takes import get_chosen_clips
from videogen.storage.local import FileStore

pytestmark = pytest.mark.integration

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
Painter = Callable[[tuple[int, int]], Image.Image]


def plain(color: tuple[int, int, int]) -> Painter:
    return lambda size: Image.new("RGB", size, color)


def framed(size: tuple[int, int]) -> Image.Image:
    """Green between two blue bars at the sides, each a quarter of the width."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(GREEN, (size[0] // 4, 0, size[0] * 3 // 4, size[1]))
    return picture


def clip(
    folder: Path,
    painter: Painter,
    seconds: float,
    *,
    size: tuple[int, int] = (64, 36),
    fps: int = 24,
    sound: bool = False,
) -> bytes:
    path = folder / "made.mp4"
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        audio = target.add_stream("aac", rate=48000, layout="mono") if sound else None
        for index in range(round(seconds * fps)):
            frame = av.VideoFrame.from_image(painter(size))  # type: ignore[no-untyped-call]
            frame.pts, frame.time_base = index, Fraction(1, fps)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if audio is not None:
            noise = av.AudioFrame(format="s16", layout="mono", samples=48000)
            noise.sample_rate, noise.pts = 48000, 0
            target.mux(audio.encode(noise))
            target.mux(audio.encode(None))
    return path.read_bytes()


def colors(path: Path) -> list[str]:
    """Of the middle of each frame: the strongest of R, G and B."""
    with av.open(str(path)) as container:
        return [_strongest(frame) for frame in container.decode(video=0)]


def _strongest(frame: av.VideoFrame, across: float = 0.5) -> str:
    image = frame.to_image()  # type: ignore[no-untyped-call]
    pixel = image.getpixel((int(image.width * across), image.height // 2))
    return "RGB"[pixel.index(max(pixel))]


def film(
    tmp_path: Path, *clips: bytes, targets: list[float], places: list[int] | None = None
) -> tuple[FileStore, RunResult]:
    store = FileStore(tmp_path / "film")
    scenes = [
        {"target_duration": t, "clip_index": p} for t, p in zip(targets, places or range(len(targets)), strict=True)
    ]
    job = job_of(*scenes)
    return store, result_of(job, [deliver(store, scene, video) for scene, video in zip(job.scenes, clips, strict=True)])


def test_clips_follow_each_other_each_cut_to_its_target(tmp_path: Path) -> None:
    """In the order of the film, not of the job; to the frame."""
    made = [clip(tmp_path, plain(color), 2) for color in (RED, GREEN, BLUE)]
    store, batch = film(tmp_path, *made, targets=[1, 0.5, 1.5], places=[2, 0, 1])
    write_rough_cut(batch, store)
    assert colors(store.path("rough_cut.mp4")) == ["G"] * 12 + ["B"] * 36 + ["R"] * 24
    assert inspect_video(store.path("rough_cut.mp4")).duration == 3.0


def test_the_film_keeps_its_time(tmp_path: Path) -> None:
    """To the frame, with a scene that is missing, one that is short, and one that the job has twice."""
    made = [clip(tmp_path, plain(color), 1) for color in (RED, GREEN, BLUE, BLUE)]
    store, batch = film(tmp_path, *made, targets=[1.3, 0.5, 0.5, 0.5])
    job = job_of(*({"target_duration": target} for target in (1.3, 0.5, 0.5, 0.5, 0.71)))
    write_rough_cut(result_of(job, [*batch.clips, refuse(job.scenes[4], "no")]), store)
    path = store.path("rough_cut.mp4")
    assert inspect_video(path).frames == round((1.3 + 3 * 0.5 + 0.71) * 24)
    shown = colors(path)
    assert shown[: 31 + 12 + 24] == ["R"] * 31 + ["G"] * 12 + ["B"] * 24  # red: a second, and then its last picture
    assert len(shown[67:]) == 17


def test_a_short_clip_freezes_on_its_last_picture(tmp_path: Path) -> None:
    """Not on its first, and not on black."""
    left = iter([RED] * 23 + [GREEN])
    store, batch = film(tmp_path, clip(tmp_path, lambda size: Image.new("RGB", size, next(left)), 1), targets=[1.5])
    write_rough_cut(batch, store)
    assert colors(store.path("rough_cut.mp4")) == ["R"] * 23 + ["G"] * 13


def test_a_slate_says_what_is_missing_and_why(tmp_path: Path) -> None:
    """The scene, what was asked and the reason; in the size of the film, whatever is written."""
    job = job_of({"id": "pier"}, {"id": "x" * 80})
    short = refuse(job.scenes[0], "flagged as sensitive")
    bare = draw_slate(short, "", (640, 360))
    told = draw_slate(short, "A pier at dawn, gulls over it", (640, 360))
    long = draw_slate(refuse(job.scenes[1], "y" * 500), "word " * 2000 + "海" * 400 + "\x1b[2J", (64, 36))
    assert (bare.size, told.size, long.size) == ((640, 360), (640, 360), (64, 36))
    rows = [
        [max(image.convert("L").crop((0, y, 640, y + 1)).tobytes()) > 100 for y in range(360)] for image in (bare, told)
    ]
    written = [sum(now and not before for before, now in pairwise(lit)) for lit in rows]
    assert written[1] > written[0] >= 2
    assert not any(rows[1][-30:])


def test_the_newest_take_of_the_first_model_stands_for_its_scene(tmp_path: Path) -> None:
    """Takes and models side by side are not strung together."""
    store = FileStore(tmp_path / "film")
    job = job_of({"target_duration": 1}, {"target_duration": 1}, models=["one", "two"], takes=2)
    cells = [cell for cell, _ in job.variants()]
    colours = [None, GREEN, RED, RED, None, None, BLUE, RED]
    clips = [
        deliver(store, cell, clip(tmp_path, plain(colour), 1)) if colour else refuse(cell, "no")
        for cell, colour in zip(cells, colours, strict=True)
    ]
    batch = result_of(job, clips, cells_per_scene=4)
    assert [each.scene_id for each in get_chosen_clips(batch)] == ["s0.one.take-2", "s1.two.take-2"]
    write_rough_cut(batch, store)
    assert colors(store.path("rough_cut.mp4")) == ["G"] * 24 + ["R"] * 24


# -- music ------------------------------------------------------------------------------------------------------------


def song(path: Path, seconds: float, rate: int = 44100, codec: str = "pcm_s16le") -> Path:
    """A tone at three quarters of full scale."""
    with av.open(str(path), "w") as target:
        audio = target.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(audio, av.AudioStream)
        wave = b"".join(struct.pack("<h", 24000 if n // 50 % 2 else -24000) for n in range(rate // 10))
        for index in range(round(seconds * 10)):
            frame = av.AudioFrame(format="s16", layout="mono", samples=rate // 10)
            frame.planes[0].update(wave.ljust(frame.planes[0].buffer_size, b"\0"))
            frame.sample_rate, frame.pts, frame.time_base = rate, index * (rate // 10), Fraction(1, rate)
            target.mux(audio.encode(frame))
        target.mux(audio.encode(None))
    return path


def loudness(path: Path) -> list[float]:
    """The loudest sample of each tenth of a second, 0 to 1."""
    with av.open(str(path)) as container:
        samples: list[float] = []
        for frame in container.decode(audio=0):
            plane = bytes(frame.planes[0])
            samples += struct.unpack_from(f"<{frame.samples}f", plane)
    return [max(map(abs, samples[at : at + 4800])) for at in range(0, len(samples), 4800)]


def test_a_song_is_put_under_the_film(tmp_path: Path) -> None:
    """From its beginning, faded out at the end of the film, and no longer than that; the pictures stay as they are."""
    store, batch = film(tmp_path, *[clip(tmp_path, plain(RED), 1)] * 4, targets=[1, 1, 1, 1])
    write_rough_cut(batch, store, music=song(tmp_path / "song.wav", 9))
    path = store.path("rough_cut.mp4")
    measured = inspect_video(path)
    assert (measured.frames, measured.duration, measured.sound) == (96, 4.0, "whole")
    heard = loudness(path)
    assert len(heard) == pytest.approx(40, abs=1)
    assert min(heard[1:20]) > 0.5
    assert max(heard[38:]) < 0.15
    with av.open(str(path)) as container:
        assert container.duration is not None
        assert container.duration / 1_000_000 == pytest.approx(4, abs=0.03)


def test_a_song_that_is_shorter_than_the_film_ends(tmp_path: Path) -> None:
    """The film goes on in silence."""
    store, batch = film(tmp_path, *[clip(tmp_path, plain(RED), 1)] * 4, targets=[1, 1, 1, 1])
    write_rough_cut(batch, store, music=song(tmp_path / "song.wav", 1.5))
    measured = inspect_video(store.path("rough_cut.mp4"))
    assert (measured.frames, measured.duration) == (96, 4.0)
    assert len(loudness(store.path("rough_cut.mp4"))) == pytest.approx(15, abs=1)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.flac", "flac"), ("a.ogg", "libopus")]
)
def test_usual_music_files_are_taken(tmp_path: Path, name: str, codec: str) -> None:
    """Whatever a musician sends."""
    path = song(tmp_path / name, 2, rate=48000, codec=codec)
    check_music(path)
    store, batch = film(tmp_path, clip(tmp_path, plain(RED), 1), targets=[1])
    write_rough_cut(batch, store, music=path)
    assert inspect_video(store.path("rough_cut.mp4")).sound == "whole"


def test_what_is_no_music_is_said_by_its_name(tmp_path: Path) -> None:
    """Before anything is paid for, if the caller asks before."""
    (tmp_path / "text.mp3").write_text("not music")
    (tmp_path / "silent.mp4").write_bytes(small_clip(1))
    for name, says in (("none.mp3", "No such file"), ("text.mp3", "not a sound file"), ("silent.mp4", "no sound")):
        with pytest.raises(StorageError, match=rf"{name}: .*{says}"):
            check_music(tmp_path / name)


def test_rounding_does_not_add_up(tmp_path: Path) -> None:
    """Forty clips of 10.44 frames are 418 frames, not 400 or 440."""
    made = clip(tmp_path, plain(RED), 1)
    store, batch = film(tmp_path, *[made] * 40, targets=[0.435] * 40)
    write_rough_cut(batch, store)
    assert inspect_video(store.path("rough_cut.mp4")).frames == 418


def test_the_first_clip_decides_the_size_and_most_clips_the_rate(tmp_path: Path) -> None:
    """Another ratio is cropped around its centre, never squeezed; another rate keeps its length."""
    made = [
        clip(tmp_path, plain(RED), 1, size=(64, 64), fps=30),
        clip(tmp_path, framed, 1, size=(256, 128), fps=12),
        clip(tmp_path, plain(BLUE), 1, size=(32, 32), fps=12),
    ]
    store, batch = film(tmp_path, *made, targets=[1, 1, 1])
    write_rough_cut(batch, store)
    path = store.path("rough_cut.mp4")
    measured = inspect_video(path)
    assert (measured.width, measured.height, measured.fps, measured.duration) == (64, 64, 12, 3)
    assert colors(path) == ["R"] * 12 + ["G"] * 12 + ["B"] * 12
    with av.open(str(path)) as container:
        second = list(container.decode(video=0))[18]
    assert [_strongest(second, across) for across in (0.05, 0.5, 0.95)] == ["G", "G", "G"]


def test_the_film_plays_everywhere_and_is_silent(tmp_path: Path) -> None:
    """H.264 in yuv420p, its header first, without the sound of its clips."""
    store, batch = film(tmp_path, clip(tmp_path, plain(RED), 1, sound=True), targets=[1])
    assert inspect_video(store.path("clips/s0.mp4")).has_audio
    write_rough_cut(batch, store)
    path = store.path("rough_cut.mp4")
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_without_clips_there_is_no_film(tmp_path: Path) -> None:
    """Said, not an empty file."""
    job = job_of({})
    with pytest.raises(StorageError, match="there is no clip"):
        write_rough_cut(result_of(job, [refuse(job.scenes[0], "no")]), FileStore(tmp_path))
    assert not (tmp_path / "rough_cut.mp4").exists()


def test_a_film_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C need not wait for it, and half a film is not taken for one."""
    store, batch = film(tmp_path, small_clip(1), targets=[1])
    stop = Event()
    stop.set()
    with pytest.raises(StorageError, match="given up"):
        write_rough_cut(batch, store, stop=stop)
    assert sorted(path.name for path in store.path(".").iterdir()) == [".scratch", "clips", "posters"]
    assert not list(store.path(".scratch").iterdir())


def test_a_damaged_clip_is_named(tmp_path: Path) -> None:
    """What changed on the disk since it was delivered is not cut in."""
    store, batch = film(tmp_path, small_clip(1), targets=[1])
    store.path("clips/s0.mp4").write_bytes(b"gone")
    with pytest.raises(BadOutputError, match=r"s0\.mp4"):
        write_rough_cut(batch, store)
