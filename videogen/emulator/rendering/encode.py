"""Rendering of mp4 files: a camera move over a painted or given picture with a caption, at the exact duration.

The camera move is applied in YUV, plane by plane, which takes half the time of moving RGB and converting every frame.
"""

import array
import math
import random
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.container
from av.audio.stream import AudioStream
from av.video.frame import PictureType
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from videogen.emulator.models import PixelSize, round_to_even
from videogen.emulator.painting.landscape import paint_picture
from videogen.emulator.rendering.captions import Caption, make_caption
from videogen.emulator.rendering.spec import RenderSpec

LOOP_S = 2
_OPENING_S = 0.25
"""Length of the crossfade from a given first frame."""
_ENDING_S = 0.5
"""Length of the crossfade to a given last frame."""
_QUICK_OVERSCAN = 1.04
_SMOOTH_OVERSCAN = 1.16
_RATE_HZ = 48_000


class StoppedError(Exception):
    """The server stops before the file is finished."""


class YuvPlanes(NamedTuple):
    """A picture in the 4:2:0 format of videos: luma in full size, both chromas in half the size."""

    y: Image.Image
    u: Image.Image
    v: Image.Image


class CameraView(NamedTuple):
    """The part of the picture that the camera shows, in pixels of the picture."""

    left: float
    top: float
    width: float
    height: float


def render_clip(
    spec: RenderSpec, start: Image.Image | None, path: Path, stop: threading.Event, end: Image.Image | None = None
) -> None:
    """Write the clip of a specification to `path`, an mp4 file.

    Raises:
        StoppedError: `stop` was set before the file was finished.
    """
    size = spec.clip_format.size
    overscan = _SMOOTH_OVERSCAN if spec.smooth else _QUICK_OVERSCAN
    canvas = PixelSize(round_to_even(size.width_px * overscan), round_to_even(size.height_px * overscan))
    planes = convert_to_planes(_make_picture(spec, start, canvas))
    caption = None if spec.flaw == "black" else make_caption(spec.prompt, *size)
    views = _make_smooth_views(spec, canvas) if spec.smooth else _make_loop_views(spec, canvas)
    if spec.flaw == "frozen":
        views = _freeze(views)
    loop = list(views)
    opening, ending = _count_opening_frames(spec), _count_ending_frames(spec)
    shown = loop if spec.smooth else _surround_loop(loop, spec)
    frames: Iterator[YuvPlanes] = (_compose_frame(planes, view, size, caption) for view in shown)
    if start is not None and opening:
        frames = _fade_from(_compose_still(start, size, caption), frames, count=opening)
    if end is not None and ending:
        frames = _fade_to(_compose_still(end, size, caption), frames, after=len(shown) - ending, count=ending)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = _add_video(container, spec)
        audio = container.add_stream("aac", rate=_RATE_HZ, layout="mono") if spec.clip_format.audio else None
        packets = _encode_frames(video, frames, stop, key_at=0 if spec.smooth else opening)
        if not spec.smooth:
            packets = _repeat_packets(list(packets), opening, len(loop), spec.clip_format.frames, video)
        for packet in packets:
            container.mux(packet)
        if audio is not None:
            _add_hum(container, audio, spec.clip_format.duration_s)


def _make_picture(spec: RenderSpec, start: Image.Image | None, canvas: PixelSize) -> Image.Image:
    """Return the picture that the camera moves over."""
    if spec.flaw == "black":
        return Image.new("RGB", canvas)
    return (
        ImageOps.fit(start, canvas, Image.Resampling.LANCZOS)
        if start
        else paint_picture(spec.prompt, spec.seed, canvas)
    )


def convert_to_planes(picture: Image.Image) -> YuvPlanes:
    """Convert a picture of even size to limited-range BT.709, which video players expect for HD."""
    frame: av.VideoFrame = av.VideoFrame.from_image(picture)  # type: ignore[no-untyped-call]
    frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    y, u, v = (
        Image.frombytes("L", (plane.width, plane.height), bytes(plane), "raw", "L", plane.line_size, 1)
        for plane in frame.planes
    )
    return YuvPlanes(y, u, v)


def _add_video(container: av.container.OutputContainer, spec: RenderSpec) -> VideoStream:
    stream = container.add_stream("libx264", rate=spec.clip_format.fps, options={"preset": "ultrafast", "crf": "23"})
    stream.width, stream.height = spec.clip_format.size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # more threads would make two renders of one specification differ
    context.gop_size = _count_loop_frames(spec)
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    keyint = f"keyint={context.gop_size}:min-keyint={context.gop_size}:scenecut=0:bframes=0"
    context.options = {**context.options, "x264-params": keyint}
    return stream


def _count_loop_frames(spec: RenderSpec) -> int:
    others = _count_opening_frames(spec) + _count_ending_frames(spec)
    return min(spec.clip_format.frames - others, round(LOOP_S * spec.clip_format.fps))


def _count_opening_frames(spec: RenderSpec) -> int:
    """Return the number of frames that lead from a given first frame, at most a quarter of the clip."""
    if spec.start_digest is None or spec.flaw:
        return 0
    return min(spec.clip_format.frames // 4, max(1, round(_OPENING_S * spec.clip_format.fps)))


def _count_ending_frames(spec: RenderSpec) -> int:
    """Return the number of frames that lead to a given last frame, at most half of the clip."""
    if spec.end_digest is None or spec.flaw:
        return 0
    return min(spec.clip_format.frames // 2, max(1, round(_ENDING_S * spec.clip_format.fps)))


def _surround_loop(loop: Sequence[CameraView], spec: RenderSpec) -> list[CameraView]:
    """Return the views of the opening, the loop once, and those of the ending, where the repeated loop would go on."""
    opening, ending = _count_opening_frames(spec), _count_ending_frames(spec)
    end = spec.clip_format.frames - opening
    before = [loop[index % len(loop)] for index in range(-opening, 0)]
    return [*before, *loop, *(loop[index % len(loop)] for index in range(end - ending, end))]


def _compose_still(picture: Image.Image, size: PixelSize, caption: Caption | None) -> YuvPlanes:
    """Return the frame that shows a given picture as it is."""
    planes = convert_to_planes(ImageOps.fit(picture, size, Image.Resampling.LANCZOS))
    return _compose_frame(planes, CameraView(0, 0, *size), size, caption)


def _fade_from(first: YuvPlanes, frames: Iterator[YuvPlanes], *, count: int) -> Iterator[YuvPlanes]:
    """Yield `first` in place of the first frame, and in `count` steps the others."""
    for index, frame in enumerate(frames):
        part = max(0, count - index) / count
        yield YuvPlanes(*map(Image.blend, frame, first, [part] * 3)) if part else frame


def _fade_to(last: YuvPlanes, frames: Iterator[YuvPlanes], *, after: int, count: int) -> Iterator[YuvPlanes]:
    """Yield the frames, of which those after the first `after` become `last` in `count` steps."""
    for index, frame in enumerate(frames):
        part = max(0, index - after + 1) / count
        yield YuvPlanes(*map(Image.blend, frame, last, [part] * 3)) if part else frame


def _make_loop_views(spec: RenderSpec, canvas: PixelSize) -> Iterator[CameraView]:
    """Yield views along an ellipse that ends where it began, at constant speed so that no frame stands still."""
    size, count = spec.clip_format.size, _count_loop_frames(spec)
    spare = PixelSize(canvas.width_px - size.width_px, canvas.height_px - size.height_px)
    turn = random.Random(spec.digest).choice((-1, 1)) * 2 * math.pi
    for index in range(count):
        angle = turn * index / count
        left = spare.width_px / 2 * (1 + 0.8 * math.cos(angle))
        top = spare.height_px / 2 * (1 + 0.8 * math.sin(angle))
        yield CameraView(left, top, size.width_px, size.height_px)


def _make_smooth_views(spec: RenderSpec, canvas: PixelSize) -> Iterator[CameraView]:
    """Yield views of a zoom in or out with a drift to one side, over the whole clip."""
    rng = random.Random(spec.digest)
    drift_x, drift_y, inwards = rng.choice((-1, 1)), rng.uniform(-0.5, 0.5), rng.random() < 0.5
    last = max(1, spec.clip_format.frames - 1)
    for index in range(spec.clip_format.frames):
        part = index / last
        eased = 0.25 * part + 0.75 * part * part * (3 - 2 * part)  # never quite at rest
        zoom = 1 + 0.12 * (eased if inwards else 1 - eased)
        width, height = canvas.width_px / 1.03 / zoom, canvas.height_px / 1.03 / zoom
        left = (canvas.width_px - width) / 2 * (1 + drift_x * (2 * eased - 1) * 0.9)
        top = (canvas.height_px - height) / 2 * (1 + drift_y * (2 * eased - 1) * 0.9)
        yield CameraView(left, top, width, height)


def _freeze(views: Iterator[CameraView]) -> Iterator[CameraView]:
    """Yield the first view in place of each view."""
    first = next(views)
    yield first
    for _ in views:
        yield first


def _compose_frame(planes: YuvPlanes, view: CameraView, size: PixelSize, caption: Caption | None) -> YuvPlanes:
    half = PixelSize(size.width_px // 2, size.height_px // 2)
    half_view = CameraView(*(value / 2 for value in view))
    luma = _crop(planes.y, view, size)
    chromas = [_crop(plane, half_view, half) for plane in (planes.u, planes.v)]
    if caption is not None:
        luma.paste(caption.luma, (0, caption.top_px), caption.opacity)
        opacity = caption.opacity.reduce(2)
        for chroma in chromas:
            chroma.paste(128, (0, caption.top_px // 2, half.width_px, half.height_px), opacity)
    return YuvPlanes(luma, *chromas)


def _crop(plane: Image.Image, view: CameraView, size: PixelSize) -> Image.Image:
    """Return the view of a plane in the frame's size, exact to fractions of a pixel."""
    if (view.width, view.height) == size:
        return _crop_unscaled(plane, view.left, view.top, size)
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    return plane.resize(size, Image.Resampling.BICUBIC, box=box)


def _crop_unscaled(plane: Image.Image, left: float, top: float, size: PixelSize) -> Image.Image:
    """Crop at a fraction of a pixel by blending neighbouring whole-pixel crops, three times as fast as `resize`."""
    x, y = int(left), int(top)
    width, height = size
    near = plane.crop((x, y, x + width + 1, y + height + 1))
    across = Image.blend(near.crop((0, 0, width, height + 1)), near.crop((1, 0, width + 1, height + 1)), left - x)
    return Image.blend(across.crop((0, 0, width, height)), across.crop((0, 1, width, height + 1)), top - y)


def _encode_frames(
    stream: VideoStream, frames: Iterator[YuvPlanes], stop: threading.Event, *, key_at: int
) -> Iterator["av.Packet[Any]"]:
    for index, planes in enumerate(frames):
        if stop.is_set():
            raise StoppedError
        frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
        for target, plane in zip(frame.planes, planes, strict=True):
            target.update(_pad_rows(plane, target.line_size))
        frame.pts = index
        if index == key_at:
            frame.pict_type = PictureType.I
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _pad_rows(plane: Image.Image, line_size: int) -> bytes:
    """Return the plane's rows, each padded to the frame's line size."""
    if plane.width != line_size:
        plane = plane.crop((0, 0, line_size, plane.height))
    return plane.tobytes()


def _repeat_packets(
    packets: list["av.Packet[Any]"], opening: int, loop_frames: int, frames: int, stream: VideoStream
) -> Iterator["av.Packet[Any]"]:
    """Yield exactly `frames` packets with new timestamps: the opening, a closed GOP of `loop_frames` repeatedly,
    then the others."""
    tick = Fraction(1) / stream.codec_context.framerate / stream.codec_context.time_base
    payloads = [bytes(packet) for packet in packets]
    body_end = frames - (len(packets) - loop_frames - opening)
    for index in range(frames):
        if index < opening:
            source = index
        elif index < body_end:
            source = opening + (index - opening) % loop_frames
        else:
            source = opening + loop_frames + index - body_end
        packet = av.Packet(payloads[source])
        packet.stream, packet.time_base = stream, stream.codec_context.time_base
        packet.pts = packet.dts = int(index * tick)
        packet.duration = int(tick)
        packet.is_keyframe = packets[source].is_keyframe
        yield packet


def _add_hum(container: av.container.OutputContainer, stream: AudioStream, duration_s: Fraction) -> None:
    """Add a quiet chord. Its pitches are whole numbers of hertz, so that one second of it repeats without a click."""
    second = array.array("h", (_compute_sample(index) for index in range(_RATE_HZ)))
    left = int(duration_s * _RATE_HZ)
    pts = 0
    while left > 0:
        count = min(left, _RATE_HZ)
        frame = av.AudioFrame("s16", "mono", count)
        frame.sample_rate, frame.pts = _RATE_HZ, pts
        frame.planes[0].update(second[:count].tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
        container.mux(stream.encode(frame))
        left, pts = left - count, pts + count
    container.mux(stream.encode(None))


def _compute_sample(index: int) -> int:
    turn = 2 * math.pi * index / _RATE_HZ
    return int(700 * sum(math.sin(turn * pitch_hz) for pitch_hz in (110, 165, 220)))
