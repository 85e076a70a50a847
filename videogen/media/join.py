"""Join the segments of a long clip: copy their pictures where the streams allow, else encode them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Event

from videogen.media.concat import FilmPart, concatenate
from videogen.media.encode import Size
from videogen.media.files import (
    find_video_stream,
    make_bad_output_error,
    open_clip,
    open_muxer,
    raise_if_stopped,
    translate_decode_errors,
    write_atomically,
)
from videogen.media.inspect import read_first_frame

_HALF_MS = Fraction(1, 2000)


def join_clips(
    parts: Sequence[tuple[Path, float]], out: Path, *, keep_sound: bool = False, stop: Event | None = None
) -> None:
    """Write the beginnings of clips, one after the other, to `out`.

    Each clip but the last is cut before the first picture at its length or later, because the next clip begins with
    that picture. The last one is cut so that all lengths together are right. If the streams are of one kind, and no
    picture before a cut needs one behind it, the pictures are copied, else they are encoded again in the format of the
    first clip.

    Args:
        parts: each clip, with the length in seconds that it has in `out`. The first pictures of all clips are shown.
        out: the file to write.
        keep_sound: keep the clips' own sound, which is then encoded again. If false, it is dropped.
        stop: an event that is set when the file is no longer needed.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: `out` cannot be written, or `stop` was set.
    """
    streams = [_Stream.read(path) for path, _ in parts]
    lengths_s = [stream.find_cut(length_s) for stream, (_, length_s) in zip(streams[:-1], parts[:-1], strict=True)]
    total_s = sum((Fraction(str(length_s)) for _, length_s in parts), Fraction(0))
    pictures_left = round((total_s - sum(lengths_s, Fraction(0))) * streams[0].rate)
    lengths_s.append(min(pictures_left / streams[0].rate, streams[-1].end_s))
    can_copy = not keep_sound and all(
        stream.kind == streams[0].kind and stream.can_cut(length_s)
        for stream, length_s in zip(streams, lengths_s, strict=True)
    )
    if can_copy:
        _copy(streams, lengths_s, out, stop)
        return
    films = [FilmPart(float(length_s), path) for length_s, (path, _) in zip(lengths_s, parts, strict=True)]
    concatenate(films, out, size=streams[0].size, fps=float(streams[0].rate), keep_sound=keep_sound, stop=stop)


@dataclass(frozen=True, slots=True)
class _Stream:
    """The pictures of a clip, by their times in seconds from the first one."""

    path: Path
    kind: tuple[object, ...]
    """Streams whose kinds are equal can follow each other in one track."""
    size: Size
    rate: Fraction
    times_s: tuple[Fraction, ...]
    """In decoding order."""
    end_s: Fraction

    @classmethod
    def read(cls, path: Path) -> "_Stream":
        first, view = read_first_frame(path)
        with translate_decode_errors(path), open_clip(path) as container:
            stream = find_video_stream(path, container)
            base = stream.time_base or Fraction(1, 1000)
            packets = [packet for packet in container.demux(stream) if packet.pts is not None]
            if not packets:
                raise make_bad_output_error(path, "it holds no pictures")
            start = min(packet.pts or 0 for packet in packets)
            end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
            context, stored = stream.codec_context, (first.width, first.height)
            return cls(
                path=path,
                kind=(context.name, context.extradata, stored, view.turn, view.crop, view.size, base),
                size=view.size,
                rate=stream.average_rate or Fraction(24),
                times_s=tuple(((packet.pts or 0) - start) * base for packet in packets),
                end_s=(end - start) * base,
            )

    def find_cut(self, length_s: float) -> Fraction:
        """Return the time of the first picture at this length or later, or of the last one if the clip is shorter."""
        wanted_s = Fraction(str(length_s)) - _HALF_MS
        return min((time for time in self.times_s if time >= wanted_s), default=max(self.times_s))

    def can_cut(self, at_s: Fraction) -> bool:
        """Return whether the pictures before this time can be decoded without those behind it."""
        is_kept = [time < at_s - _HALF_MS for time in self.times_s]
        return all(is_kept[: sum(is_kept)])


def _copy(streams: Sequence[_Stream], lengths_s: Sequence[Fraction], out: Path, stop: Event | None) -> None:
    begins_s = Fraction(0)
    with write_atomically(out) as unfinished, open_muxer(unfinished) as target:
        track = None
        for clip, length_s in zip(streams, lengths_s, strict=True):
            with translate_decode_errors(clip.path), open_clip(clip.path) as container:
                stream = find_video_stream(clip.path, container)
                track = track or target.add_stream_from_template(stream)
                packets = [packet for packet in container.demux(stream) if packet.pts is not None]
                start = min(packet.pts or 0 for packet in packets)
                for packet in packets:
                    raise_if_stopped(out, stop)
                    base = packet.time_base or Fraction(1, 1000)
                    if ((packet.pts or 0) - start) * base >= length_s - _HALF_MS:
                        continue
                    shift = round(begins_s / base) - start
                    packet.pts = (packet.pts or 0) + shift
                    packet.dts = (packet.dts or 0) + shift
                    packet.stream = track
                    target.mux(packet)
            begins_s += length_s
