"""The delivered clips as one film."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Event

import av
import pytest
from PIL import Image

from tests.unit.batches import batch_of, deliver, job_of, refused
from tests.unit.fakes import small_clip
from videogen.adapters.files import FileStore
from videogen.clip import Batch
from videogen.errors import BadOutputError, StorageError
from videogen.media import check
from videogen.rough_cut import write

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
) -> tuple[FileStore, Batch]:
    store = FileStore(tmp_path / "film")
    scenes = [
        {"target_duration": t, "clip_index": p} for t, p in zip(targets, places or range(len(targets)), strict=True)
    ]
    job = job_of(*scenes)
    return store, batch_of(job, [deliver(store, scene, video) for scene, video in zip(job.scenes, clips, strict=True)])


def test_clips_follow_each_other_each_cut_to_its_target(tmp_path: Path) -> None:
    """In the order of the film, not of the job; to the frame."""
    made = [clip(tmp_path, plain(color), 2) for color in (RED, GREEN, BLUE)]
    store, batch = film(tmp_path, *made, targets=[1, 0.5, 1.5], places=[2, 0, 1])
    write(batch, store)
    assert colors(store.path("rough_cut.mp4")) == ["G"] * 12 + ["B"] * 36 + ["R"] * 24
    assert check(store.path("rough_cut.mp4")).duration == 3.0


def test_a_short_clip_is_used_whole_and_a_missing_one_left_out(tmp_path: Path) -> None:
    """The film is as long as the smaller of target and actual, summed."""
    made = [clip(tmp_path, plain(color), 1) for color in (RED, GREEN)]
    store, batch = film(tmp_path, *made, targets=[1.5, 0.5])
    job = job_of({"target_duration": 1.5}, {"target_duration": 0.5}, {})
    write(batch_of(job, [*batch.clips, refused(job.scenes[2], "no")]), store)
    assert colors(store.path("rough_cut.mp4")) == ["R"] * 24 + ["G"] * 12


def test_rounding_does_not_add_up(tmp_path: Path) -> None:
    """Forty clips of 10.44 frames are 418 frames, not 400 or 440."""
    made = clip(tmp_path, plain(RED), 1)
    store, batch = film(tmp_path, *[made] * 40, targets=[0.435] * 40)
    write(batch, store)
    assert check(store.path("rough_cut.mp4")).frames == 418


def test_the_first_clip_decides_the_size_and_most_clips_the_rate(tmp_path: Path) -> None:
    """Another ratio is cropped around its centre, never squeezed; another rate keeps its length."""
    made = [
        clip(tmp_path, plain(RED), 1, size=(64, 64), fps=30),
        clip(tmp_path, framed, 1, size=(256, 128), fps=12),
        clip(tmp_path, plain(BLUE), 1, size=(32, 32), fps=12),
    ]
    store, batch = film(tmp_path, *made, targets=[1, 1, 1])
    write(batch, store)
    path = store.path("rough_cut.mp4")
    measured = check(path)
    assert (measured.width, measured.height, measured.fps, measured.duration) == (64, 64, 12, 3)
    assert colors(path) == ["R"] * 12 + ["G"] * 12 + ["B"] * 12
    with av.open(str(path)) as container:
        second = list(container.decode(video=0))[18]
    assert [_strongest(second, across) for across in (0.05, 0.5, 0.95)] == ["G", "G", "G"]


def test_the_film_plays_everywhere_and_is_silent(tmp_path: Path) -> None:
    """H.264 in yuv420p, its header first, without the sound of its clips."""
    store, batch = film(tmp_path, clip(tmp_path, plain(RED), 1, sound=True), targets=[1])
    assert check(store.path("clips/s0.mp4")).has_audio
    write(batch, store)
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
        write(batch_of(job, [refused(job.scenes[0], "no")]), FileStore(tmp_path))
    assert not (tmp_path / "rough_cut.mp4").exists()


def test_a_film_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C need not wait for it, and half a film is not taken for one."""
    store, batch = film(tmp_path, small_clip(1), targets=[1])
    stop = Event()
    stop.set()
    with pytest.raises(StorageError, match="given up"):
        write(batch, store, stop=stop)
    assert sorted(path.name for path in store.path(".").iterdir()) == [".scratch", "clips", "posters"]
    assert not list(store.path(".scratch").iterdir())


def test_a_damaged_clip_is_named(tmp_path: Path) -> None:
    """What changed on the disk since it was delivered is not cut in."""
    store, batch = film(tmp_path, small_clip(1), targets=[1])
    store.path("clips/s0.mp4").write_bytes(b"gone")
    with pytest.raises(BadOutputError, match=r"s0\.mp4"):
        write(batch, store)
