"""Make a clip true to what was asked: ratio, frame rate, size, sound, and a codec that plays."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from videogen.media.encode import Size, View, crop_to, even, open_encoder, open_graph, pull
from videogen.media.files import decoding, give_up_if_asked, heard_stream, muxing, open_clip, video_stream, writing
from videogen.media.inspect import Note, look, plays

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LATE_S = 0.001
_LATE_WITH_SOUND_S = 0.1
"""How much earlier, or longer, than the picture a sound that is kept may be: encoders prime and pad it."""


@dataclass(frozen=True, slots=True)
class Conformed:
    """What was done to a clip."""

    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How the picture is to come out: what is shown is cut to `crop`, then scaled to `size`."""

    crop: Size
    size: Size
    fps: Fraction


@dataclass(frozen=True, slots=True)
class _Span:
    """The time of the picture in the source, in seconds: the clip begins and ends with it."""

    start: Fraction
    end: Fraction
    is_late: bool
    ends_sound: bool
    """Whether the sound goes on after the picture."""

    @classmethod
    def of(cls, stream: "VideoStream", first: "VideoFrame", audio: "AudioStream | None") -> "_Span":
        base = stream.time_base or Fraction(1)
        start = (first.pts or 0) * base
        end = start + (stream.duration or 0) * base
        if audio is None:
            return cls(start, end, start > _LATE_S, False)
        heard_until = ((audio.start_time or 0) + (audio.duration or 0)) * (audio.time_base or Fraction(0))
        is_longer = end > start and heard_until - end > _LATE_WITH_SOUND_S
        return cls(start, end, start > _LATE_WITH_SOUND_S, is_longer)


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
) -> Conformed | None:
    """Write `source` to `out` with the ratio, frame rate, size and sound asked for; None when it is so already.

    `ratio` (16, 9) crops around the centre when the picture, as a player shows it, is off by more than `tolerance` (a
    share: 0.01 is 1 %) or by lines that only fill a coding block (1920x1088). `fps` repeats or leaves out frames, so
    that the duration is kept, when off by more than `tolerance`, and `size` (width, height in pixels) crops to its own
    ratio and scales. None leaves as is. Without `keep_audio` the sound is dropped; kept sound begins and ends with the
    picture. Where nothing else changes, the picture is copied, not encoded again. Edges come out even.

    What is encoded again comes out upright, in square pixels, in bt709 and H.264, which plays everywhere. A codec that
    no browser plays is reason enough for that.

    Raises:
        BadOutputError: `source` cannot be decoded.
        StorageError: `out` cannot be written, or `stop` was set; nothing is left under its name.
    """
    first, view = look(source)
    with decoding(source), open_clip(source) as container:
        stream = video_stream(source, container)
        wanted = _wanted(stream, view, ratio=ratio, fps=fps, size=size, tolerance=tolerance)
        heard = heard_stream(container)
        can_be_copied = heard is not None and heard.codec_context is not None
        audio = heard if keep_audio and can_be_copied else None
        span = _Span.of(stream, first, audio)
        is_sound_as_asked = heard is None or keep_audio
        is_in_time = not span.is_late and not span.ends_sound
        must_stay = keep_audio and heard is not None and not can_be_copied
        if wanted is None and (must_stay or (is_sound_as_asked and is_in_time)):
            return None
        with writing(out) as part, muxing(part) as target:
            if wanted is None:
                _copy(source, container, stream, audio, target, span, stop)
                return Conformed()
            _encode(source, container, stream, audio, target, span, first, view, wanted, stop)
        said: tuple[tuple[Note, bool], ...] = (
            ("transcoded", plays(stream) == "nowhere"),
            ("hdr", view.is_hdr),
            ("sound", must_stay),
        )
        return Conformed(tuple(note for note, applies in said if applies))


def _wanted(
    stream: "VideoStream",
    view: View,
    *,
    ratio: Size | None,
    fps: float | None,
    size: Size | None,
    tolerance: float,
) -> _Wanted | None:
    """Return how the picture is to be encoded, None when it is as asked already."""
    rate = stream.average_rate or Fraction(24)
    crop = crop_to(view.size, size or ratio or view.size, 0 if size else tolerance, spare_px=1 if size else 4)
    is_rate_near = fps is None or abs(fps / rate - 1) <= tolerance
    wanted_rate = rate if is_rate_near else Fraction(fps or 0).limit_denominator(1001)
    wanted_size = even(size) if size else crop
    is_as_asked = (wanted_size, wanted_rate) == (view.size, rate)
    if is_as_asked and view.crop is None and plays(stream) != "nowhere":
        return None
    return _Wanted(even(crop), even(wanted_size), wanted_rate)


def _copy(
    source: Path,
    container: "InputContainer",
    stream: "VideoStream",
    audio: "AudioStream | None",
    target: "OutputContainer",
    span: _Span,
    stop: Event | None,
) -> None:
    """Copy the packets of the picture, and of `audio`, if any."""
    picture = target.add_stream_from_template(stream)
    sound = target.add_stream_from_template(audio) if audio else None
    for packet in container.demux([stream, audio] if audio else [stream]):
        give_up_if_asked(source, stop)
        if packet.dts is None:
            continue
        if packet.stream_index == stream.index:
            _move(packet, span.start)
            packet.stream = picture
            target.mux(packet)
        elif sound is not None:
            _copy_sound(packet, sound, target, span)


def _copy_sound(packet: "Packet[Any]", sound: "Stream", target: "OutputContainer", span: _Span) -> None:
    """Copy a packet of sound that is heard while there is a picture."""
    at = (packet.pts if packet.pts is not None else packet.dts or 0) * (packet.time_base or Fraction(0))
    if (span.start > 0 and at < span.start) or (span.ends_sound and at >= span.end):
        return
    _move(packet, span.start)
    packet.stream = sound
    target.mux(packet)


def _move(packet: "Packet[Any]", earlier_s: Fraction) -> None:
    """Let a packet come earlier."""
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
    span: _Span,
    first: "VideoFrame",
    view: View,
    wanted: _Wanted,
    stop: Event | None,
) -> None:
    """Encode the picture anew; copy the packets of `audio`, if any."""
    stream.thread_type = "NONE"  # each thread would hold frames of its own, and the encoder is what takes the time
    encoder = open_encoder(target, wanted.size, wanted.fps)
    sound = target.add_stream_from_template(audio) if audio else None
    graph = open_graph(stream, first, view, crop=wanted.crop, size=wanted.size, fps=wanted.fps)

    def drain() -> None:
        for frame in pull(graph):
            target.mux(encoder.encode(frame))

    for packet in container.demux([stream, audio] if audio else [stream]):
        give_up_if_asked(source, stop)
        if packet.stream_index == stream.index:
            for frame in packet.decode():
                graph.push(frame)  # type: ignore[arg-type]
                drain()
        elif sound is not None and packet.dts is not None:
            _copy_sound(packet, sound, target, span)
    graph.push(None)
    drain()
    target.mux(encoder.encode(None))
