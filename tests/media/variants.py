"""Films that are stored in other ways: turned, with other pixels, codecs, colours and times."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

RED, GREEN, BLUE, WHITE = (190, 40, 30), (40, 150, 60), (40, 60, 180), (200, 200, 200)


LIMITED, FULL = 1, 2
MATRICES = {0: None, 1: "ITU709", 5: "ITU601", 9: "BT2020"}


def draw_four_fields(size: tuple[int, int]) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


@dataclass(frozen=True)
class Variant:
    """A way to store the four fields."""

    shown: tuple[int, int] = (320, 180)
    stored: tuple[int, int] = (320, 180)
    codec: str = "libx264"
    form: str = "yuv420p"
    turn: tuple[Image.Transpose, ...] = ()
    """What is done to the picture before it is stored; its matrix undoes that."""
    rotation: float = 0
    hflip: bool = False
    aspect: Fraction | None = None
    colours: tuple[int, int, int, int] = (1, 1, 1, LIMITED)
    """Primaries, transfer, matrix, range."""
    options: dict[str, str] = field(default_factory=dict)
    starts_s: float = 0
    frames: int = 12
    sound_s: float = 0
    name: str = "h264"
    plays: str = "everywhere"


def write_variant(path: Path, variant: Variant, form: str = "mp4") -> Path:
    rate, base = 24, Fraction(1, 12288)
    primaries, transfer, matrix, colour_range = variant.colours
    with av.open(str(path), "w", format=form) as target:
        video = target.add_stream(variant.codec, rate=rate, options=variant.options)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = variant.stored
        video.pix_fmt = variant.form
        video.codec_context.time_base = base
        if variant.aspect:
            video.codec_context.sample_aspect_ratio = variant.aspect
        context = video.codec_context
        context.color_primaries, context.color_trc, context.color_range = primaries, transfer, colour_range
        context.colorspace = matrix
        if variant.rotation or variant.hflip:
            video.set_display_rotation(variant.rotation, hflip=variant.hflip)
        audio = target.add_stream("aac", rate=48000, layout="mono") if variant.sound_s else None
        image = draw_four_fields(variant.shown)
        for method in variant.turn:
            image = image.transpose(method)
        image = image.resize(variant.stored)
        for index in range(variant.frames):
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            frame = frame.reformat(
                format=variant.form,
                dst_colorspace=MATRICES[matrix],
                dst_color_range="JPEG" if colour_range == FULL else "MPEG",
            )
            frame.pts, frame.time_base = int((index / rate + variant.starts_s) / base), base
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if audio is not None:
            for index in range(round(variant.sound_s * 48000 / 1024)):
                silence = av.AudioFrame(format="s16", layout="mono", samples=1024)
                silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                silence.sample_rate, silence.pts, silence.time_base = 48000, index * 1024, Fraction(1, 48000)
                target.mux(audio.encode(silence))
            target.mux(audio.encode(None))
    return path


T = Image.Transpose
VARIANTS = {
    "plain": Variant(),
    "turned-right": Variant(shown=(180, 320), turn=(T.ROTATE_90,), rotation=-90),
    "turned-left": Variant(shown=(180, 320), turn=(T.ROTATE_270,), rotation=90),
    "upside-down": Variant(turn=(T.ROTATE_180,), rotation=180),
    "mirrored": Variant(turn=(T.FLIP_LEFT_RIGHT,), hflip=True),
    "tall-shown-wide": Variant(stored=(180, 320), turn=(T.ROTATE_90,), rotation=-90),
    "wide-pixels": Variant(stored=(240, 180), aspect=Fraction(4, 3)),
    "tall-pixels": Variant(shown=(320, 240), stored=(320, 180), aspect=Fraction(3, 4)),
    "turned-with-wide-pixels": Variant(
        shown=(180, 320), stored=(240, 180), turn=(T.ROTATE_90,), rotation=-90, aspect=Fraction(4, 3)
    ),
    "full-range": Variant(form="yuvj420p", colours=(1, 1, 1, FULL)),
    "ten-bits": Variant(form="yuv420p10le", plays="nowhere"),
    "4:4:4": Variant(form="yuv444p", plays="nowhere"),
    "4:2:2": Variant(form="yuv422p", plays="nowhere"),
    "rgb": Variant(codec="libx264rgb", form="rgb24", colours=(1, 1, 0, FULL), plays="nowhere"),
    "mpeg4": Variant(codec="mpeg4", options={"q": "2"}, name="mpeg4", plays="nowhere"),
    "mjpeg": Variant(codec="mjpeg", form="yuvj420p", colours=(2, 2, 5, FULL), name="mjpeg", plays="nowhere"),
    "prores": Variant(codec="prores_ks", form="yuv422p10le", name="prores", plays="nowhere"),
    "hevc": Variant(codec="libx265", options={"x265-params": "log-level=none"}, name="hevc", plays="in places"),
    "av1": Variant(codec="libsvtav1", options={"preset": "12"}, name="av1", plays="in places"),
    "vp9": Variant(codec="libvpx-vp9", options={"cpu-used": "8"}, name="vp9", plays="in places"),
}


PQ, HLG = 16, 18


def make_hdr(transfer: int) -> Variant:
    names = {PQ: "smpte2084", HLG: "arib-std-b67"}
    parameters = f"log-level=none:colorprim=bt2020:transfer={names[transfer]}:colormatrix=bt2020nc"
    options = {"x265-params": parameters}
    return Variant(codec="libx265", form="yuv420p10le", colours=(9, transfer, 9, LIMITED), options=options, name="hevc")
