"""Open clips for reading and writing, and translate what the decoder and the file system raise."""

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.disk import sync_file, sync_folder
from videogen.errors import BadOutputError, StorageError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 8192 * 8192
"""In one picture. No model makes more than 4K."""
MAX_EDGE_PX = 16_384
MAX_FPS = 1000
MAX_PIXELS_IN_ALL = 40_000_000_000
"""In all pictures of a clip together: ten minutes of 1080p at 30 frames a second, which a core decodes in two."""


def bad(path: Path, what: str) -> BadOutputError:
    """Return the error that `path` is not a whole video. `what` never quotes its bytes: they may be a secret that was
    fetched from somewhere else."""
    return BadOutputError(f"{path}: {what}")


def give_up_if_asked(path: Path, stop: Event | None) -> None:
    """Raise `StorageError` when another thread has set `stop`."""
    if stop and stop.is_set():
        raise StorageError(f"{path}: given up")


def open_clip(path: Path) -> "InputContainer":
    """Open a local mp4: no other container, no protocol but file, whatever the bytes or the name suggest."""
    import av

    return av.open(f"file:{path.absolute()}", format="mp4", options={"protocol_whitelist": "file"})


def video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    """Return the stream with the moving picture, which is not the cover.

    Raises:
        BadOutputError: there is none, or it takes more to decode than any clip does.
    """
    from av.stream import Disposition

    streams = container.streams.video
    if not streams:
        raise bad(path, "it holds no video stream")
    stream = next((each for each in streams if not each.disposition & Disposition.attached_pic), streams[0])
    if stream.codec_context is None:
        raise bad(path, "its picture is in a codec that cannot be decoded")
    width, height = stream.codec_context.width, stream.codec_context.height
    if min(width, height) < 2 or max(width, height) > MAX_EDGE_PX or width * height > MAX_PIXELS:
        raise bad(path, f"a picture of {width}x{height}")
    if stream.average_rate and stream.average_rate > MAX_FPS:
        raise bad(path, f"a frame rate of {float(stream.average_rate):g} a second")
    if stream.frames * width * height > MAX_PIXELS_IN_ALL:
        raise bad(path, f"{stream.frames:,} pictures of {width}x{height}: more than any clip has")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def heard_stream(container: "InputContainer") -> "AudioStream | None":
    """Return the sound that is kept: the first track that can be decoded, else the first."""
    streams = container.streams.audio
    return next((each for each in streams if each.codec_context is not None), streams[0] if streams else None)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate what the file system raises while `path` is read."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Translate what the decoder and the file system raise while `path` is read."""
    import av

    try:
        yield
    except av.FFmpegError as exc:
        if isinstance(exc, OSError) and exc.errno != errno.EIO:
            raise StorageError(f"{path}: cannot be read: {exc.strerror}") from exc
        raise bad(path, f"damaged: {exc.strerror}") from exc


@contextmanager
def writing(out: Path) -> Iterator[Path]:
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
    sync_file(part)
    part.replace(out)
    sync_folder(out.parent)


@contextmanager
def muxing(part: Path) -> "Iterator[OutputContainer]":
    """Give an mp4 to be written at `part`."""
    import av

    # faststart: a browser may play the clip before it has loaded to its end. It rewrites the file, so it needs a path.
    with av.open(f"file:{part.absolute()}", "w", format="mp4", options={"movflags": "+faststart"}) as target:
        yield target
