"""Concatenate clips, slates and music to one film."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from videogen.errors import StorageError
from videogen.media.encode import Size, find_crop, floor_to_even, open_encoder, open_graph, pull_frames
from videogen.media.files import (
    find_audio_stream,
    find_video_stream,
    open_clip,
    open_muxer,
    raise_if_stopped,
    translate_decode_errors,
    translate_read_errors,
    write_atomically,
)
from videogen.media.frame_rates import count_frames, find_exact_frame_rate
from videogen.media.inspect import read_first_frame

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from PIL import Image

_FADE_S = 2.0
_SAMPLE_RATE_HZ = 48_000

Slate = Callable[[Size], "Image.Image"]
"""A function that draws a still picture of the given size."""


@dataclass(frozen=True, slots=True)
class FilmPart:
    """A part of a film: the beginning of a clip, or a slate. A shorter clip holds its last picture for the rest."""

    seconds: float
    shows: Path | Slate


def concatenate(
    parts: Sequence[FilmPart],
    out: Path,
    *,
    size: tuple[int, int],
    fps: float,
    music: Path | None = None,
    keep_sound: bool = False,
    stop: Event | None = None,
) -> None:
    """Write `parts`, one after the other, to `out`.

    Each part gets its length to the nearest frame, and rounding errors do not add up. Each picture is cropped around
    its centre and scaled to `size` (width, height in pixels, made even), at `fps`. The clips' own sound is dropped
    unless `keep_sound` is true; `music` begins with the film and is faded out at its end. Another thread may set `stop`
    to cancel the work: then no file is left under the name of `out`.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: `out` cannot be written, `music` has no sound, or `stop` was set.
    """
    rate = find_exact_frame_rate(fps)
    counts = count_frames((part.seconds for part in parts), rate)
    frames = 0
    length_s = sum(part.seconds for part in parts)
    with write_atomically(out) as unfinished, open_muxer(unfinished) as target:
        encoder = open_encoder(target, floor_to_even(size), rate)
        if music:
            song = _add_song(music, target, length_s)
        else:
            song = _add_own_sound(parts, target) if keep_sound else iter(())
        for part, count in zip(parts, counts, strict=True):
            with closing(_hold_last_frame(part, (encoder.width, encoder.height), rate)) as pictures:
                for frame in islice(pictures, count):
                    raise_if_stopped(out, stop)
                    frame.pts = frames
                    frame.time_base = 1 / rate
                    frames += 1
                    target.mux(encoder.encode(frame))
                    _mux_until(frames / rate, song, target)
        target.mux(encoder.encode(None))
        _mux_until(None, song, target)


def _hold_last_frame(part: FilmPart, size: Size, rate: Fraction) -> "Generator[VideoFrame]":
    """Yield the pictures of a part, then repeat the last one without end."""
    frame = None
    if isinstance(part.shows, Path):
        frames = _read_conformed_frames(part.shows, size, rate)
    else:
        frames = _draw_slate(part.shows, size)
    for frame in frames:
        yield frame
    while frame is not None:
        yield frame


def _draw_slate(slate: Slate, size: Size) -> "Iterator[VideoFrame]":
    from av import VideoFrame

    drawn = VideoFrame.from_image(slate(size))  # type: ignore[no-untyped-call]
    yield drawn.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def _read_conformed_frames(path: Path, size: Size, rate: Fraction) -> "Iterator[VideoFrame]":
    """Yield the pictures of a clip in the size and frame rate of the film."""
    first, view = read_first_frame(path)
    with translate_decode_errors(path), open_clip(path) as container:
        stream = find_video_stream(path, container)
        stream.thread_type = "AUTO"
        graph = open_graph(stream, first, view, crop=find_crop(view.size, size, 0, spare_px=1), size=size, fps=rate)
        for frame in container.decode(stream):
            graph.push(frame)
            yield from pull_frames(graph)
        graph.push(None)
        yield from pull_frames(graph)


def check_music(path: Path) -> None:
    """Raise `StorageError` unless the file has sound that can be decoded."""
    with _open_music(path) as container:
        next(_read_sound(path, container))


def _open_music(path: Path) -> "InputContainer":
    import av

    with translate_read_errors(path):
        path.open("rb").close()
    try:
        return av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"})
    except av.FFmpegError as exc:
        raise StorageError(f"{path}: not a sound file: {exc.strerror}") from exc


def _read_sound(path: Path, container: "InputContainer") -> "Iterator[AudioFrame]":
    import av

    stream = next((each for each in container.streams.audio if each.codec_context is not None), None)
    if stream is None:
        raise StorageError(f"{path}: it has no sound that can be decoded")
    try:
        yield from container.decode(stream)
    except av.FFmpegError as exc:
        raise StorageError(f"{path}: its sound is damaged: {exc.strerror}") from exc


def _add_song(path: Path, target: "OutputContainer", length_s: float) -> "Iterator[Packet[Any]]":
    """Add a sound track; return an iterator over its packets, of the first `length_s` seconds of the file."""
    return _encode_song(path, _add_sound_track(target), length_s)


def _add_sound_track(target: "OutputContainer") -> "AudioStream":
    return target.add_stream("aac", rate=_SAMPLE_RATE_HZ, layout="stereo", bit_rate=192_000)


def _encode_song(path: Path, sound: "AudioStream", length_s: float) -> "Iterator[Packet[Any]]":
    with _open_music(path) as container:
        frames = _read_sound(path, container)
        first = next(frames)
        graph = _open_sound_graph(first, length_s)
        graph.push(first)
        for frame in frames:
            for ready in _pull_sound(graph):
                yield from sound.encode(ready)
            if frame.time is not None and first.time is not None and frame.time - first.time > length_s:
                break
            graph.push(frame)
        graph.push(None)
        for ready in _pull_sound(graph):
            yield from sound.encode(ready)
        yield from sound.encode(None)


def _open_sound_graph(first: "AudioFrame", length_s: float, *, fades: bool = True) -> "Graph":
    """Return a graph that gives the first `length_s` seconds, faded out or filled up with silence at the end."""
    from av.filter import Graph

    graph = Graph()
    fade_s = min(_FADE_S, length_s)
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=first.sample_rate,
            format=first.format.name,
            layout=first.layout.name,
            time_base=first.time_base,
        ),
        graph.add("asetpts", "PTS-STARTPTS"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={_SAMPLE_RATE_HZ}:channel_layouts=stereo"),
        *(() if fades else (graph.add("apad", f"whole_dur={length_s}"),)),
        graph.add("atrim", f"end={length_s}"),
        *((graph.add("afade", f"type=out:start_time={length_s - fade_s}:duration={fade_s}"),) if fades else ()),
        graph.add("asetnsamples", "1024:p=0"),
        graph.add("abuffersink"),
    ).configure()
    return graph


def _pull_sound(graph: "Graph") -> "Iterator[AudioFrame]":
    import av

    while True:
        try:
            yield cast("AudioFrame", graph.pull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _add_own_sound(parts: Sequence[FilmPart], target: "OutputContainer") -> "Iterator[Packet[Any]]":
    """Add a sound track; return an iterator over its packets, with the sound of each part or silence."""
    return _encode_own_sound(parts, _add_sound_track(target))


def _encode_own_sound(parts: Sequence[FilmPart], sound: "AudioStream") -> "Iterator[Packet[Any]]":
    from av import AudioFifo

    fifo, samples = AudioFifo(), 0
    frames = (frame for part in parts for frame in _read_own_sound(part))
    for frame in chain(frames, [None]):
        if frame is not None:
            frame.pts = None
            fifo.write(frame)
        while ready := fifo.read(1024, partial=frame is None):
            ready.pts, ready.time_base = samples, Fraction(1, _SAMPLE_RATE_HZ)
            samples += ready.samples
            yield from sound.encode(ready)
    yield from sound.encode(None)


def _read_own_sound(part: FilmPart) -> "Iterator[AudioFrame]":
    """Yield the sound of a part, and silence to its end."""
    import av

    if not isinstance(part.shows, Path):
        yield from _make_silence(part.seconds)
        return
    with translate_decode_errors(part.shows), open_clip(part.shows) as container:
        stream = find_audio_stream(container)
        frames = iter(()) if stream is None or stream.codec_context is None else container.decode(stream)
        first = next(frames, None)
        if first is None:
            yield from _make_silence(part.seconds)
            return
        graph = _open_sound_graph(first, part.seconds, fades=False)
        for frame in chain([first], frames, [None]):
            with suppress(av.error.EOFError):  # it has all that it needs
                graph.push(frame)
            yield from _pull_sound(graph)
            if frame and frame.time is not None and frame.time - (first.time or 0.0) > part.seconds:
                break


def _make_silence(seconds: float) -> "Iterator[AudioFrame]":
    from av import AudioFrame

    left = round(seconds * _SAMPLE_RATE_HZ)
    while left > 0:
        frame = AudioFrame("fltp", "stereo", min(left, 1024))
        frame.sample_rate = _SAMPLE_RATE_HZ
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        left -= frame.samples
        yield frame


def _mux_until(seconds: Fraction | None, packets: "Iterator[Packet[Any]]", target: "OutputContainer") -> None:
    """Write the packets before this time, or all remaining ones when it is None."""
    for packet in packets:
        target.mux(packet)
        if seconds is not None and packet.pts is not None and packet.pts * packet.time_base >= seconds:
            return
