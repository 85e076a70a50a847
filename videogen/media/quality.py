"""Rate a clip by simple measurements of its pictures: a judge that needs no model and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean, median
from threading import Event
from typing import TYPE_CHECKING

from videogen.media.files import (
    find_video_stream,
    make_bad_output_error,
    open_clip,
    raise_if_stopped,
    translate_decode_errors,
)
from videogen.results.judgement import Judgement

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from PIL.Image import Image

SMALL_PX = 160, 90
"""Size in which pictures are compared with each other."""
LARGE_PX = 480, 270
"""Size in which sharpness is measured."""
SAMPLES = 8
SHARP_DEVIATION = 8.0
"""Standard deviation of the Laplacian, in luma, from which a picture counts as sharp."""
CUT_RATIO, CUT_LUMA = 6.0, 18.0
"""A cut is a change between two frames that is this many times as large as the usual one, and at least so much luma."""
STILL_LUMA, MOVING_LUMA = 0.15, 0.8
"""Mean change of luma between two frames, of a still picture and of one that clearly moves."""
NEAR_LUMA, FAR_LUMA = 6.0, 40.0
"""Median difference in luma between the start image and the first frame, of one that is kept and one that is not."""
ACCEPTED_SCORE = 0.5


@dataclass(frozen=True)
class ClipQuality:
    """Measurements of a clip, each from 0 (bad) to 1 (good)."""

    sharpness: float
    exposure: float
    motion: float
    cuts: tuple[float, ...]
    """Seconds at which the picture changes at once."""
    start: float | None
    """How near the first frame is to the start image; None if there is none."""

    @property
    def score(self) -> float:
        """Quality as a whole: between the mean of the measurements and the worst of them, which counts twice."""
        parts = [self.sharpness, self.exposure, self.motion, 1 / (1 + len(self.cuts))]
        parts += [] if self.start is None else [self.start]
        return round((fmean(parts) + 2 * min(parts)) / 3, 3)

    def make_judgement(self) -> Judgement:
        """Return the measurements as a judgement."""
        said = [f"sharpness {self.sharpness:.2f}", f"exposure {self.exposure:.2f}", f"motion {self.motion:.2f}"]
        said.append(f"cuts at {', '.join(f'{at:.1f} s' for at in self.cuts[:5])}" if self.cuts else "no cut")
        said += [] if self.start is None else [f"start image {self.start:.2f}"]
        return Judgement(accept=self.score >= ACCEPTED_SCORE, score=self.score, reason=", ".join(said))


def measure_quality(video: Path, *, start_image: bytes | None = None, stop: Event | None = None) -> ClipQuality:
    """Return the measurements of a clip. `start_image` is the picture with which it was asked to begin.

    Raises:
        BadOutputError: the clip cannot be decoded.
        StorageError: `stop` was set.
    """
    from PIL import ImageChops, ImageStat

    changes: list[float] = []
    times: list[float] = []
    details: list[float] = []
    exposures: list[float] = []
    first: Image | None = None
    last: Image | None = None
    with translate_decode_errors(video), open_clip(video) as container:
        stream = find_video_stream(video, container)
        every = max(1, (stream.frames or 120) // SAMPLES)
        for number, frame in enumerate(container.decode(stream)):
            raise_if_stopped(video, stop)
            picture = _shrink(frame, SMALL_PX)
            first = first or picture
            if last is not None:
                changes.append(ImageStat.Stat(ImageChops.difference(last, picture)).mean[0])
                times.append(float(frame.time or 0.0))
            if number % every == 0:
                exposures.append(_measure_exposure(picture))
                details.append(_measure_detail(_shrink(frame, LARGE_PX)))
            last = picture
    if first is None:
        raise make_bad_output_error(video, "it holds no picture")
    usual = median(changes) if changes else 0.0
    cuts = [at for at, change in zip(times, changes, strict=True) if change > max(CUT_LUMA, CUT_RATIO * usual)]
    return ClipQuality(
        sharpness=_scale(fmean(details), 0.0, SHARP_DEVIATION),
        exposure=fmean(exposures),
        motion=_scale(usual, STILL_LUMA, MOVING_LUMA),
        cuts=tuple(cuts),
        start=None if start_image is None else _compare_start(first, start_image),
    )


def _shrink(frame: "VideoFrame", size: tuple[int, int]) -> "Image":
    """Return the luma of a frame in this size."""
    from PIL import Image

    plane = frame.reformat(*size, "gray").planes[0]
    return Image.frombytes("L", size, bytes(plane), "raw", "L", plane.line_size)


def _scale(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others: 0 at `low` and below, 1 at `high` and above."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _measure_detail(image: "Image") -> float:
    from PIL import ImageFilter, ImageStat

    laplacian = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)
    return float(ImageStat.Stat(image.filter(laplacian)).stddev[0])


def _measure_exposure(image: "Image") -> float:
    counts = image.histogram()
    total = sum(counts)
    mean = sum(luma * count for luma, count in enumerate(counts)) / total
    clipped = (sum(counts[:8]) + sum(counts[248:])) / total
    return min(_scale(mean, 15, 60), _scale(-mean, -245, -190), _scale(-clipped, -0.9, -0.4))


def _compare_start(first: "Image", start_image: bytes) -> float:
    from PIL import Image, ImageChops, ImageOps

    with Image.open(BytesIO(start_image)) as picture:
        wanted = ImageOps.fit(ImageOps.exif_transpose(picture).convert("L"), SMALL_PX)
    return 1 - _scale(_find_median(ImageChops.difference(first, wanted).histogram()), NEAR_LUMA, FAR_LUMA)


def _find_median(counts: Sequence[int]) -> int:
    half, seen = sum(counts) / 2, 0
    for value, count in enumerate(counts):
        seen += count
        if seen >= half:
            return value
    return 0
