"""Conform a clip to its request: ratio, frame rate, size, sound, and a codec that browsers play."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from videogen.media.encode import Presentation, Size, find_crop, floor_to_even, open_encoder, open_graph, pull_frames
from videogen.media.files import (
    find_audio_stream,
    find_video_stream,
    open_clip,
    open_muxer,
    raise_if_stopped,
    translate_decode_errors,
    write_atomically,
)
from videogen.media.inspect import Note, get_browser_support, read_first_frame

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MAX_OFFSET_S = 0.001
_MAX_OFFSET_WITH_SOUND_S = 0.1
"""How far kept sound may begin before the picture or end after it: encoders prime and pad sound."""


@dataclass(frozen=True, slots=True)
class ConformResult:
    """The result of conforming a clip: notes for its reader."""

    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class _OutputFormat:
    """Format of the output picture. The visible picture is cropped to `crop`, then scaled to `size`."""

    crop: Size
    size: Size
    fps: Fraction


@dataclass(frozen=True, slots=True)
class _PictureSpan:
    """Start and end of the picture in the source, in seconds. The clip is trimmed to them."""

    start: Fraction
    end: Fraction
    is_late: bool
    ends_sound: bool
    """Whether the sound has to be cut at the end of the picture."""

    @classmethod
    def of(cls, stream: "VideoStream", first: "VideoFrame", audio: "AudioStream | None") -> "_PictureSpan":
        base = stream.time_base or Fraction(1)
        start = (first.pts or 0) * base
        end = start + (stream.duration or 0) * base
        if audio is None:
            return cls(start, end, start > _MAX_OFFSET_S, False)
        sound_end_s = ((audio.start_time or 0) + (audio.duration or 0)) * (audio.time_base or Fraction(0))
        is_longer = end > start and sound_end_s - end > _MAX_OFFSET_WITH_SOUND_S
        return cls(start, end, start > _MAX_OFFSET_WITH_SOUND_S, is_longer)


def conform(
    source: Path,
    out: Path,
    *,
    ratio: tuple[int, int] | None,
    fps: float | None,
    size: tuple[int, int] | None,
    keep_audio: bool,
    tolerance: float = 0.01,
    stop: Event | None = None,
) -> ConformResult | None:
    """Write `source` to `out` with the requested ratio, frame rate, size and sound.

    Return None, and write nothing, when `source` already conforms.

    `ratio` (16, 9) crops around the centre when the picture, as a player shows it, is off by more than `tolerance` (a
    share: 0.01 is 1 %) or by lines that only fill a coding block (1920x1088). `fps` repeats or leaves out frames, so
    that the duration is kept, when off by more than `tolerance`, and `size` (width, height in pixels) crops to its own
    ratio and scales. None keeps the source's value. Without `keep_audio` the sound is dropped; kept sound is trimmed to
    the picture. When only the sound changes, the picture is copied, not encoded again. Width and height become even.

    A clip that is encoded again comes out upright, in square pixels, in bt709 and H.264, which plays everywhere. A
    source in a codec that no browser plays is always encoded again.

    Raises:
        BadOutputError: `source` cannot be decoded.
        StorageError: `out` cannot be written, or `stop` was set. No file is left under its name.
    """
    first, view = read_first_frame(source)
    with translate_decode_errors(source), open_clip(source) as container:
        stream = find_video_stream(source, container)
        wanted = _find_output_format(stream, view, ratio=ratio, fps=fps, size=size, tolerance=tolerance)
        heard = find_audio_stream(container)
        can_be_copied = heard is not None and heard.codec_context is not None
        audio = heard if keep_audio and can_be_copied else None
        span = _PictureSpan.of(stream, first, audio)
        has_requested_sound = heard is None or keep_audio
        is_in_sync = not span.is_late and not span.ends_sound
        must_keep_sound = keep_audio and heard is not None and not can_be_copied
        if wanted is None and (must_keep_sound or (has_requested_sound and is_in_sync)):
            return None
        with write_atomically(out) as part, open_muxer(part) as target:
            if wanted is None:
                _copy(source, container, stream, audio, target, span, stop)
                return ConformResult()
            _encode(source, container, stream, audio, target, span, first, view, wanted, stop)
        notes: tuple[tuple[Note, bool], ...] = (
            ("transcoded", get_browser_support(stream) == "nowhere"),
            ("hdr", view.is_hdr),
            ("sound", must_keep_sound),
        )
        return ConformResult(tuple(note for note, applies in notes if applies))


def _find_output_format(
    stream: "VideoStream",
    view: Presentation,
    *,
    ratio: Size | None,
    fps: float | None,
    size: Size | None,
    tolerance: float,
) -> _OutputFormat | None:
    """Return the format in which the picture has to be encoded; None when it already has it."""
    rate = stream.average_rate or Fraction(24)
    crop = find_crop(view.size, size or ratio or view.size, 0 if size else tolerance, spare_px=1 if size else 4)
    is_rate_near = fps is None or abs(fps / rate - 1) <= tolerance
    wanted_rate = rate if is_rate_near else Fraction(fps or 0).limit_denominator(1001)
    wanted_size = floor_to_even(size) if size else crop
    has_requested_format = (wanted_size, wanted_rate) == (view.size, rate)
    if has_requested_format and view.crop is None and get_browser_support(stream) != "nowhere":
        return None
    return _OutputFormat(floor_to_even(crop), floor_to_even(wanted_size), wanted_rate)


def _copy(
    source: Path,
    container: "InputContainer",
    stream: "VideoStream",
    audio: "AudioStream | None",
    target: "OutputContainer",
    span: _PictureSpan,
    stop: Event | None,
) -> None:
    """Copy the packets of the picture, and those of `audio` unless it is None."""
    picture = target.add_stream_from_template(stream)
    sound = target.add_stream_from_template(audio) if audio else None
    for packet in container.demux([stream, audio] if audio else [stream]):
        raise_if_stopped(source, stop)
        if packet.dts is None:
            continue
        if packet.stream_index == stream.index:
            _shift_earlier(packet, span.start)
            packet.stream = picture
            target.mux(packet)
        elif sound is not None:
            _copy_sound(packet, sound, target, span)


def _copy_sound(packet: "Packet[Any]", sound: "Stream", target: "OutputContainer", span: _PictureSpan) -> None:
    """Copy a packet of sound if it plays while there is a picture."""
    at = (packet.pts if packet.pts is not None else packet.dts or 0) * (packet.time_base or Fraction(0))
    if (span.start > 0 and at < span.start) or (span.ends_sound and at >= span.end):
        return
    _shift_earlier(packet, span.start)
    packet.stream = sound
    target.mux(packet)


def _shift_earlier(packet: "Packet[Any]", earlier_s: Fraction) -> None:
    """Shift the time stamps of a packet to `earlier_s` seconds before."""
    ticks = round(earlier_s / (packet.time_base or Fraction(1)))
    if packet.pts is not None:
        packet.pts -= ticks
    if packet.dts is not None:
        packet.dts -= ticks


def _encode(
    source: Path,
    container: "InputContainer",
    stream: "VideoStream",
    audio: "AudioStream | None",
    target: "OutputContainer",
    span: _PictureSpan,
    first: "VideoFrame",
    view: Presentation,
    wanted: _OutputFormat,
    stop: Event | None,
) -> None:
    """Encode the picture again; copy the packets of `audio` unless it is None."""
    stream.thread_type = "NONE"  # each thread would hold frames of its own, and most of the time goes into encoding
    encoder = open_encoder(target, wanted.size, wanted.fps)
    sound = target.add_stream_from_template(audio) if audio else None
    graph = open_graph(stream, first, view, crop=wanted.crop, size=wanted.size, fps=wanted.fps)

    def drain() -> None:
        for frame in pull_frames(graph):
            target.mux(encoder.encode(frame))

    for packet in container.demux([stream, audio] if audio else [stream]):
        raise_if_stopped(source, stop)
        if packet.stream_index == stream.index:
            for frame in packet.decode():
                graph.push(frame)  # type: ignore[arg-type]
                drain()
        elif sound is not None and packet.dts is not None:
            _copy_sound(packet, sound, target, span)
    graph.push(None)
    drain()
    target.mux(encoder.encode(None))
