"""Measure, check and mend mp4 files: is it whole, how long is it, a poster, and the ratio and frame rate asked for.

All functions are synchronous, busy (they decode) and release the GIL: call them in threads. They open local files only,
and hold a few frames at a time, whatever the length of the clip. PyAV is imported when it is first needed.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from videogen.errors import BadOutputError, StorageError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

Flaw = Literal["black", "frozen"]

_MAX_BOXES = 100_000
_MAX_PIXELS = 8192 * 8192
_STRICT = "crccheck+bitstream+buffer+explode"
_LOOKS_A_SECOND = 4
"""How many frames of a second are compared to find black and frozen clips."""
_THUMB = (64, 36)
_BLACK_LUMA = 20
"""Of 255, in the brightest cell of the thumbnail: a night sky with a moon is above, encoder noise is not."""
_POSTER_EDGE_PX = 960
_FROZEN_LUMA = 4
"""Of 255, between any cell and the same cell of the first frame: a still picture pumps by 3 with its key frames."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a whole video is, measured by decoding it rather than read from its header."""

    duration: float
    """Seconds from the start of the first frame to the end of the last."""
    width: int
    height: int
    fps: float
    frames: int
    codec: str
    has_audio: bool
    size_bytes: int
    sha256: str
    warnings: tuple[Flaw, ...] = ()
    """`black` and `frozen` are said of clips that are so from start to end; both are whole."""


def check(path: Path, *, poster: Path | None = None) -> Measured:
    """Decode the mp4 or QuickTime file at `path` to its end and say what it is.

    The cheap looks come first: what the first bytes say, the bounds of the boxes, the header; then one pass decodes
    every packet strictly. About 0.5 s for ten seconds of 1080p.

    A whole video leaves a JPEG at `poster`, in its ratio and at most 960 px at its longer edge: a frame a third of the
    way in, or the next one that is not black.

    Raises:
        BadOutputError: it is not a whole video; the message says which file and what is wrong.
        StorageError: it cannot be read, or `poster` not be written.
    """
    with _reading(path), path.open("rb") as file:
        _walk_boxes(path, file)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        codec, promised_s = stream.codec_context.name, _promised_s(stream)
        has_audio = bool(container.streams.audio)
        tally = _decode_all(path, container, stream, promised_s)
    if promised_s - tally.duration_s > max(0.1, 2 / tally.fps):
        raise _bad(path, f"its header promises {promised_s:.3f} s, but only {tally.duration_s:.3f} s can be decoded")
    if poster and tally.picture:
        _write_poster(tally.picture, poster)
    return Measured(
        duration=tally.duration_s,
        width=tally.width,
        height=tally.height,
        fps=tally.fps,
        frames=tally.frames,
        codec=codec,
        has_audio=has_audio,
        size_bytes=size_bytes,
        sha256=sha256,
        warnings=tally.warnings,
    )


def conform(
    source: Path,
    out: Path,
    *,
    ratio: tuple[int, int] | None,
    fps: float | None,
    size: tuple[int, int] | None,
    keep_audio: bool,
    tolerance: float = 0.01,
) -> bool:
    """Write `source` to `out` with the ratio, frame rate, size and sound asked for; False when it is so already.

    `ratio` (16, 9) crops around the centre when the picture is off by more than `tolerance` (a share: 0.01 is 1 %),
    `fps` repeats or leaves out frames, so that the duration is kept, when off by more than `tolerance`, and `size`
    (width, height in pixels) crops to its own ratio and scales. None leaves as is. Without `keep_audio` the sound is
    dropped; where nothing else changes, the picture is copied, not encoded again. Edges come out even.

    Raises:
        BadOutputError: `source` cannot be decoded.
        StorageError: `out` cannot be written; nothing is left under its name.
    """
    with _decoding(source), _open(source) as container:
        stream = _video_stream(source, container)
        picture = _Picture.planned(stream, ratio=ratio, fps=fps, size=size, tolerance=tolerance)
        audio = container.streams.audio[0] if container.streams.audio else None
        if picture is None and (audio is None or keep_audio):
            return False
        with _writing(out) as part, _muxing(part) as target:
            if picture is None:
                _copy(container, stream, target)
            else:
                _encode(container, stream, audio if keep_audio else None, target, picture)
    return True


def join(
    parts: Iterable[tuple[Path, float]], out: Path, *, size: tuple[int, int], fps: float, stop: Event | None = None
) -> None:
    """Write the first seconds of each of `parts` (file, seconds), one after the other and without sound, to `out`.

    Each picture is cropped around its centre and scaled to `size` (width, height in pixels, made even), at `fps`. A
    part that is shorter than its seconds is used whole; the parts end at the nearest frame, and rounding does not add
    up. Another thread may set `stop` to give it up: then nothing is left under the name of `out`.

    Raises:
        BadOutputError: a part cannot be decoded.
        StorageError: `out` cannot be written.
    """
    rate, frames, due = Fraction(fps).limit_denominator(1001), 0, 0.0
    with _writing(out) as part, _muxing(part) as target:
        encoder = _encoder(target, _Picture(size, _even(size), rate))
        for path, seconds in parts:
            due += seconds * rate
            with closing(_cut(path, encoder.width, encoder.height, rate)) as cut:
                for frame in islice(cut, round(due) - frames):
                    if stop and stop.is_set():
                        raise StorageError(f"{out}: given up")
                    frame.pts, frame.time_base, frames = frames, 1 / rate, frames + 1
                    target.mux(encoder.encode(frame))
            if frames < round(due):  # the clip was shorter: what it lacks is not owed
                due = float(frames)
        target.mux(encoder.encode(None))


def _cut(path: Path, width: int, height: int, rate: Fraction) -> "Generator[VideoFrame]":
    """The frames of a clip in another size and rate, as they are asked for."""
    with _decoding(path), _open(path) as container:
        stream = _video_stream(path, container)
        stream.thread_type = "AUTO"
        now = stream.codec_context.width, stream.codec_context.height
        graph = _graph(stream, _Picture(_crop(now, (width, height), 0), (width, height), rate))
        for frame in container.decode(stream):
            graph.push(frame)
            yield from _pulled(graph)
        graph.push(None)
        yield from _pulled(graph)


# --- what the bytes say


def _walk_boxes(path: Path, file: BinaryIO) -> None:
    """Check that the file is a row of whole ISO boxes with ftyp, moov and mdat: 0.1 ms, and finds every cut."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    _sniff(path, file.read(512), size_bytes)
    seen: set[bytes] = set()
    start = 0
    for _ in range(_MAX_BOXES):
        if start == size_bytes:
            break
        kind, length = _box_at(path, file, start, size_bytes)
        seen.add(kind)
        start += length
    else:
        raise _bad(path, f"an mp4 of more than {_MAX_BOXES:,} boxes")
    missing = [kind.decode() for kind in (b"ftyp", b"moov", b"mdat") if kind not in seen]
    if missing:
        raise _bad(path, f"an mp4 without {', '.join(missing)}")


def _box_at(path: Path, file: BinaryIO, start: int, size_bytes: int) -> tuple[bytes, int]:
    """The kind and whole length in bytes of the box at `start`, which must end inside the file."""
    file.seek(start)
    head = file.read(16)
    length, kind = int.from_bytes(head[:4]), head[4:8]
    if len(kind) < 4 or not kind.isascii() or not kind.decode("ascii").isprintable():
        raise _bad(path, f"damaged at byte {start}: no mp4 box begins there")
    shortest = 8
    if length == 1:
        length, shortest = int.from_bytes(head[8:16]), 16
    elif length == 0:
        length = size_bytes - start
    if length < shortest:
        raise _bad(path, f"damaged at byte {start}: a box of {length} bytes")
    if start + length > size_bytes:
        raise _bad(path, f"cut: its {kind.decode()} ends at byte {start + length}, the file at byte {size_bytes}")
    return kind, length


def _sniff(path: Path, head: bytes, size_bytes: int) -> None:
    """Name what came instead of a video, where its first bytes tell."""
    if not size_bytes:
        raise _bad(path, "empty")
    if head[4:8] in (b"ftyp", b"wide", b"free", b"skip", b"moov", b"mdat"):
        return
    if head.strip(b"\0") == b"":
        raise _bad(path, f"{size_bytes} bytes that begin with zeros")
    raise _bad(path, f"not an mp4 but {_name_of(head)}")


def _name_of(head: bytes) -> str:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else "AVI or WAV"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "HTML or XML: " + _quote(text)
    if text[:1] in (b"{", b"["):
        return "JSON: " + _quote(text)
    if text and all(byte >= 32 or byte in b"\t\r\n" for byte in text):
        return "text: " + _quote(text)
    return "something unknown, first bytes " + head[:8].hex(" ")


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)


def _quote(text: bytes) -> str:
    """The first words of an answer, safe to print: what a proxy or a provider had to say is often the cause."""
    words = " ".join(text[:120].decode("utf-8", "replace").split())
    return repr(words[:80])


def _bad(path: Path, what: str) -> BadOutputError:
    return BadOutputError(f"{path}: {what}")


# --- decoding


def _open(path: Path) -> "InputContainer":
    """Open a local mp4: no other container, no protocol but file, whatever the bytes or the name suggest."""
    import av

    return av.open(f"file:{path.absolute()}", format="mp4", options={"protocol_whitelist": "file"})


def _video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    if not container.streams.video:
        raise _bad(path, "it holds no video stream")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 2 or height < 2 or width * height > _MAX_PIXELS:
        raise _bad(path, f"a picture of {width}x{height}")
    return stream


def _promised_s(stream: "VideoStream") -> float:
    if stream.duration is None or stream.time_base is None:
        return 0.0
    return float(stream.duration * stream.time_base)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Translate what the decoder and the file system raise while `path` is read."""
    import av

    try:
        yield
    except av.FFmpegError as exc:
        if isinstance(exc, OSError) and exc.errno != errno.EIO:
            raise StorageError(f"{path}: cannot be read: {exc.strerror}") from exc
        raise _bad(path, f"damaged: {exc.strerror}") from exc


class _Tally:
    """What is learnt from the frames of one stream as they pass."""

    def __init__(self, path: Path, stream: "VideoStream", promised_s: float) -> None:
        from av.video.reformatter import VideoReformatter

        self.frames = 0
        self.width = self.height = 0
        self._path = path
        self._average = stream.average_rate
        self._every = max(1, round(float(stream.average_rate or 24) / _LOOKS_A_SECOND))
        self._start = self._end = Fraction(0)
        self._reformatter = VideoReformatter()
        self._first: bytes | None = None
        self._looks = 0
        self._black = self._frozen = True
        self.picture: VideoFrame | None = None
        self._picture_from_s, self._picture_luma, self._picture_found = promised_s / 3, -1, False

    def add(self, frame: "VideoFrame") -> None:
        if frame.pts is None or frame.time_base is None or frame.is_corrupt:
            raise _bad(self._path, f"frame {self.frames} is damaged")
        start = frame.pts * frame.time_base
        if not self.frames:
            self._start, self.width, self.height = start, frame.width, frame.height
        length = frame.duration * frame.time_base or (1 / self._average if self._average else Fraction(0))
        self._end = max(self._end, start + length)
        if self.frames % self._every == 0 and (self._black or self._frozen or not self._picture_found):
            self._look(frame, float(start - self._start))
        self.frames += 1

    def _look(self, frame: "VideoFrame", at_s: float) -> None:
        luma = _thumbnail(frame, self._reformatter)
        self._first = self._first or luma
        self._looks += 1
        self._black = self._black and max(luma) <= _BLACK_LUMA
        self._frozen = self._frozen and all(abs(a - b) <= _FROZEN_LUMA for a, b in zip(luma, self._first, strict=True))
        if not self._picture_found:
            self._picture_found = at_s >= self._picture_from_s and max(luma) > _BLACK_LUMA
            if self._picture_found or max(luma) > self._picture_luma:
                self.picture, self._picture_luma = frame, max(luma)

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


def _decode_all(path: Path, container: "InputContainer", stream: "VideoStream", promised_s: float) -> _Tally:
    """Decode every packet of every stream that is seen or heard, strictly."""
    heard: list[VideoStream | AudioStream] = [stream, *container.streams.audio]
    for each in heard:
        each.codec_context.options = {"err_detect": _STRICT}
    # Threads by slice, PyAV's default, hide damaged slices; threads by frame take half as much again of the processor,
    # which has other clips to decode.
    stream.thread_type = "NONE"
    tally = _Tally(path, stream, promised_s)
    for packet in container.demux(heard):
        if packet.is_corrupt:
            raise _bad(path, f"cut: a packet at byte {packet.pos} is not whole")
        for frame in packet.decode():
            if packet.stream_index == stream.index:
                tally.add(frame)  # type: ignore[arg-type]
    if tally.picture is None or tally.duration_s <= 0:
        raise _bad(path, "it holds no frames")
    return tally


def _thumbnail(frame: "VideoFrame", reformatter: "VideoReformatter") -> bytes:
    """64x36 cells of full-range luma, each the mean of its part of the picture."""
    width, height = _THUMB
    small = reformatter.reformat(frame, width=width, height=height, format="gray", interpolation="AREA")
    plane = small.planes[0]
    rows = bytes(plane)
    return b"".join(rows[row * plane.line_size : row * plane.line_size + width] for row in range(height))


# --- writing


@contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """Give a path beside `out` to write to; move it to `out` when the block ends well, remove it otherwise."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _settle(part, out)
    except OSError as exc:
        raise StorageError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _settle(part: Path, out: Path) -> None:
    """Rename after the bytes, and then the name, are on the disk: a power cut leaves all of the file or nothing."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(out)
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_poster(frame: "VideoFrame", out: Path) -> None:
    scale = min(1.0, _POSTER_EDGE_PX / max(frame.width, frame.height))
    size = {"width": max(1, round(frame.width * scale)), "height": max(1, round(frame.height * scale))}
    image = frame.to_image(**size, interpolation="AREA")  # type: ignore[no-untyped-call]
    with _writing(out) as part:
        image.save(part, "JPEG", quality=85)


@contextmanager
def _muxing(part: Path) -> Iterator["OutputContainer"]:
    import av

    # faststart: a browser may play the clip before it has loaded to its end. It rewrites the file, so it needs a path.
    with av.open(f"file:{part.absolute()}", "w", format="mp4", options={"movflags": "+faststart"}) as target:
        yield target


@dataclass(frozen=True, slots=True)
class _Picture:
    """How a picture is to come out: cut to `crop`, then scaled to `size` (width, height in pixels, all even)."""

    crop: tuple[int, int]
    size: tuple[int, int]
    fps: Fraction

    @classmethod
    def planned(
        cls,
        stream: "VideoStream",
        *,
        ratio: tuple[int, int] | None,
        fps: float | None,
        size: tuple[int, int] | None,
        tolerance: float,
    ) -> "_Picture | None":
        """None when the picture is as asked already."""
        now = stream.codec_context.width, stream.codec_context.height
        rate = stream.average_rate or Fraction(24)
        crop = _crop(now, size or ratio or now, 0 if size else tolerance)
        wanted_rate = rate if fps is None or abs(fps / rate - 1) <= tolerance else Fraction(fps).limit_denominator(1001)
        wanted_size = _even(size) if size else crop
        if (wanted_size, wanted_rate) == (now, rate):
            return None
        return cls(_even(crop), _even(wanted_size), wanted_rate)


def _crop(now: tuple[int, int], ratio: tuple[int, int], tolerance: float) -> tuple[int, int]:
    """The largest even picture of `ratio` inside `now`; `now` itself where it is near enough."""
    width, height = now
    if abs(width * ratio[1] / (height * ratio[0]) - 1) <= tolerance:
        return now
    if width * ratio[1] > height * ratio[0]:
        return _even((height * ratio[0] / ratio[1], height))
    return _even((width, width * ratio[1] / ratio[0]))


def _even(size: tuple[float, float]) -> tuple[int, int]:
    """Edges of yuv420p are even; the nearest such below, so that a crop fits."""
    return max(2, int(size[0]) // 2 * 2), max(2, int(size[1]) // 2 * 2)


def _copy(container: "InputContainer", stream: "VideoStream", target: "OutputContainer") -> None:
    """Copy the picture's packets and leave the sound behind."""
    copy = target.add_stream_from_template(stream)
    for packet in container.demux(stream):
        if packet.dts is not None:
            packet.stream = copy
            target.mux(packet)


def _encode(
    container: "InputContainer",
    stream: "VideoStream",
    audio: "AudioStream | None",
    target: "OutputContainer",
    picture: _Picture,
) -> None:
    """Encode the picture anew; copy the packets of `audio`, if any."""
    stream.thread_type = "NONE"  # each thread would hold frames of its own, and the encoder is what takes the time
    encoder = _encoder(target, picture)
    sound = target.add_stream_from_template(audio) if audio else None
    graph = _graph(stream, picture)
    for packet in container.demux([stream, audio] if audio else [stream]):
        if packet.stream_index == stream.index:
            for frame in packet.decode():
                graph.push(frame)  # type: ignore[arg-type]
                _drain(graph, encoder, target)
        elif sound is not None and packet.dts is not None:
            packet.stream = sound
            target.mux(packet)
    graph.push(None)
    _drain(graph, encoder, target)
    target.mux(encoder.encode(None))


def _encoder(target: "OutputContainer", picture: _Picture) -> "VideoStream":
    # Looking ahead, B-frames, and more threads where there are more cores, hold frames: in full HD 4 MB each. Without
    # them a clip takes half the memory and time, and somewhat more bytes.
    options = {"crf": "18", "preset": "veryfast", "rc-lookahead": "0", "bf": "0", "threads": "3"}
    encoder = target.add_stream("libx264", rate=picture.fps, options=options)
    encoder.width, encoder.height = picture.size
    encoder.pix_fmt = "yuv420p"
    context = encoder.codec_context
    context.color_primaries = context.color_trc = context.colorspace = 1  # bt709
    context.color_range = 1  # limited
    return encoder


def _graph(stream: "VideoStream", picture: _Picture) -> "Graph":
    from av.filter import Graph

    graph = Graph()
    # Players read untagged video as bt601 below 720 lines and as bt709 from there on: say so before it is tagged bt709.
    context = stream.codec_context
    matrix = "auto" if context.colorspace != 2 else "bt709" if context.height >= 720 else "bt601"
    (width, height), (cut_width, cut_height) = picture.size, picture.crop
    graph.link_nodes(
        graph.add_buffer(template=stream, time_base=stream.time_base),
        graph.add("crop", f"{cut_width}:{cut_height}"),
        graph.add("fps", f"fps={picture.fps}:round=near"),
        graph.add("scale", f"{width}:{height}:in_color_matrix={matrix}:out_color_matrix=bt709:out_range=tv"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _drain(graph: "Graph", encoder: "VideoStream", target: "OutputContainer") -> None:
    for frame in _pulled(graph):
        target.mux(encoder.encode(frame))


def _pulled(graph: "Graph") -> "Iterator[VideoFrame]":
    import av

    while True:
        try:
            frame = cast("VideoFrame", graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        frame.pict_type = 0  # the encoder chooses, not the source
        yield frame
