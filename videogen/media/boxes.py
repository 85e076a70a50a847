"""What the boxes of an mp4 say before anything is decoded: that it is whole, and not made to fill the memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from videogen.media.files import bad

_MAX_BOXES = 100_000
_MAX_SAMPLES = 1_000_000
"""Of all tracks: a clip of ten minutes has 100,000. The demuxer keeps some 30 bytes of each that is announced."""
_BRANDS = (b"ftyp", b"wide", b"free", b"skip", b"moov", b"mdat")
_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"}
_VISUAL_ENTRY_BYTES = 78


@dataclass(frozen=True, slots=True)
class Aperture:
    """The part of a stored picture that is to be shown, in pixels; the offsets are of its centre from the middle."""

    width: Fraction
    height: Fraction
    right: Fraction
    down: Fraction


def walk_boxes(path: Path, file: BinaryIO) -> Aperture | None:
    """Check that the file is a row of whole ISO boxes with ftyp, moov and mdat: 0.1 ms, and finds every cut.

    Zeros after the last box are padding, and no damage.

    Returns:
        The clean aperture of the picture, None where all of it is to be shown.

    Raises:
        BadOutputError: the file is cut, is something else, or announces more samples than any clip has.
    """
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    _sniff(path, file.read(512), size_bytes)
    seen: set[bytes] = set()
    tracks: list[_Track] = []
    start = 0
    for _ in range(_MAX_BOXES):
        if start == size_bytes or _is_padding(file, start):
            break
        kind, body, length = _box_at(path, file, start, size_bytes)
        seen.add(kind)
        if kind in (b"moov", b"moof"):
            tracks += _tracks(path, file, body, start + length)
        start += length
    else:
        raise bad(path, f"an mp4 of more than {_MAX_BOXES:,} boxes")
    missing = [kind.decode() for kind in (b"ftyp", b"moov", b"mdat") if kind not in seen]
    if missing:
        raise bad(path, f"an mp4 without {', '.join(missing)}")
    if (samples := sum(track.kept for track in tracks)) > _MAX_SAMPLES:
        raise bad(path, f"its header announces {samples:,} samples, more than any clip has")
    return next((track.aperture for track in tracks if track.aperture), None)


def _is_padding(file: BinaryIO, start: int) -> bool:
    """Return whether nothing but zeros follows."""
    file.seek(start)
    while block := file.read(1 << 16):
        if block.strip(b"\0"):
            return False
    return True


def _box_at(path: Path, file: BinaryIO, start: int, size_bytes: int) -> tuple[bytes, int, int]:
    """Return the kind, the start of the body and the whole length in bytes of a box, which must end inside the file."""
    file.seek(start)
    head = file.read(16)
    length, kind = int.from_bytes(head[:4]), head[4:8]
    if len(kind) < 4 or not kind.isascii() or not kind.decode("ascii").isprintable():
        raise bad(path, f"damaged at byte {start}: no mp4 box begins there")
    shortest = 8
    if length == 1:
        length, shortest = int.from_bytes(head[8:16]), 16
    elif length == 0:
        length = size_bytes - start
    if length < shortest:
        raise bad(path, f"damaged at byte {start}: a box that is shorter than its own head")
    if start + length > size_bytes:
        name = kind.decode() if kind in (*_BRANDS, b"moof", b"uuid") else "box"
        raise bad(path, f"cut: its {name} ends at byte {start + length}, the file at byte {size_bytes}")
    return kind, start + shortest, length


@dataclass(slots=True)
class _Track:
    handler: bytes = b""
    samples: int = 0
    edits: int = 1
    is_counted_by_chunks: bool = False
    """Plain PCM has a sample for every 48,000th of a second; the demuxer keeps its chunks only."""
    aperture: Aperture | None = None

    @property
    def kept(self) -> int:
        """How many samples the demuxer would keep in memory; each edit repeats them."""
        return 0 if self.handler == b"soun" and self.is_counted_by_chunks else self.samples * self.edits


def _tracks(path: Path, file: BinaryIO, start: int, end: int) -> list[_Track]:
    """Read what a `moov` or `moof` box says of its tracks."""
    tracks = [_Track()]
    for number, (kind, body, body_end) in enumerate(_nested(file, start, end)):
        if number > _MAX_BOXES:
            raise bad(path, f"a header of more than {_MAX_BOXES:,} boxes")
        file.seek(body)
        data = b"" if kind in _NESTED else file.read(min(body_end - body, 16))
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
            tracks[-1].aperture = _aperture(file, body, body_end)
    return tracks


def _nested(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Give kind, start and end of the body of each box inside, outer ones first; whatever is malformed ends it."""
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
        if kind in _NESTED:
            yield from _nested(file, body, start + length)
        start += length


def _aperture(file: BinaryIO, start: int, end: int) -> Aperture | None:
    """Read the `clap` box in the first picture's description."""
    entry = start + 8
    for kind, body, _ in _nested(file, entry + 8 + _VISUAL_ENTRY_BYTES, end):
        if kind == b"clap":
            file.seek(body)
            data = file.read(32)
            numbers = [int.from_bytes(data[at : at + 4], signed=at >= 16) for at in range(0, 32, 4)]
            if len(data) < 32 or not all(numbers[1::2]):
                return None
            return Aperture(*(Fraction(over, under) for over, under in zip(numbers[::2], numbers[1::2], strict=True)))
    return None


def _sniff(path: Path, head: bytes, size_bytes: int) -> None:
    """Name what came instead of a video, where its first bytes tell; what they say is not repeated."""
    if not size_bytes:
        raise bad(path, "empty")
    if head[4:8] in _BRANDS:
        return
    if head.strip(b"\0") == b"":
        raise bad(path, f"{size_bytes} bytes that begin with zeros")
    raise bad(path, f"not an mp4 but {_name_of(head)}")


def _name_of(head: bytes) -> str:
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
