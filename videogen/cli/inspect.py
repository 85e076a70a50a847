"""Show the properties of a clip, and its statements about how it was made."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from videogen.cli.console import make_console, print_line
from videogen.cli.exit_codes import FAILED, OK
from videogen.errors import SettingsError
from videogen.media import (
    MADE_BY_AI,
    ClipRecord,
    Provenance,
    Signature,
    VideoInfo,
    inspect_video,
    read_provenance,
    read_signature,
)
from videogen.text import escape_json, format_duration

_SOUNDS = {"none": "no sound", "whole": "sound", "damaged": "damaged sound", "unknown": "sound in an unknown codec"}


def show_clip(path: Path, *, as_json: bool) -> int:
    """Print the properties of a clip, its record and its C2PA manifest. Return `FAILED` if the manifest is not valid.

    Raises:
        BadOutputError: it is not a whole video.
        StorageError: it cannot be read.
    """
    video, provenance = inspect_video(path), read_provenance(path)
    signature, problem = None, None
    try:
        signature = read_signature(path)
    except SettingsError as exc:  # the package is missing
        problem = str(exc)
    if as_json:
        found = _describe(path, video, provenance, signature)
        print(escape_json(json.dumps(found, indent=2, default=datetime.isoformat)))
    else:
        _print(path, video, provenance, signature, problem)
    return FAILED if signature and signature.state == "invalid" else OK


def _describe(path: Path, video: VideoInfo, provenance: Provenance, signature: Signature | None) -> dict[str, Any]:
    c2pa = asdict(signature) if signature else {"state": "unverified"} if provenance.has_c2pa_manifest else None
    return {
        "file": str(path),
        "video": asdict(video),
        "made_by_ai": provenance.source_type == MADE_BY_AI,
        "source_type": provenance.source_type,
        "record": asdict(provenance.record) if provenance.record else None,
        "c2pa": c2pa,
    }


def _print(
    path: Path, video: VideoInfo, provenance: Provenance, signature: Signature | None, problem: str | None
) -> None:
    record = (signature and signature.record) or provenance.record
    lines = [("video", _describe_video(video)), ("SHA-256", video.sha256)]
    if source := provenance.source_type:
        lines.append(("source", "made by AI" if source == MADE_BY_AI else source))
    lines += _list_facts(record) if record else [("record", "none of videogen")]
    if signature:
        lines.append(("C2PA", _describe_signature(signature)))
    elif problem:
        lines.append(("C2PA", f"not verified: {problem}"))
    console = make_console(stderr=False)
    print_line(console, str(path))
    for name, text in lines:
        print_line(console, f"  {name:<11}  {text}")


def _describe_video(video: VideoInfo) -> str:
    facts = [
        f"{video.width}x{video.height}",
        f"{video.fps:g} fps",
        format_duration(video.duration),
        f"{video.frames} frames",
        video.codec,
        _SOUNDS[video.sound],
        f"{video.size_bytes / 1e6:.1f} MB" if video.size_bytes >= 1e5 else f"{video.size_bytes / 1e3:.1f} kB",
        *video.warnings,
    ]
    return ", ".join(facts)


def _list_facts(record: ClipRecord) -> list[tuple[str, str]]:
    facts = [
        ("model", f"{record.model} ({record.endpoint})"),
        ("predictions", ", ".join(record.prediction_ids) or "unknown"),
        ("prompt", f"SHA-256 {record.prompt_sha256}"),
        ("seed", "none" if record.seed is None else str(record.seed)),
    ]
    return [*facts, ("created", f"{record.created_at:%Y-%m-%d %H:%M:%S %Z}")] if record.created_at else facts


def _describe_signature(signature: Signature) -> str:
    found = f"{signature.state}, signed by {signature.signed_by or 'somebody without a name'}"
    if signature.state == "valid":
        return f"{found}, who is on no list of trusted signers"
    return f"{found}: {', '.join(signature.problems)}" if signature.problems else found
