"""Is a clip whole, how long is it, how is it shown: measured by decoding it."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

from videogen.media.boxes import walk_boxes
from videogen.media.encode import View, open_graph, pull
from videogen.media.files import (
    MAX_PIXELS_IN_ALL,
    bad,
    decoding,
    give_up_if_asked,
    heard_stream,
    open_clip,
    reading,
    video_stream,
    writing,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

Flaw = Literal["black", "frozen"]
Note = Literal["codec", "hdr", "sound", "transcoded"]
"""What somebody should know of a whole clip:

- `codec`: some browsers, phones or editors do not play its codec (HEVC, AV1, VP9).
- `hdr`: its colours are HDR; where it had to be encoded anew they are mapped to bt709.
- `sound`: its sound is in a codec that FFmpeg, and so most players, cannot decode. It is kept as it came, or left out
  where the picture had to be encoded anew.
- `transcoded`: it came in a codec that no browser plays, and was encoded anew in H.264.
"""
Sound = Literal["none", "whole", "damaged", "unknown"]
"""`unknown`: in a codec that cannot be decoded here."""

_STRICT = "crccheck+bitstream+buffer+explode"
_LOOKS_A_SECOND = 4
"""How many frames of a second are compared to find black and frozen clips."""
_THUMB = (64, 36)
_BLACK_LUMA = 20
"""Of 255, in the brightest cell of the thumbnail: a night sky with a moon is above, encoder noise is not."""
_POSTER_EDGE_PX = 960
_FROZEN_LUMA = 4
"""Of 255, between any cell and the same cell of the first frame: a still picture pumps by 3 with its key frames."""
_MAX_SOUND_SAMPLES = 660 * 192_000
"""For each channel: eleven minutes of the finest sound there is. Silence packs well, so a small file may hold days."""
_EVERYWHERE = {("h264", "yuv420p"), ("h264", "yuvj420p")}
_IN_PLACES = {(codec, form) for codec in ("hevc", "av1", "vp9") for form in ("yuv420p", "yuvj420p", "yuv420p10le")}


@dataclass(frozen=True, slots=True)
class Measured:
    """What a whole video is, measured by decoding it rather than read from its header."""

    duration: float
    """Seconds from the start of the first frame to the end of the last."""
    width: int
    """In pixels, as a player shows it, as is `height`: turned, in square pixels, without what is to be cut off."""
    height: int
    fps: float
    frames: int
    codec: str
    """Of the picture, by FFmpeg's name: `h264`, `av1`."""
    has_audio: bool
    size_bytes: int
    sha256: str
    warnings: tuple[Flaw, ...] = ()
    """`black` and `frozen` are said of clips that are so from start to end; both are whole."""
    notes: tuple[Note, ...] = ()
    sound: Sound = "none"
    """A picture is whole whatever its sound is."""


def check(path: Path, *, poster: Path | None = None, stop: Event | None = None) -> Measured:
    """Decode the mp4 or QuickTime file at `path` to its end and say what it is.

    The cheap looks come first: what the first bytes say, the bounds of the boxes, the header; then one pass decodes
    every packet strictly. About 0.5 s for ten seconds of 1080p. A clip that announces more pictures than any clip has
    is refused before it is decoded. Another thread may set `stop` to give up at the next packet.

    A whole video leaves a JPEG at `poster`, as a player shows it and at most 960 px at its longer edge: a frame a third
    of the way in, or the next one that is not black.

    Raises:
        BadOutputError: it is not a whole video; the message says which file and what is wrong, and quotes none of it.
        StorageError: it cannot be read, or `poster` not be written, or it was given up.
    """
    with reading(path), path.open("rb") as file:
        aperture = walk_boxes(path, file)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    with decoding(path), open_clip(path) as container:
        stream = video_stream(path, container)
        promised_s = _promised_s(stream)
        tally, sound = _decode_all(path, container, stream, promised_s, stop)
        view = View.of(path, stream, tally.first, aperture)
        if promised_s - tally.duration_s > max(0.1, 2 / tally.fps):
            raise bad(path, f"its header promises {promised_s:.3f} s, but only {tally.duration_s:.3f} s can be decoded")
        if poster and tally.picture:
            _write_poster(stream, tally.picture, view, poster)
        return Measured(
            duration=tally.duration_s,
            width=view.size[0],
            height=view.size[1],
            fps=tally.fps,
            frames=tally.frames,
            codec=codec_of(stream),
            has_audio=bool(container.streams.audio),
            size_bytes=size_bytes,
            sha256=sha256,
            warnings=tally.warnings,
            notes=tuple(_notes(stream, view, sound)),
            sound=sound,
        )


def codec_of(stream: "VideoStream") -> str:
    """Return the codec's name, which is not always its decoder's."""
    return stream.codec_context.codec.canonical_name


def plays(stream: "VideoStream") -> Literal["everywhere", "in places", "nowhere"]:
    """Return where a browser plays the picture: 4:4:4, RGB and ten bits of H.264 are played nowhere."""
    kind = codec_of(stream), stream.codec_context.pix_fmt or ""
    return "everywhere" if kind in _EVERYWHERE else "in places" if kind in _IN_PLACES else "nowhere"


def _notes(stream: "VideoStream", view: View, sound: Sound) -> "list[Note]":
    notes: list[Note] = []
    if plays(stream) != "everywhere":
        notes.append("codec")
    if view.is_hdr:
        notes.append("hdr")
    if sound == "unknown":
        notes.append("sound")
    return notes


def _promised_s(stream: "VideoStream") -> float:
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


def look(path: Path) -> "tuple[VideoFrame, View]":
    """Return the first picture of a clip and how it is shown.

    Raises:
        BadOutputError: there is none.
    """
    with reading(path), path.open("rb") as file:
        aperture = walk_boxes(path, file)
    with decoding(path), open_clip(path) as container:  # of its own: not every clip can be rewound
        stream = video_stream(path, container)
        stream.thread_type = "NONE"
        first = next(container.decode(stream), None)
        if first is None:
            raise bad(path, "it holds no frames")
        return first, View.of(path, stream, first, aperture)


class _Tally:
    """What is learnt from the frames of one stream as they pass."""

    def __init__(self, path: Path, stream: "VideoStream", promised_s: float) -> None:
        from av.video.reformatter import VideoReformatter

        self.frames = 0
        self.pixels = 0
        self._path = path
        self._average = stream.average_rate
        self._every = max(1, round(float(stream.average_rate or 24) / _LOOKS_A_SECOND))
        self._start = self._end = Fraction(0)
        self._reformatter = VideoReformatter()
        self._first_luma: bytes | None = None
        self._looks = 0
        self._black = self._frozen = True
        self._first: VideoFrame | None = None
        self.picture: VideoFrame | None = None
        self._picture_from_s, self._picture_luma, self._picture_found = promised_s / 3, -1, False

    def add(self, frame: "VideoFrame") -> None:
        if frame.pts is None or frame.time_base is None or frame.is_corrupt:
            raise bad(self._path, f"frame {self.frames} is damaged")
        self.pixels += frame.width * frame.height
        if self.pixels > MAX_PIXELS_IN_ALL:
            raise bad(self._path, f"more than {self.frames:,} pictures of {frame.width}x{frame.height}")
        start = frame.pts * frame.time_base
        if self._first is None:
            self._start, self._first = start, frame
        length = frame.duration * frame.time_base or (1 / self._average if self._average else Fraction(0))
        self._end = max(self._end, start + length)
        if self.frames % self._every == 0 and (self._black or self._frozen or not self._picture_found):
            self._look(frame, float(start - self._start))
        self.frames += 1

    def _look(self, frame: "VideoFrame", at_s: float) -> None:
        luma = _thumbnail(frame, self._reformatter)
        self._first_luma = first = self._first_luma or luma
        self._looks += 1
        self._black = self._black and max(luma) <= _BLACK_LUMA
        self._frozen = self._frozen and all(abs(a - b) <= _FROZEN_LUMA for a, b in zip(luma, first, strict=True))
        if not self._picture_found:
            self._picture_found = at_s >= self._picture_from_s and max(luma) > _BLACK_LUMA
            if self._picture_found or max(luma) > self._picture_luma:
                self.picture, self._picture_luma = frame, max(luma)

    @property
    def first(self) -> "VideoFrame":
        if self._first is None or self.duration_s <= 0:
            raise bad(self._path, "it holds no frames")
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
        return ("frozen",) if self._frozen and self._looks > 1 else ()


class _Ear:
    """Decodes the sound that would be kept; its damage is told, and costs the picture nothing."""

    def __init__(self, container: "InputContainer") -> None:
        self.stream = heard_stream(container)
        self.sound: Sound = "none"
        self._samples = 0
        if self.stream and self.stream.codec_context is None:
            self.sound = "unknown"
        elif self.stream:
            self.sound = "whole"
            self.stream.codec_context.options = {"err_detect": _STRICT}

    @property
    def is_listening(self) -> bool:
        return self.stream is not None and self.sound == "whole"

    def add(self, packet: "Packet[Any]") -> None:
        import av

        if not self.is_listening:
            return
        try:
            frames: list[AudioFrame] = [] if packet.is_corrupt else packet.decode()  # type: ignore[assignment]
            self._samples += sum(frame.samples for frame in frames)
            if packet.is_corrupt or self._samples > _MAX_SOUND_SAMPLES:
                self.sound = "damaged"
        except av.FFmpegError:
            self.sound = "damaged"


def _decode_all(
    path: Path, container: "InputContainer", stream: "VideoStream", promised_s: float, stop: Event | None
) -> tuple[_Tally, Sound]:
    """Decode every packet of the picture, strictly, and of the sound."""
    stream.codec_context.options = {**stream.codec_context.options, "err_detect": _STRICT}
    # Threads by slice, PyAV's default, hide damaged slices; threads by frame take half as much again of the processor,
    # which has other clips to decode.
    stream.thread_type = "NONE"
    tally, ear = _Tally(path, stream, promised_s), _Ear(container)
    for packet in container.demux([stream, ear.stream] if ear.stream and ear.is_listening else [stream]):
        give_up_if_asked(path, stop)
        if packet.stream_index != stream.index:
            ear.add(packet)
            continue
        if packet.is_corrupt:
            raise bad(path, f"cut: a packet at byte {packet.pos} is not whole")
        for frame in packet.decode():
            tally.add(frame)  # type: ignore[arg-type]
    if tally.picture is None or tally.duration_s <= 0:
        raise bad(path, "it holds no frames")
    return tally, ear.sound


def _thumbnail(frame: "VideoFrame", reformatter: "VideoReformatter") -> bytes:
    """64x36 cells of full-range luma, each the mean of its part of the picture."""
    width, height = _THUMB
    small = reformatter.reformat(frame, width=width, height=height, format="gray", interpolation="AREA")
    plane = small.planes[0]
    rows = bytes(plane)
    return b"".join(rows[row * plane.line_size : row * plane.line_size + width] for row in range(height))


def _write_poster(stream: "VideoStream", frame: "VideoFrame", view: View, out: Path) -> None:
    scale = min(1.0, _POSTER_EDGE_PX / max(view.size))
    size = max(1, round(view.size[0] * scale)), max(1, round(view.size[1] * scale))
    graph = open_graph(stream, frame, view, crop=view.size, size=size, form="rgb24")
    graph.push(frame)
    graph.push(None)
    image = next(pull(graph)).to_image()  # type: ignore[no-untyped-call]
    with writing(out) as part:
        image.save(part, "JPEG", quality=85)
