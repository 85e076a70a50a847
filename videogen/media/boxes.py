"""Check the boxes of an mp4 before it is decoded: the file must be whole and must not exhaust the memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from videogen.media.files import make_bad_output_error

_MAX_BOXES = 100_000
_MAX_SAMPLES = 1_000_000
"""Limit for all tracks together. A clip of ten minutes has 100,000. The demuxer keeps some 30 bytes for each one that
the header announces."""
_BRANDS = (b"ftyp", b"wide", b"free", b"skip", b"moov", b"mdat")
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"}
_VISUAL_ENTRY_BYTES = 78


@dataclass(frozen=True, slots=True)
class Aperture:
    """The part of a stored picture that players show, in pixels. The offsets are those of its centre."""

    width: Fraction
    height: Fraction
    right: Fraction
    down: Fraction


@dataclass(frozen=True, slots=True)
class Box:
    """A box at the top level of a file. Positions are in bytes from the start of the file."""

    kind: bytes
    start: int
    body: int
    """Position of the first byte after its head."""
    end: int
    is_open_ended: bool
    """Whether its head gives no length, because it reaches to the end of the file."""


def check_boxes(path: Path, file: BinaryIO) -> Aperture | None:
    """Check that the file is a sequence of whole ISO boxes with ftyp, moov and mdat.

    This takes 0.1 ms and finds every truncation. Zeros after the last box count as padding, not as damage.

    Returns:
        The clean aperture of the picture; None when all of it is shown.

    Raises:
        BadOutputError: the file is truncated, is no mp4, or announces more samples than any clip has.
    """
    file.seek(0)
    _reject_other_formats(path, file.read(512), file.seek(0, os.SEEK_END))
    seen: set[bytes] = set()
    tracks: list[_Track] = []
    for box in iterate_boxes(path, file):
        seen.add(box.kind)
        if box.kind in (b"moov", b"moof"):
            tracks += _read_tracks(path, file, box.body, box.end)
    missing = [kind.decode() for kind in (b"ftyp", b"moov", b"mdat") if kind not in seen]
    if missing:
        raise make_bad_output_error(path, f"an mp4 without {', '.join(missing)}")
    if (samples := sum(track.kept for track in tracks)) > _MAX_SAMPLES:
        raise make_bad_output_error(path, f"its header announces {samples:,} samples, more than any clip has")
    return next((track.aperture for track in tracks if track.aperture), None)


def iterate_boxes(path: Path, file: BinaryIO) -> Iterator[Box]:
    """Yield the boxes at the top level. Zeros after the last box are padding, and no box.

    Raises:
        BadOutputError: the file is not a sequence of whole boxes, or has more than any clip.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    start = 0
    for _ in range(_MAX_BOXES):
        if start == size_bytes or _is_padding(file, start):
            return
        box = _read_box(path, file, start, size_bytes)
        yield box
        start = box.end
    raise make_bad_output_error(path, f"an mp4 of more than {_MAX_BOXES:,} boxes")


def _is_padding(file: BinaryIO, start: int) -> bool:
    """Return whether the rest of the file is zeros."""
    file.seek(start)
    while block := file.read(1 << 16):
        if block.strip(b"\0"):
            return False
    return True


def _read_box(path: Path, file: BinaryIO, start: int, size_bytes: int) -> Box:
    """Return the box that starts there, which must end inside the file."""
    file.seek(start)
    head = file.read(16)
    length, kind = int.from_bytes(head[:4]), head[4:8]
    if len(kind) < 4 or not kind.isascii() or not kind.decode("ascii").isprintable():
        raise make_bad_output_error(path, f"damaged at byte {start}: no mp4 box begins there")
    shortest, is_open_ended = 8, length == 0
    if length == 1:
        length, shortest = int.from_bytes(head[8:16]), 16
    elif is_open_ended:
        length = size_bytes - start
    if length < shortest:
        raise make_bad_output_error(path, f"damaged at byte {start}: a box that is shorter than its own head")
    if start + length > size_bytes:
        name = kind.decode() if kind in (*_BRANDS, b"moof", b"uuid") else "box"
        raise make_bad_output_error(
            path, f"cut: its {name} ends at byte {start + length}, the file at byte {size_bytes}"
        )
    return Box(kind, start, start + shortest, start + length, is_open_ended)


@dataclass(slots=True)
class _Track:
    handler: bytes = b""
    samples: int = 0
    edits: int = 1
    is_counted_by_chunks: bool = False
    """Whether the demuxer keeps only the chunks, as it does for plain PCM, which has a sample for every 48,000th of a
    second."""
    aperture: Aperture | None = None

    @property
    def kept(self) -> int:
        """Number of samples that the demuxer would keep in memory. Each edit repeats them."""
        return 0 if self.handler == b"soun" and self.is_counted_by_chunks else self.samples * self.edits


def _read_tracks(path: Path, file: BinaryIO, start: int, end: int) -> list[_Track]:
    """Read the tracks that a `moov` or `moof` box describes."""
    tracks = [_Track()]
    for number, (kind, body, body_end) in enumerate(_walk_nested(file, start, end)):
        if number > _MAX_BOXES:
            raise make_bad_output_error(path, f"a header of more than {_MAX_BOXES:,} boxes")
        file.seek(body)
        data = b"" if kind in _CONTAINERS else file.read(min(body_end - body, 16))
        if kind in (b"trak", b"traf"):
            tracks.append(_Track())
        elif kind == b"hdlr":
            tracks[-1].handler = tracks[-1].handler or data[8:12]
        elif kind == b"stsz":
            tracks[-1].samples = int.from_bytes(data[8:12])
        elif kind == b"trun":
            tracks[-1].samples += int.from_bytes(data[4:8])
        elif kind == b"stts":
            tracks[-1].is_counted_by_chunks = data[4:8] == b"\0\0\0\1" and data[12:16] == b"\0\0\0\1"
        elif kind == b"elst":
            tracks[-1].edits = max(1, int.from_bytes(data[4:8]))
        elif kind == b"stsd" and tracks[-1].handler == b"vide":
            tracks[-1].aperture = _read_aperture(file, body, body_end)
    return tracks


def _walk_nested(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the body of each nested box, outer boxes first. Stop at the first malformed box."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        length, kind, body = int.from_bytes(head[:4]), head[4:8], start + 8
        if length == 1:
            length, body = int.from_bytes(head[8:16]), start + 16
        elif length == 0:
            length = end - start
        if length < body - start or start + length > end:
            return
        yield kind, body, start + length
        if kind in _CONTAINERS:
            yield from _walk_nested(file, body, start + length)
        start += length


def _read_aperture(file: BinaryIO, start: int, end: int) -> Aperture | None:
    """Read the `clap` box in the first picture's description; None when it has none that is valid."""
    entry = start + 8
    for kind, body, _ in _walk_nested(file, entry + 8 + _VISUAL_ENTRY_BYTES, end):
        if kind == b"clap":
            file.seek(body)
            data = file.read(32)
            numbers = [int.from_bytes(data[at : at + 4], signed=at >= 16) for at in range(0, 32, 4)]
            if len(data) < 32 or not all(numbers[1::2]):
                return None
            return Aperture(*(Fraction(over, under) for over, under in zip(numbers[::2], numbers[1::2], strict=True)))
    return None


def _reject_other_formats(path: Path, head: bytes, size_bytes: int) -> None:
    """Raise `BadOutputError` when the first bytes belong to another format. The message does not quote them."""
    if not size_bytes:
        raise make_bad_output_error(path, "empty")
    if head[4:8] in _BRANDS:
        return
    if head.strip(b"\0") == b"":
        raise make_bad_output_error(path, f"{size_bytes} bytes that begin with zeros")
    raise make_bad_output_error(path, f"not an mp4 but {_name_format(head)}")


def _name_format(head: bytes) -> str:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else "AVI or WAV"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "HTML or XML"
    if text[:1] in (b"{", b"["):
        return "JSON"
    if text and all(byte >= 32 or byte in b"\t\r\n" for byte in text):
        return "text"
    return "something unknown"


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
)
