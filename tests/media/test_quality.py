"""The shipped judge: sharpness, exposure, motion, cuts, and how near the first frame is to the start image."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.support.builders import encode_image, write_film
from videogen.errors import BadOutputError, StorageError
from videogen.media.quality import ClipQuality, measure_quality

pytestmark = pytest.mark.integration
SIZE = 320, 180
Draw = Callable[[int], Image.Image]


def scene(shift: int, *, ground: int = 110, ink: int = 200) -> Image.Image:
    """Return stripes and discs on a grey ground, all moved by so many pixels."""
    image = Image.new("RGB", SIZE, (ground,) * 3)
    draw = ImageDraw.Draw(image)
    for number in range(-20, 60):
        left = number * 24 + shift
        draw.rectangle((left, 0, left + 8, 179), fill=(ink, ink // 2 + 60, ink // 3 + 40))
    return image


def film(folder: Path, draw: Draw, frames: int = 24) -> Path:
    return write_film(folder / "clip.mp4", size=SIZE, frames=frames, picture=draw)


def test_a_sharp_moving_well_lit_shot_is_accepted(tmp_path: Path) -> None:
    quality = measure_quality(film(tmp_path, lambda n: scene(4 * n)))
    assert (quality.cuts, quality.start) == ((), None)
    judgement = quality.make_judgement()
    assert judgement.accept
    assert judgement.score > 0.8
    assert judgement.reason.startswith("sharpness ")
    assert "no cut" in judgement.reason


def test_a_blurred_shot_is_less_sharp(tmp_path: Path) -> None:
    sharp = measure_quality(film(tmp_path, lambda n: scene(4 * n)))
    blurred = measure_quality(film(tmp_path, lambda n: scene(4 * n).filter(ImageFilter.GaussianBlur(6))))
    assert blurred.sharpness < sharp.sharpness / 2
    assert blurred.score < sharp.score


@pytest.mark.parametrize(("ground", "ink"), [(2, 12), (250, 255)])
def test_a_shot_that_is_nearly_black_or_white_is_rejected(ground: int, ink: int, tmp_path: Path) -> None:
    quality = measure_quality(film(tmp_path, lambda n: scene(4 * n, ground=ground, ink=ink)))
    assert quality.exposure < 0.3
    assert not quality.make_judgement().accept


def test_a_still_picture_does_not_move(tmp_path: Path) -> None:
    quality = measure_quality(film(tmp_path, lambda n: scene(0)))
    assert quality.motion == 0
    assert not quality.make_judgement().accept


def test_cuts_are_found_where_they_are(tmp_path: Path) -> None:
    quality = measure_quality(film(tmp_path, lambda n: scene(2 * n) if n < 12 else scene(2 * n, ground=30, ink=90)))
    assert quality.cuts == pytest.approx([0.5], abs=0.02)
    assert "cuts at 0.5 s" in quality.make_judgement().reason


def test_the_first_frame_is_compared_with_the_start_image(tmp_path: Path) -> None:
    path = film(tmp_path, lambda n: scene(4 * n))
    same = measure_quality(path, start_image=encode_image(scene(0)))
    other = measure_quality(path, start_image=encode_image(Image.new("RGB", (90, 160), "white")))
    assert same.start is not None
    assert same.start > 0.9
    assert other.start == 0
    assert other.score < same.score


def test_a_start_image_of_another_shape_is_cut_like_the_frame(tmp_path: Path) -> None:
    tall = Image.new("RGB", (320, 400), "black")
    tall.paste(scene(0), (0, 110))
    start = measure_quality(film(tmp_path, lambda n: scene(4 * n)), start_image=encode_image(tall)).start
    assert start is not None
    assert start > 0.9


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(BadOutputError):
        measure_quality(path)


def test_measuring_can_be_given_up(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    with pytest.raises(StorageError, match="given up"):
        measure_quality(film(tmp_path, lambda n: scene(4 * n)), stop=stop)


def test_the_worst_measurement_counts_most() -> None:
    whole = ClipQuality(sharpness=1, exposure=1, motion=1, cuts=(), start=None)
    assert whole.score == 1
    assert ClipQuality(sharpness=1, exposure=1, motion=0, cuts=(), start=None).score == pytest.approx(0.25)
