"""Rendered clips: their measures, their pictures and their bytes."""

import itertools
import random
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image, ImageChops, ImageFont, ImageStat

from videogen.emulator.models import ClipFormat, PixelSize
from videogen.emulator.painting.landscape import paint_picture
from videogen.emulator.rendering.captions import FONT, MAX_LINES, clean_prompt, make_caption, wrap_text
from videogen.emulator.rendering.encode import StoppedError, render_clip
from videogen.emulator.rendering.spec import RenderSpec

KLING_21, KLING_25 = "kwaivgi/kling-v2.1", "kwaivgi/kling-v2.5-turbo-pro"
HAILUO, WAN, VEO = "minimax/hailuo-2.3", "wan-video/wan-2.5-i2v", "google/veo-3.1"
SEEDANCE, SVD, COG = "bytedance/seedance-1-pro", "stability-ai/stable-video-diffusion", "cuuupid/cogvideox-5b"
WIDE, TALL, SQUARE = (640, 360), (360, 640), (500, 500)

DELIVERED = [
    pytest.param(KLING_21, {"start_image": WIDE}, (1280, 720), 120, 24, id="kling-2.1"),
    pytest.param(
        KLING_21, {"start_image": WIDE, "mode": "pro"}, (1920, 1080), 120, 24, id="kling-pro", marks=pytest.mark.long
    ),
    pytest.param(KLING_25, {}, (1920, 1080), 120, 24, id="kling-2.5", marks=pytest.mark.long),
    pytest.param(KLING_25, {"aspect_ratio": "9:16"}, (1080, 1920), 120, 24, id="kling-9:16", marks=pytest.mark.long),
    pytest.param(
        KLING_25, {"start_image": SQUARE}, (1440, 1440), 120, 24, id="kling-follows-image", marks=pytest.mark.long
    ),
    pytest.param(HAILUO, {}, (1366, 768), 141, 24, id="hailuo", marks=pytest.mark.long),
    pytest.param(HAILUO, {"first_frame_image": TALL, "duration": 10}, (768, 1366), 237, 24, id="hailuo-follows-image"),
    pytest.param(WAN, {"image": SQUARE}, (960, 960), 120, 24, id="wan-follows-image", marks=pytest.mark.long),
    pytest.param(
        WAN,
        {"image": WIDE, "resolution": "480p", "duration": 10},
        (842, 474),
        240,
        24,
        id="wan-480p",
        marks=pytest.mark.long,
    ),
    pytest.param(VEO, {"duration": 6}, (1920, 1080), 144, 24, id="veo", marks=pytest.mark.long),
    pytest.param(
        VEO, {"duration": 4, "resolution": "720p", "aspect_ratio": "9:16"}, (720, 1280), 96, 24, id="veo-9:16"
    ),
    pytest.param(SEEDANCE, {"duration": 6}, (1920, 1088), 145, 24, id="seedance", marks=pytest.mark.long),
    pytest.param(SEEDANCE, {"image": SQUARE, "resolution": "480p"}, (640, 640), 121, 24, id="seedance-follows-image"),
    pytest.param(SVD, {"input_image": (1280, 720)}, (1024, 576), 14, 6, id="svd"),
    pytest.param(
        SVD,
        {"input_image": SQUARE, "video_length": "25_frames_with_svd_xt", "frames_per_second": 30},
        (448, 448),
        25,
        30,
        id="svd-xt",
        marks=pytest.mark.long,
    ),
    pytest.param(
        SVD,
        {"input_image": TALL, "sizing_strategy": "crop_to_16_9"},
        (1024, 576),
        14,
        6,
        id="svd-crop",
        marks=pytest.mark.long,
    ),
    pytest.param(COG, {}, (720, 480), 49, 8, id="cogvideox"),
]


@pytest.mark.long_variants
@pytest.mark.parametrize(("model", "inputs", "size", "frames", "fps"), DELIVERED)
def test_a_clip_measures_what_the_model_delivers(
    client: Any,
    picture: Callable[..., str],
    download: Callable[..., Path],
    model: str,
    inputs: dict[str, Any],
    size: tuple[int, int],
    frames: int,
    fps: int,
) -> None:
    """Size, frame count, frame rate and duration are the model's own, to the frame, and the file decodes."""
    given = {name: picture(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
    path = download(client, client.run(model, {"prompt": "a red ball", **given}))
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == size
        assert video.average_rate == fps
        assert video.duration is not None
        assert video.time_base is not None
        assert video.duration * video.time_base == Fraction(frames, fps)
        assert sum(1 for _ in container.decode(video)) == frames
        assert bool(container.streams.audio) == (model == VEO)


def test_veo_is_silent_on_request(client: Any, download: Callable[..., Path]) -> None:
    """`generate_audio` decides whether there is a sound track, as long as the picture."""
    base = {"prompt": "x", "duration": 4, "resolution": "720p"}
    with av.open(str(download(client, client.run(VEO, base | {"generate_audio": False})))) as container:
        assert not container.streams.audio
    with av.open(str(download(client, client.run(VEO, base)))) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples / 48_000 == pytest.approx(4, abs=0.05)


def make_spec(
    prompt: str = "a red ball", size: tuple[int, int] = (320, 180), frames: int = 60, **more: Any
) -> RenderSpec:
    settings = {"seed": 0, "start_digest": None, "smooth": False} | more
    return RenderSpec(ClipFormat(PixelSize(*size), frames, Fraction(24)), prompt, **settings)


def render_frames(path: Path, what: RenderSpec, start: Image.Image | None = None) -> list[Image.Image]:
    render_clip(what, start, path, threading.Event())
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]  # type: ignore[no-untyped-call]


def measure_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


@pytest.mark.long_variants
@pytest.mark.parametrize("smooth", [False, True], ids=["quick", "smooth"])
@pytest.mark.parametrize("start", [False, True], ids=["painted", "start-image"])
def test_no_clip_stands_still_or_is_black(tmp_path: Path, smooth: bool, start: bool) -> None:
    """Every frame differs from the one before, and none is black."""
    given = paint_picture("city at noon", 1, PixelSize(640, 360)) if start else None
    frames = render_frames(tmp_path / "clip.mp4", make_spec(size=(640, 360), smooth=smooth), given)
    assert len(frames) == 60
    assert all(measure_difference(a, b) > 0.05 for a, b in itertools.pairwise(frames))
    assert all(max(ImageStat.Stat(frame).mean) > 20 for frame in frames)


def test_quick_clips_repeat_without_a_jump(tmp_path: Path) -> None:
    """The step where the loop begins again is no larger than the others."""
    frames = render_frames(tmp_path / "clip.mp4", make_spec("a meadow", frames=100))
    steps = [measure_difference(a, b) for a, b in itertools.pairwise(frames)]
    assert measure_difference(frames[10], frames[58]) < 0.5
    assert steps[47] < 3 * sorted(steps)[len(steps) // 2]


def test_quick_clips_can_be_searched(tmp_path: Path) -> None:
    """Each repetition begins with a key frame, and no other frame says that it is one."""
    render_frames(tmp_path / "clip.mp4", make_spec(frames=100))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [index for index, packet in enumerate(packets) if packet.is_keyframe] == [0, 48, 96]


def test_one_shot_is_always_the_same_file(tmp_path: Path) -> None:
    """Byte for byte, in both modes; another seed is another picture."""
    for smooth in (False, True):
        paths = [tmp_path / f"{name}-{smooth}.mp4" for name in "ab"]
        for path in paths:
            render_frames(path, make_spec(frames=30, smooth=smooth))
        assert paths[0].read_bytes() == paths[1].read_bytes()
    one, other = (paint_picture("a lake", seed, PixelSize(320, 180)) for seed in (1, 2))
    assert measure_difference(one, other) > 5


def test_prompts_look_different() -> None:
    """Twelve prompts, no two pictures alike."""
    prompts = [
        "storm at sea, night",
        "desert dunes at sunset",
        "neon city in the rain",
        "snowy mountains",
        "pine forest at dawn",
        "northern lights",
        "a planet in space",
        "summer meadow with balloons",
        "two people talk",
        "a red ball",
        "stairs inside a tower",
        "a great lamp",
    ]
    pictures = [paint_picture(prompt, 0, PixelSize(320, 180)) for prompt in prompts]
    pairs = [(a, b) for index, a in enumerate(pictures) for b in pictures[index + 1 :]]
    assert min(measure_difference(a, b) for a, b in pairs) > 10


def test_every_prompt_can_be_painted() -> None:
    """Any words, any shape: no prompt makes the painter stumble."""
    from videogen.emulator.painting import prompt as scenery

    rng = random.Random(5)
    tables = (scenery._LIGHTS, scenery._LANDS, scenery._GROUNDS, scenery._THINGS, scenery._WEATHERS)
    words = [word for table in tables for listed in table.values() for word in listed.split()]
    for index in range(150):
        prompt = " ".join(rng.sample(words, rng.randrange(5)))
        size = PixelSize(*rng.choice([(160, 90), (90, 160), (120, 120), (64, 64), (320, 34)]))
        assert paint_picture(prompt, index, size).size == size


def test_a_start_image_is_what_the_clip_shows(tmp_path: Path) -> None:
    """The picture fills the frame; without a prompt there is no caption on it."""
    start = Image.new("RGB", (640, 360), (200, 40, 40))
    (first, *_) = render_frames(tmp_path / "clip.mp4", make_spec("", start_digest="x"), start)
    assert measure_difference(first, Image.new("RGB", first.size, (200, 40, 40))) < 4


def test_the_prompt_is_written_at_the_bottom(tmp_path: Path) -> None:
    """White letters in the lowest third on a darker band, nothing in the rest."""
    start = Image.new("RGB", (640, 360), (120, 120, 120))
    plain = render_frames(tmp_path / "plain.mp4", make_spec("", (640, 360), 2, start_digest="x"), start)[0]
    words = render_frames(tmp_path / "words.mp4", make_spec("Größe und señor", (640, 360), 2, start_digest="x"), start)[
        0
    ]
    box = ImageChops.difference(plain, words).convert("L").point([255 * (value > 8) for value in range(256)]).getbbox()
    assert box is not None
    assert box[1] > 240
    letters = words.crop((0, 240, 640, 360)).convert("L")
    used = [value for value, count in enumerate(letters.histogram()) if count]
    assert used[-1] > 220
    assert used[0] < 70


@pytest.mark.parametrize("character", "éßñÄøçЖыщΩłőŞ…—“")
def test_the_font_has_letters_of_many_languages(character: str) -> None:
    """A glyph of its own, not the box for missing ones."""
    font = ImageFont.truetype(FONT, 32)
    missing = bytes(font.getmask("\U0010fffd"))
    drawn = font.getmask(character)
    assert drawn.getbbox() is not None
    assert bytes(drawn) != missing


def test_a_long_prompt_is_cut_with_an_ellipsis() -> None:
    """At most three lines, each within the width; endless words are broken."""
    font = ImageFont.truetype(FONT, 20)
    for prompt in ("word " * 5000, "x" * 100_000, "а" * 300):
        lines = wrap_text(clean_prompt(prompt), font, 300)
        assert len(lines) == MAX_LINES
        assert lines[-1].endswith("…")
        assert max(font.getlength(line) for line in lines) <= 300
    assert wrap_text("a few words", font, 300) == ["a few words"]


def test_control_characters_are_not_written() -> None:
    """They become spaces; a prompt of nothing else has no caption."""
    assert clean_prompt("one\x00two\n\n\tthree\x1b[31m") == "one two three [31m"
    assert make_caption("\x00\n \u200b", 320, 180) is None


def test_a_cache_outlives_its_server(launch: Any, tmp_path: Path) -> None:
    """The second server renders nothing: it delivers the file that the first one left."""
    cache, small = tmp_path / "films", {"prompt": "x", "resolution": "480p", "duration": 2}
    launch(cache=cache).run(SEEDANCE, small)
    (render_clip,) = cache.iterdir()
    render_clip.write_bytes(b"from the cache")
    done = launch(cache=cache).run(SEEDANCE, small)
    assert httpx.get(done["output"], trust_env=False, verify=False).content == b"from the cache"


def test_a_render_stops_when_the_server_does(tmp_path: Path) -> None:
    """Not at the end of the clip."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        render_clip(make_spec(), None, tmp_path / "clip.mp4", stop)
