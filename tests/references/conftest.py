"""Colours, addresses and a network for the tests of reference images."""

import io
import itertools
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageChops

from tests.support.builders import encode_image
from videogen.errors import ValidationError
from videogen.job.model import display_name
from videogen.references.decode import ReferenceImage
from videogen.references.fetch import load_references

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 170, 60), (30, 60, 200), (120, 120, 120)
PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "localhost",
    "LOCALHOST.",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "①②⑦.⓪.⓪.①",
    "10.0.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "100.64.0.1",
    "192.168.1.1",
    "[fe80::1]",
    "[fd00::1]",
    "224.0.0.1",
    "255.255.255.255",
]
NOT_FETCHED = [
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:/etc/passwd",
    "ftp://pictures.example/keeper.png",
    "gopher://pictures.example/",
    "http://pictures.example/keeper.png",
    "unix:/run/docker.sock",
    "javascript:alert(1)",
]
PUBLIC = "93.184.215.14"
URL = "https://pictures.example/keeper.png"


PNG = encode_image(Image.new("RGB", (160, 80), RED))


async def load(source: str, base_dir: Path | None = None, **options: object) -> ReferenceImage:
    loaded = await load_references([source], base_dir=base_dir, **options)  # type: ignore[arg-type]
    return loaded[source]


async def read_refusal(source: str, base_dir: Path | None = None, **options: object) -> str:
    """What is said of `source`, which must be refused."""
    with pytest.raises(ValidationError) as caught:
        await load(source, base_dir, **options)
    (problem,) = caught.value.problems
    assert problem.where == display_name(source)
    return problem.message


async def load_bytes(folder: Path, data: bytes) -> ReferenceImage:
    (folder / "picture").write_bytes(data)
    return await load("picture", folder)


def picture_of(reference: ReferenceImage) -> Image.Image:
    image = Image.open(io.BytesIO(reference.data))
    image.load()
    return image


class Web:
    """A network of one: answers every request by `answers`, in turn, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = itertools.cycle(answers or (httpx.Response(200, content=PNG),))
        self.asked: list[httpx.Request] = []

    def transport(self) -> httpx.MockTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            reply = next(self.answers)
            if isinstance(reply, Exception):
                raise reply
            return reply

        return httpx.MockTransport(answer)


def spot(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The box around everything that is nearly of `colour`."""
    red, green, blue = ImageChops.difference(image, Image.new("RGB", image.size, colour)).split()
    difference = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return difference.point(lambda value: 255 if value < 25 else 0).getbbox()
