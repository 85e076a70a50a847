"""Join clips, slates and a song to one film."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, cast

from videogen.errors import StorageError
from videogen.media.encode import Size, crop_to, even, open_encoder, open_graph, pull
from videogen.media.files import decoding, give_up_if_asked, muxing, open_clip, reading, video_stream, writing
from videogen.media.inspect import look

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from PIL import Image

_FADE_S = 2.0
_SOUND_RATE = 48_000

Slate = Callable[[Size], "Image.Image"]
"""Draws a still picture of a size."""


@dataclass(frozen=True, slots=True)
class Part:
    """So many seconds of a film: the beginning of a clip, whose last picture stays where it is shorter, or a slate."""

    seconds: float
    shows: Path | Slate


def join(
    parts: Sequence[Part],
    out: Path,
    *,
    size: tuple[int, int],
    fps: float,
    music: Path | None = None,
    stop: Event | None = None,
) -> None:
    """Write `parts`, one after the other, to `out`: each as long as it says, to the nearest frame; rounding does not
    add up.

    Each picture is cropped around its centre and scaled to `size` (width, height in pixels, made even), at `fps`. The
    clips' own sound is left out; `music` begins with the film and is faded out at its end. Another thread may set
    `stop` to give it up: then nothing is left under the name of `out`.

    Raises:
        BadOutputError: a clip cannot be decoded.
        StorageError: `out` cannot be written, or there is no sound in `music`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    frames, due = 0, 0.0
    length_s = sum(part.seconds for part in parts)
    with writing(out) as unfinished, muxing(unfinished) as target:
        encoder = open_encoder(target, even(size), rate)
        song = _song(music, target, length_s) if music else iter(())
        for part in parts:
            due += part.seconds * rate
            with closing(_pictures(part, (encoder.width, encoder.height), rate)) as pictures:
                for frame in islice(pictures, round(due) - frames):
                    give_up_if_asked(out, stop)
                    frame.pts, frame.time_base, frames = frames, 1 / rate, frames + 1
                    target.mux(encoder.encode(frame))
                    _mux_until(frames / rate, song, target)
        target.mux(encoder.encode(None))
        _mux_until(None, song, target)


def _pictures(part: Part, size: Size, rate: Fraction) -> "Generator[VideoFrame]":
    """Give the pictures of a part without end: the last one stays."""
    frame = None
    for frame in _cut(part.shows, size, rate) if isinstance(part.shows, Path) else _drawn(part.shows, size):
        yield frame
    while frame is not None:
        yield frame


def _drawn(slate: Slate, size: Size) -> "Iterator[VideoFrame]":
    from av import VideoFrame

    drawn = VideoFrame.from_image(slate(size))  # type: ignore[no-untyped-call]
    yield drawn.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")


def _cut(path: Path, size: Size, rate: Fraction) -> "Iterator[VideoFrame]":
    """Give the pictures of a clip in another size and rate, as they are asked for."""
    first, view = look(path)
    with decoding(path), open_clip(path) as container:
        stream = video_stream(path, container)
        stream.thread_type = "AUTO"
        graph = open_graph(stream, first, view, crop=crop_to(view.size, size, 0, spare_px=1), size=size, fps=rate)
        for frame in container.decode(stream):
            graph.push(frame)
            yield from pull(graph)
        graph.push(None)
        yield from pull(graph)


def check_music(path: Path) -> None:
    """Raise `StorageError` when there is no sound in the file, or it cannot be decoded."""
    with _open_music(path) as container:
        next(_frames_of(path, container))


def _open_music(path: Path) -> "InputContainer":
    import av

    with reading(path):
        path.open("rb").close()
    try:
        return av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"})
    except av.FFmpegError as exc:
        raise StorageError(f"{path}: not a sound file: {exc.strerror}") from exc


def _frames_of(path: Path, container: "InputContainer") -> "Iterator[AudioFrame]":
    import av

    stream = next((each for each in container.streams.audio if each.codec_context is not None), None)
    if stream is None:
        raise StorageError(f"{path}: there is no sound in it that can be decoded")
    try:
        yield from container.decode(stream)
    except av.FFmpegError as exc:
        raise StorageError(f"{path}: its sound is damaged: {exc.strerror}") from exc


def _song(path: Path, target: "OutputContainer", length_s: float) -> "Iterator[Packet[Any]]":
    """Add a track of sound; give its packets, of the first `length_s` seconds of the file, as they are asked for."""
    sound = target.add_stream("aac", rate=_SOUND_RATE, layout="stereo", bit_rate=192_000)
    return _encoded_song(path, sound, length_s)


def _encoded_song(path: Path, sound: "AudioStream", length_s: float) -> "Iterator[Packet[Any]]":
    with _open_music(path) as container:
        frames = _frames_of(path, container)
        first = next(frames)
        graph = _sound_graph(first, length_s)
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


def _sound_graph(first: "AudioFrame", length_s: float) -> "Graph":
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
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={_SOUND_RATE}:channel_layouts=stereo"),
        graph.add("atrim", f"end={length_s}"),
        graph.add("afade", f"type=out:start_time={length_s - fade_s}:duration={fade_s}"),
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


def _mux_until(seconds: Fraction | None, packets: "Iterator[Packet[Any]]", target: "OutputContainer") -> None:
    """Write the packets that come before a time, or all that are left."""
    for packet in packets:
        target.mux(packet)
        if seconds is not None and packet.pts is not None and packet.pts * packet.time_base >= seconds:
            return
