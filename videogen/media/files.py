"""Open clips for reading and writing, and translate the errors of the decoder and the file system."""

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from videogen.errors import BadOutputError, StorageError
from videogen.storage.disk import sync_file, sync_folder

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

MAX_PIXELS = 8192 * 8192
"""Limit of one picture. No model makes more than 4K."""
MAX_EDGE_PX = 16_384
MAX_FPS = 1000
MAX_TOTAL_PIXELS = 40_000_000_000
"""Limit of all pictures of a clip together: ten minutes of 1080p at 30 frames a second, which one core decodes in two
minutes."""


def make_bad_output_error(path: Path, what: str) -> BadOutputError:
    """Return an error saying that `path` is not a whole video.

    `what` must not quote bytes of the file: they may be a secret that was fetched from somewhere else.
    """
    return BadOutputError(f"{path}: {what}")


def raise_if_stopped(path: Path, stop: Event | None) -> None:
    """Raise `StorageError` if another thread has set `stop`."""
    if stop and stop.is_set():
        raise StorageError(f"{path}: given up")


def open_clip(path: Path) -> "InputContainer":
    """Open a local mp4. No other container and no other protocol is used, whatever the bytes or the name suggest."""
    import av

    return av.open(f"file:{path.absolute()}", format="mp4", options={"protocol_whitelist": "file"})


def find_video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    """Return the stream with the moving picture, not the cover image.

    Raises:
        BadOutputError: there is none, it cannot be decoded, or it takes more to decode than any clip.
    """
    from av.stream import Disposition

    streams = container.streams.video
    if not streams:
        raise make_bad_output_error(path, "it holds no video stream")
    stream = next((each for each in streams if not each.disposition & Disposition.attached_pic), streams[0])
    if stream.codec_context is None:
        raise make_bad_output_error(path, "its picture is in a codec that cannot be decoded")
    width, height = stream.codec_context.width, stream.codec_context.height
    if min(width, height) < 2 or max(width, height) > MAX_EDGE_PX or width * height > MAX_PIXELS:
        raise make_bad_output_error(path, f"a picture of {width}x{height}")
    if stream.average_rate and stream.average_rate > MAX_FPS:
        raise make_bad_output_error(path, f"a frame rate of {float(stream.average_rate):g} a second")
    if stream.frames * width * height > MAX_TOTAL_PIXELS:
        raise make_bad_output_error(path, f"{stream.frames:,} pictures of {width}x{height}: more than any clip has")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def find_audio_stream(container: "InputContainer") -> "AudioStream | None":
    """Return the sound track to keep: the first that can be decoded, else the first; None when there is none."""
    streams = container.streams.audio
    return next((each for each in streams if each.codec_context is not None), streams[0] if streams else None)


@contextmanager
def translate_read_errors(path: Path) -> Iterator[None]:
    """Translate errors of the file system while `path` is read."""
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


@contextmanager
def translate_decode_errors(path: Path) -> Iterator[None]:
    """Translate errors of the decoder and the file system while `path` is read."""
    import av

    try:
        yield
    except av.FFmpegError as exc:
        if isinstance(exc, OSError) and exc.errno != errno.EIO:
            raise StorageError(f"{path}: cannot be read: {exc.strerror}") from exc
        raise make_bad_output_error(path, f"damaged: {exc.strerror}") from exc


@contextmanager
def write_atomically(out: Path) -> Iterator[Path]:
    """Provide a path beside `out` to write to. Move it to `out` when the block succeeds, remove it otherwise."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        _fsync_and_rename(part, out)
    except OSError as exc:
        raise StorageError(f"{out}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _fsync_and_rename(part: Path, out: Path) -> None:
    """Flush the file, rename it, then flush the folder: a power cut leaves the whole file or none."""
    sync_file(part)
    part.replace(out)
    sync_folder(out.parent)


@contextmanager
def open_muxer(part: Path) -> "Iterator[OutputContainer]":
    """Open an mp4 for writing at `part`."""
    import av

    # faststart: a browser may play the clip before it has loaded to its end. It rewrites the file, so it needs a path.
    with av.open(f"file:{part.absolute()}", "w", format="mp4", options={"movflags": "+faststart"}) as target:
        yield target
