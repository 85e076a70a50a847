"""Pictures that are not what a camera writes, each as the reference of a job that is prepared."""

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.builders import make_exif, png_bomb

RED, BLUE = (220, 30, 30), (30, 60, 200)
PREPARE_ALL = """
import asyncio, io, json, re, sys
from PIL import Image
from videogen.app import prepare_job
from videogen.execution.options import RunOptions
from videogen.errors import ValidationError
from videogen.job.model import Job

for name in sys.argv[2:]:
    scene = {"id": "a", "prompt": "p", "target_duration": 5, "scene_reference_url": name}
    try:
        job = Job.model_validate({"scenes": [scene]})
        prepared = asyncio.run(prepare_job(job, RunOptions(folder=sys.argv[1], out=sys.argv[1] + "/out")))
        image = Image.open(io.BytesIO(prepared.references[name].data))
        width, height = image.size
        spots = [image.getpixel((width // 2, height // 4)), image.getpixel((width // 2, height * 3 // 4))]
        said = [image.size, spots]
    except ValidationError as exc:
        said = str(exc)
    peak_mb = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
    print(json.dumps([said, peak_mb]), flush=True)
"""


def saved(image: Image.Image, form: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: image.save(path, form, **options)


def halves(size: tuple[int, int]) -> Image.Image:
    """The left half red, the right one blue."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def cut(path: Path) -> None:
    buffer = io.BytesIO()
    noise = Image.frombytes("RGB", (64, 64), random.Random(1).randbytes(64 * 64 * 3))
    noise.save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:-2000])


def linked(path: Path) -> None:
    path.symlink_to(Path(__file__))


MADE: dict[str, tuple[Callable[[Path], object], object]] = {
    # name: how it is made; what is said of it, or its size and the colours of its upper and lower half
    "bomb.png": (lambda path: path.write_bytes(png_bomb(60_000, 60_000)), "3600 megapixels"),
    "cut.jpg": (cut, "damaged or cut JPEG"),
    "empty.png": (Path.touch, "not a PNG, JPEG or WEBP"),
    "animated.webp": (
        saved(halves((160, 80)), "WEBP", save_all=True, append_images=[Image.new("RGB", (160, 80))]),
        "an animated picture; use a still one",
    ),
    "animated.gif": (
        saved(halves((160, 80)), "GIF", save_all=True, append_images=[Image.new("RGB", (160, 80))]),
        "not a PNG, JPEG or WEBP",
    ),
    "link.png": (linked, "a symbolic link that leads out of the job's folder"),
    "pipe.png": (os.mkfifo, "not a regular file"),
    "folder.png": (Path.mkdir, "not a regular file"),
    "no-such.png": (lambda path: None, "there is no such file"),
    "cmyk.jpg": (saved(Image.new("RGB", (160, 80), RED).convert("CMYK"), "JPEG", quality=95), ((160, 80), RED, RED)),
    "sixteen-bits.png": (saved(Image.new("I;16", (160, 80), 0x8080), "PNG"), ((160, 80), (128,) * 3, (128,) * 3)),
    "on-its-side.jpg": (saved(halves((400, 200)), "JPEG", exif=make_exif(6), quality=95), ((200, 400), RED, BLUE)),
    "large.png": (
        saved(Image.new("RGBA", (8000, 5000), (*RED, 255)), "PNG", compress_level=1, exif=make_exif(6)),
        ((2500, 4000), RED, RED),
    ),
}


@dataclass
class Answer:
    said: Any
    """The message, or size and two colours."""
    peak_mb: float
    """Of the process so far."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """All pictures given to one process, one after the other, as a job in their folder names them."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, (make, _) in MADE.items():
        make(folder / name)
    command = [sys.executable, "-c", PREPARE_ALL, str(folder), *MADE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(MADE), f"{list(MADE)[len(lines)]}: {done.stderr[-2000:]}"
    return {name: Answer(*json.loads(line)) for name, line in zip(MADE, lines, strict=True)}


@pytest.mark.long_variants
@pytest.mark.parametrize("name", MADE)
def test_34_an_odd_picture_is_refused_by_name_or_comes_out_right(answers: dict[str, Answer], name: str) -> None:
    """Nothing hangs, nothing is guessed, and no picture takes 300 MB."""
    said, expected = answers[name].said, MADE[name][1]
    if isinstance(expected, tuple):
        size, upper, lower = expected
        assert tuple(said[0]) == size
        assert [tuple(spot) for spot in said[1]] == [pytest.approx(upper, abs=8), pytest.approx(lower, abs=8)]
    else:
        assert said.startswith(f"scenes.0.scene_reference_url: {name}: ")
        assert str(expected) in said
    assert answers[name].peak_mb < 300
