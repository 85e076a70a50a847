"""Inspect a clip by decoding it: whether it is whole, how long it is, and how it is shown."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from videogen.media.boxes import check_boxes
from videogen.media.encode import Presentation, Size, open_graph, pull_frames
from videogen.media.files import (
    MAX_TOTAL_PIXELS,
    find_audio_stream,
    find_video_stream,
    make_bad_output_error,
    open_clip,
    raise_if_stopped,
    translate_decode_errors,
    translate_read_errors,
    write_atomically,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

Flaw = Literal["black", "frozen"]
Note = Literal["codec", "hdr", "sound", "transcoded", "unsigned"]
"""A property of a whole clip that its user should know:

- `codec`: some browsers, phones or editors do not play its codec (HEVC, AV1, VP9).
- `hdr`: its colours are HDR; they were mapped to bt709 if the clip had to be encoded again.
- `sound`: its sound is in a codec that FFmpeg, and so most players, cannot decode. It is kept unchanged, or dropped if
  the picture had to be encoded again.
- `transcoded`: it came in a codec that no browser plays, and was encoded again in H.264.
- `unsigned`: it could not be signed, although that was asked for.
"""
Sound = Literal["none", "whole", "damaged", "unknown"]
"""State of the sound. `unknown` means that its codec cannot be decoded here."""

_STRICT = "crccheck+bitstream+buffer+explode"
_SAMPLES_PER_SECOND = 4
"""How many frames per second are compared to find black and frozen clips."""
_THUMB = (64, 36)
_BLACK_LUMA = 20
"""Largest luma, of 255, of a black picture's brightest cell. A night sky with a moon is above, encoder noise is not."""
_POSTER_EDGE_PX = 960
_FRAME_QUALITY = 95
"""JPEG quality of a frame with which another clip begins or ends: no difference to the clip is seen."""
_MS = 0.001
_FROZEN_LUMA = 4
"""Largest difference, of 255, between a cell of a frozen clip and the same cell of its first frame. A still picture
pumps by 3 with its key frames."""
_MAX_SOUND_SAMPLES = 660 * 192_000
"""Limit for each channel: eleven minutes at the highest sample rate. Silence compresses so well that a small file may
hold days of it."""
_PLAYED_EVERYWHERE = {("h264", "yuv420p"), ("h264", "yuvj420p")}
_PLAYED_IN_PLACES = {
    (codec, form) for codec in ("hevc", "av1", "vp9") for form in ("yuv420p", "yuvj420p", "yuv420p10le")
}


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of a whole video, measured by decoding it rather than read from its header."""

    duration: float
    """Seconds from the start of the first frame to the end of the last."""
    width: int
    """In pixels, as is `height`, of the picture as a player shows it: rotated, in square pixels, cropped to its
    aperture."""
    height: int
    fps: float
    frames: int
    codec: str
    """FFmpeg's name for the codec of the picture: `h264`, `av1`."""
    has_audio: bool
    size_bytes: int
    sha256: str
    warnings: tuple[Flaw, ...] = ()
    """`black` and `frozen` mean from start to end. Such clips are whole all the same."""
    notes: tuple[Note, ...] = ()
    sound: Sound = "none"
    """State of the sound, which does not affect whether the video counts as whole."""


def inspect_video(path: Path, *, poster: Path | None = None, stop: Event | None = None) -> VideoInfo:
    """Decode the mp4 or QuickTime file at `path` to its end and return its properties.

    The cheap checks come first: the first bytes, the bounds of the boxes, the header. Then one pass decodes every
    packet strictly, in about 0.5 s for ten seconds of 1080p. A clip that announces more pictures than any clip has is
    refused before it is decoded. Another thread may set `stop` to cancel the work at the next packet.

    A JPEG of a whole video is written to `poster`, as a player shows it and at most 960 px at its longer edge: a frame
    a third of the way in, or the next one that is not black.

    Raises:
        BadOutputError: it is not a whole video. The message names the file and the defect without quoting bytes.
        StorageError: it cannot be read, `poster` cannot be written, or `stop` was set.
    """
    with translate_read_errors(path), path.open("rb") as file:
        aperture = check_boxes(path, file)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    with translate_decode_errors(path), open_clip(path) as container:
        stream = find_video_stream(path, container)
        announced_s = _get_announced_duration_s(stream)
        stats, sound = _decode_all(path, container, stream, announced_s, stop)
        view = Presentation.of(path, stream, stats.first, aperture)
        if announced_s - stats.duration_s > max(0.1, 2 / stats.fps):
            raise make_bad_output_error(
                path, f"its header promises {announced_s:.3f} s, but only {stats.duration_s:.3f} s can be decoded"
            )
        if poster and stats.picture:
            _write_poster(stream, stats.picture, view, poster)
        return VideoInfo(
            duration=stats.duration_s,
            width=view.size[0],
            height=view.size[1],
            fps=stats.fps,
            frames=stats.frames,
            codec=get_codec_name(stream),
            has_audio=bool(container.streams.audio),
            size_bytes=size_bytes,
            sha256=sha256,
            warnings=stats.warnings,
            notes=tuple(_find_notes(stream, view, sound)),
            sound=sound,
        )


def get_codec_name(stream: "VideoStream") -> str:
    """Return the name of the codec, which may differ from that of its decoder."""
    return stream.codec_context.codec.canonical_name


def get_browser_support(stream: "VideoStream") -> Literal["everywhere", "in places", "nowhere"]:
    """Return where browsers play the picture. They play H.264 in 4:4:4, RGB or ten bits nowhere."""
    kind = get_codec_name(stream), stream.codec_context.pix_fmt or ""
    if kind in _PLAYED_EVERYWHERE:
        return "everywhere"
    return "in places" if kind in _PLAYED_IN_PLACES else "nowhere"


def _find_notes(stream: "VideoStream", view: Presentation, sound: Sound) -> "list[Note]":
    notes: list[Note] = []
    if get_browser_support(stream) != "everywhere":
        notes.append("codec")
    if view.is_hdr:
        notes.append("hdr")
    if sound == "unknown":
        notes.append("sound")
    return notes


def _get_announced_duration_s(stream: "VideoStream") -> float:
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def read_first_frame(path: Path) -> "tuple[VideoFrame, Presentation]":
    """Return the first picture of a clip and the way in which players show the clip.

    Raises:
        BadOutputError: there is none.
    """
    with translate_read_errors(path), path.open("rb") as file:
        aperture = check_boxes(path, file)
    with (
        translate_decode_errors(path),
        open_clip(path) as container,
    ):  # opened again, because not every clip can be rewound
        stream = find_video_stream(path, container)
        stream.thread_type = "NONE"
        first = next(container.decode(stream), None)
        if first is None:
            raise make_bad_output_error(path, "it holds no frames")
        return first, Presentation.of(path, stream, first, aperture)


def write_frame(
    path: Path, out: Path, *, cut_s: float | None = None, is_seam: bool = False, stop: Event | None = None
) -> None:
    """Write one picture of a clip as JPEG, in the clip's full size.

    Args:
        path: the clip.
        out: the file to write.
        cut_s: length in seconds at which the clip is cut: its last picture before that is written, or that of the whole
            clip if it is shorter. None writes the first picture.
        is_seam: write the first picture after the cut, with which another clip goes on, if there is one.
        stop: an event that is set when the picture is no longer needed.

    Raises:
        BadOutputError: the clip has no pictures, or is damaged.
    """
    with translate_read_errors(path), path.open("rb") as file:
        aperture = check_boxes(path, file)
    with translate_decode_errors(path), open_clip(path) as container:
        stream = find_video_stream(path, container)
        stream.thread_type = "NONE"
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise make_bad_output_error(path, "it holds no frames")
        chosen, end_s = first, (first.time or 0.0) + (cut_s or 0.0) - _MS / 2
        for frame in frames:
            raise_if_stopped(path, stop)
            if (frame.time or 0.0) < end_s or is_seam:
                chosen = frame
            if (frame.time or 0.0) >= end_s:
                break
        view = Presentation.of(path, stream, first, aperture)
        _write_picture(stream, chosen, view, out, size=view.size, quality=_FRAME_QUALITY)


class _FrameStats:
    """Statistics of the frames of one stream, collected while they are decoded."""

    def __init__(self, path: Path, stream: "VideoStream", announced_s: float) -> None:
        from av.video.reformatter import VideoReformatter

        self.frames = 0
        self.pixels = 0
        self._path = path
        self._average = stream.average_rate
        self._every = max(1, round(float(stream.average_rate or 24) / _SAMPLES_PER_SECOND))
        self._start = self._end = Fraction(0)
        self._reformatter = VideoReformatter()
        self._first_luma: bytes | None = None
        self._samples_seen = 0
        self._black = self._frozen = True
        self._first: VideoFrame | None = None
        self.picture: VideoFrame | None = None
        self._picture_from_s = announced_s / 3
        self._picture_luma = -1
        self._picture_found = False

    def add(self, frame: "VideoFrame") -> None:
        if frame.pts is None or frame.time_base is None or frame.is_corrupt:
            raise make_bad_output_error(self._path, f"frame {self.frames} is damaged")
        self.pixels += frame.width * frame.height
        if self.pixels > MAX_TOTAL_PIXELS:
            raise make_bad_output_error(
                self._path, f"more than {self.frames:,} pictures of {frame.width}x{frame.height}"
            )
        start = frame.pts * frame.time_base
        if self._first is None:
            self._start = start
            self._first = frame
        length = frame.duration * frame.time_base or (1 / self._average if self._average else Fraction(0))
        self._end = max(self._end, start + length)
        if self.frames % self._every == 0 and (self._black or self._frozen or not self._picture_found):
            self._sample(frame, float(start - self._start))
        self.frames += 1

    def _sample(self, frame: "VideoFrame", at_s: float) -> None:
        luma = _make_thumbnail(frame, self._reformatter)
        self._first_luma = first = self._first_luma or luma
        self._samples_seen += 1
        self._black = self._black and max(luma) <= _BLACK_LUMA
        self._frozen = self._frozen and all(abs(a - b) <= _FROZEN_LUMA for a, b in zip(luma, first, strict=True))
        if not self._picture_found:
            self._picture_found = at_s >= self._picture_from_s and max(luma) > _BLACK_LUMA
            if self._picture_found or max(luma) > self._picture_luma:
                self.picture, self._picture_luma = frame, max(luma)

    @property
    def first(self) -> "VideoFrame":
        if self._first is None or self.duration_s <= 0:
            raise make_bad_output_error(self._path, "it holds no frames")
        return self._first

    @property
    def duration_s(self) -> float:
        return float(self._end - self._start)

    @property
    def fps(self) -> float:
        return float(self._average) if self._average else self.frames / self.duration_s

    @property
    def warnings(self) -> tuple[Flaw, ...]:
        if self._black:
            return ("black",)
        return ("frozen",) if self._frozen and self._samples_seen > 1 else ()


class _SoundDecoder:
    """Decodes the sound track to keep. Damage is recorded in `sound`, and raises no error."""

    def __init__(self, container: "InputContainer") -> None:
        self.stream = find_audio_stream(container)
        self.sound: Sound = "none"
        self._samples = 0
        if self.stream and self.stream.codec_context is None:
            self.sound = "unknown"
        elif self.stream:
            self.sound = "whole"
            self.stream.codec_context.options = {"err_detect": _STRICT}

    @property
    def can_decode(self) -> bool:
        return self.stream is not None and self.sound == "whole"

    def add(self, packet: "Packet[Any]") -> None:
        import av

        if not self.can_decode:
            return
        try:
            frames: list[AudioFrame] = [] if packet.is_corrupt else packet.decode()  # type: ignore[assignment]
            self._samples += sum(frame.samples for frame in frames)
            if packet.is_corrupt or self._samples > _MAX_SOUND_SAMPLES:
                self.sound = "damaged"
        except av.FFmpegError:
            self.sound = "damaged"


def _decode_all(
    path: Path, container: "InputContainer", stream: "VideoStream", announced_s: float, stop: Event | None
) -> tuple[_FrameStats, Sound]:
    """Decode every packet of the picture, strictly, and of the sound."""
    stream.codec_context.options = {**stream.codec_context.options, "err_detect": _STRICT}
    # Threads by slice, PyAV's default, hide damaged slices; threads by frame take half as much again of the processor,
    # which has other clips to decode.
    stream.thread_type = "NONE"
    stats = _FrameStats(path, stream, announced_s)
    sound_decoder = _SoundDecoder(container)
    for packet in container.demux(
        [stream, sound_decoder.stream] if sound_decoder.stream and sound_decoder.can_decode else [stream]
    ):
        raise_if_stopped(path, stop)
        if packet.stream_index != stream.index:
            sound_decoder.add(packet)
            continue
        if packet.is_corrupt:
            raise make_bad_output_error(path, f"cut: a packet at byte {packet.pos} is not whole")
        for frame in packet.decode():
            stats.add(frame)  # type: ignore[arg-type]
    if stats.picture is None or stats.duration_s <= 0:
        raise make_bad_output_error(path, "it holds no frames")
    return stats, sound_decoder.sound


def _make_thumbnail(frame: "VideoFrame", reformatter: "VideoReformatter") -> bytes:
    """Return 64x36 cells of full-range luma, each the mean of its part of the picture."""
    width, height = _THUMB
    small = reformatter.reformat(frame, width=width, height=height, format="gray", interpolation="AREA")
    plane = small.planes[0]
    rows = bytes(plane)
    return b"".join(rows[row * plane.line_size : row * plane.line_size + width] for row in range(height))


def _write_poster(stream: "VideoStream", frame: "VideoFrame", view: Presentation, out: Path) -> None:
    scale = min(1.0, _POSTER_EDGE_PX / max(view.size))
    size = max(1, round(view.size[0] * scale)), max(1, round(view.size[1] * scale))
    _write_picture(stream, frame, view, out, size=size, quality=85)


def _write_picture(
    stream: "VideoStream", frame: "VideoFrame", view: Presentation, out: Path, *, size: Size, quality: int
) -> None:
    graph = open_graph(stream, frame, view, crop=view.size, size=size, form="rgb24")
    graph.push(frame)
    graph.push(None)
    image = next(pull_frames(graph)).to_image()  # type: ignore[no-untyped-call]
    with write_atomically(out) as part:
        image.save(part, "JPEG", quality=quality)
