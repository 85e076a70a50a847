"""Write into an mp4 how it was made, as an XMP packet, and read it back. The pictures and the sound stay as they are.

The packet is the last box of the file, so that nothing before it moves. Only the digest of the prompt is in it: prompts
may be confidential, and the file may be published.
"""

import hashlib
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from videogen.errors import BadOutputError, StorageError
from videogen.media.boxes import Box, iterate_boxes
from videogen.media.files import translate_read_errors
from videogen.text import is_whole_number

MADE_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""The IPTC's name for media that a trained model made."""
_XMP_ID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_C2PA_ID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_MAX_PACKET_BYTES = 64 * 1024
"""A larger packet is none of videogen's, and is not read."""
_MAX_PACKETS = 16
_MAX_INDEX_BYTES = 16 * 1024 * 1024
"""Limit of an `mfra` box that is moved behind the packet. That of an hour of fragments has a few kilobytes."""
_MAX_SHORT_BOX_BYTES = 0xFFFF_FFFF
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = "http://ns.adobe.com/xap/1.0/"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_OWN = "urn:videogen:record:1.0:"
_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about="" xmlns:xmp="{xmp}" xmlns:Iptc4xmpExt="{iptc}" xmlns:videogen="{own}">
{properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """The facts of how a clip was made. The same clip always has the same record, whenever it is delivered."""

    model: str
    """Name of the model in the registry."""
    endpoint: str
    """The provider's name of the model, with the version if one was asked for: `owner/name:version`."""
    prediction_ids: tuple[str, ...]
    """Ids of the predictions whose outputs the clip consists of, in their order."""
    prompt_sha256: str
    """SHA-256 (hex) of the prompt in UTF-8."""
    seed: int | None = None
    created_at: datetime | None = None
    """Time when the last of the predictions was created, by the provider's clock, to the second."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The statements in a file about its origin. Anyone can write them, unless they are signed."""

    record: ClipRecord | None = None
    source_type: str | None = None
    """The IPTC's name for its kind of source, from the last packet that has one."""
    has_c2pa_manifest: bool = False


def compute_prompt_digest(prompt: str) -> str:
    """Return the SHA-256 (hex) of a prompt in UTF-8."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def make_xmp_packet(record: ClipRecord) -> bytes:
    """Return the XMP packet of a record."""
    simple = {
        "xmp:CreatorTool": "videogen",
        "xmp:CreateDate": record.created_at and _format_time(record.created_at),
        "Iptc4xmpExt:DigitalSourceType": MADE_BY_AI,
        "Iptc4xmpExt:AISystemUsed": record.endpoint,
        "videogen:Model": record.model,
        "videogen:Endpoint": record.endpoint,
        "videogen:PromptSHA256": record.prompt_sha256,
        "videogen:Seed": record.seed,
    }
    lines = [f"   <{name}>{_escape(str(value))}</{name}>" for name, value in simple.items() if value is not None]
    ids = "".join(f"<rdf:li>{_escape(each)}</rdf:li>" for each in record.prediction_ids)
    lines.append(f"   <videogen:PredictionIDs><rdf:Seq>{ids}</rdf:Seq></videogen:PredictionIDs>")
    return _PACKET.format(rdf=_RDF, xmp=_XMP, iptc=_IPTC, own=_OWN, properties="\n".join(lines)).encode()


def _format_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _escape(text: str) -> str:
    """Return the text for XML, with U+FFFD for each character that no XML may have."""
    return html.escape(_NOT_IN_XML.sub("\ufffd", text), quote=False)


def embed_record(path: Path, record: ClipRecord) -> str | None:
    """Write the record into the mp4 at `path`, in place of one that videogen wrote before.

    A packet of another program is kept. Zeros behind the last box are cut off. An index of fragments (`mfra`) stays the
    last box, because players look for it there.

    Returns:
        None, or the reason why the file was left unchanged. One that has a C2PA manifest is: its signature covers the
        boxes behind it, and would not be valid any more.

    Raises:
        BadOutputError: the file is not a sequence of whole boxes.
        StorageError: the file cannot be read or written.
    """
    try:
        with path.open("r+b") as file:
            boxes = list(iterate_boxes(path, file))
            if reason := _find_obstacle(file, boxes):
                return reason
            _write(file, boxes, make_xmp_packet(record))
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written: {exc.strerror or exc}") from exc
    return None


def _find_obstacle(file: BinaryIO, boxes: Sequence[Box]) -> str | None:
    if any(_read_user_type(file, box) == _C2PA_ID for box in boxes):
        return "it has a C2PA manifest, whose signature would not be valid any more"
    last = boxes[-1]
    if last.is_open_ended and last.end - last.start > _MAX_SHORT_BOX_BYTES:
        return "its last box has no length, and is too large for one"
    if last.kind == b"mfra" and last.end - last.start > _MAX_INDEX_BYTES:
        return "its index of fragments is larger than any"
    return None


def _write(file: BinaryIO, boxes: Sequence[Box], packet: bytes) -> None:
    last = boxes[-1]
    if last.is_open_ended:
        _overwrite(file, last.start, (last.end - last.start).to_bytes(4))
    index = b""
    if last.kind == b"mfra":
        file.seek(last.start)
        index, boxes = file.read(last.end - last.start), boxes[:-1]
    while boxes and _is_own(file, boxes[-1]):
        boxes = boxes[:-1]
    for box in boxes:
        if _is_own(file, box):  # it cannot be taken out, because the boxes behind it would move
            _overwrite(file, box.start + 4, b"free")
    end = boxes[-1].end
    file.seek(end)
    file.truncate(end)
    file.write((8 + len(_XMP_ID) + len(packet)).to_bytes(4) + b"uuid" + _XMP_ID + packet + index)


def _overwrite(file: BinaryIO, position: int, data: bytes) -> None:
    file.seek(position)
    file.write(data)


def _is_own(file: BinaryIO, box: Box) -> bool:
    packet = _read_packet(file, box)
    return packet is not None and _parse_record(packet) is not None


def read_provenance(path: Path) -> Provenance:
    """Return the statements in an mp4 about its origin. Of a damaged file, those before the damage are read.

    Raises:
        StorageError: the file cannot be read.
    """
    found, packets = Provenance(), 0
    with translate_read_errors(path), path.open("rb") as file:
        try:
            for box in iterate_boxes(path, file):
                has_manifest = found.has_c2pa_manifest or _read_user_type(file, box) == _C2PA_ID
                root = _read_packet(file, box) if packets < _MAX_PACKETS else None
                packets += root is not None
                found = Provenance(
                    record=(_parse_record(root) if root is not None else None) or found.record,
                    source_type=(_find_value(root, _IPTC, "DigitalSourceType") if root is not None else None)
                    or found.source_type,
                    has_c2pa_manifest=has_manifest,
                )
        except BadOutputError:
            return found
    return found


def _read_user_type(file: BinaryIO, box: Box) -> bytes | None:
    """Return the 16 bytes that tell the kind of a `uuid` box; None if the box is of another kind."""
    if box.kind != b"uuid":
        return None
    file.seek(box.body)
    return file.read(16)


def _read_packet(file: BinaryIO, box: Box) -> ElementTree.Element | None:
    """Return the XMP packet in a box; None if it has none that can be read.

    Declarations of entities are refused, with which a few bytes become gigabytes.
    """
    if _read_user_type(file, box) != _XMP_ID or box.end - box.body > _MAX_PACKET_BYTES:
        return None
    data = file.read(box.end - file.tell())
    try:
        text = data.decode("utf-8").strip("\0\ufeff \t\r\n")
        return None if "<!DOCTYPE" in text else ElementTree.fromstring(text)  # noqa: S314
    except (UnicodeDecodeError, ElementTree.ParseError):
        return None


def _parse_record(packet: ElementTree.Element) -> ClipRecord | None:
    """Return the record in a packet; None if videogen did not write it."""
    model, endpoint = _find_value(packet, _OWN, "Model"), _find_value(packet, _OWN, "Endpoint")
    digest = _find_value(packet, _OWN, "PromptSHA256") or ""
    if model is None or endpoint is None or not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    seed = _find_value(packet, _OWN, "Seed") or ""
    ids = packet.find(f".//{{{_OWN}}}PredictionIDs")
    return ClipRecord(
        model=model,
        endpoint=endpoint,
        prediction_ids=() if ids is None else tuple(each.text or "" for each in ids.iter(f"{{{_RDF}}}li")),
        prompt_sha256=digest,
        seed=int(seed) if is_whole_number(seed) else None,
        created_at=_parse_time(_find_value(packet, _XMP, "CreateDate") or ""),
    )


def _find_value(packet: ElementTree.Element, namespace: str, name: str) -> str | None:
    """Return the value of a simple property. Other programs write it as an attribute when they save the packet."""
    tag = f"{{{namespace}}}{name}"
    for description in packet.iter(f"{{{_RDF}}}Description"):
        if (value := description.get(tag) or description.findtext(tag)) is not None:
            return value
    return None


def _parse_time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def measure_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 (hex) and the size in bytes of a file."""
    with translate_read_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.seek(0, os.SEEK_END)
