"""The film as FCPXML, which Final Cut Pro and DaVinci Resolve import.

It is version 1.9 of the format, which Final Cut Pro reads since 10.4.9. The takes of a scene become an audition, whose
first clip is the active one.

Source: https://developer.apple.com/documentation/professional-video-applications/fcpxml-reference
"""

from collections.abc import Iterator
from fractions import Fraction
from xml.etree import ElementTree as ET

from videogen.reports.film import DROP_FRAME_RATES, Facts, Film, Shot, Take
from videogen.reports.media_root import MediaRoot, make_media_url

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'
_CONFORMED_RATES = {
    Fraction(24_000, 1001): "23.98",
    Fraction(24): "24",
    Fraction(25): "25",
    Fraction(30_000, 1001): "29.97",
    Fraction(30): "30",
    Fraction(48_000, 1001): "47.95",
    Fraction(48): "48",
    Fraction(50): "50",
    Fraction(60_000, 1001): "59.94",
    Fraction(60): "60",
}
"""The names of frame rates in the element `conform-rate`. It has no name for others."""
_KEYS = {"scene": "com.apple.proapps.studio.scene", "take": "com.apple.proapps.studio.shot"}
"""The keys of the fields that Final Cut Pro shows as Scene and Take."""
_KEY_PREFIX = "videogen."
_UNTOLD = frozenset({"prompt", "status"})
"""Facts that are told by other elements."""


class _Resources:
    """The formats and assets of a document. Each of them is there once."""

    def __init__(self, parent: ET.Element, media_root: MediaRoot) -> None:
        self._parent, self._media_root = parent, media_root
        self._ids: dict[object, str] = {}

    def add_format(self, size: tuple[int, int], rate: Fraction) -> str:
        """Return the id of a format."""
        if (size, rate) not in self._ids:
            width, height = map(str, size)
            described = {"frameDuration": format_time(1, rate), "width": width, "height": height}
            self._add("format", (size, rate), described)
        return self._ids[size, rate]

    def add_asset(self, take: Take) -> str:
        """Return the id of the file of a take."""
        if take.path not in self._ids:
            form = self.add_format(take.size, take.rate)
            described = {"name": take.path.rpartition("/")[2], "start": "0s"}
            described |= {"duration": format_time(take.frames, take.rate), "format": form}
            described |= {"hasVideo": "1", "videoSources": "1"}
            if take.has_audio:
                described |= {"hasAudio": "1", "audioSources": "1", "audioChannels": "2"}
            asset = self._add("asset", take.path, described)
            source = make_media_url(take.path, self._media_root)
            ET.SubElement(asset, "media-rep", {"kind": "original-media", "src": source})
        return self._ids[take.path]

    def _add(self, tag: str, key: object, described: dict[str, str]) -> ET.Element:
        self._ids[key] = f"r{len(self._ids) + 1}"
        return ET.SubElement(self._parent, tag, {"id": self._ids[key], **described})


def render_fcpxml(film: Film, media_root: MediaRoot = None) -> str:
    """Return the film as an FCPXML document with a library, an event and a project of the film's name."""
    document = ET.Element("fcpxml", {"version": "1.9"})
    resources = _Resources(ET.SubElement(document, "resources"), media_root)
    described = {
        "format": resources.add_format(film.size, film.rate),
        "duration": format_time(film.frames, film.rate),
        "tcStart": "0s",
        "tcFormat": _get_time_code_format(film.rate),
        "audioLayout": "stereo",
        "audioRate": "48k",
    }
    event = ET.SubElement(ET.SubElement(document, "library"), "event", {"name": film.name})
    project = ET.SubElement(event, "project", {"name": film.name})
    sequence = ET.SubElement(project, "sequence", described)
    spine = ET.SubElement(sequence, "spine")
    for shot in film.shots:
        spine.extend(_make_elements(shot, film, resources))
    _add_metadata(sequence, film.facts)
    ET.indent(document)
    return f"{_HEAD}{ET.tostring(document, encoding='unicode')}\n"


def _make_elements(shot: Shot, film: Film, resources: _Resources) -> Iterator[ET.Element]:
    """Yield the clip or the audition of a shot, and the gap that it leaves."""
    offset = {"offset": format_time(shot.start, film.rate)}
    if shot.shown and len(shot.takes) == 1:
        yield _make_clip(shot, shot.takes[0], film, resources, offset)
    elif shot.shown:
        audition = ET.Element("audition", offset)
        audition.extend(_make_clip(shot, take, film, resources, offset) for take in shot.takes)
        yield audition
    if shot.gap:
        yield _make_gap(shot, film)


def _make_clip(shot: Shot, take: Take, film: Film, resources: _Resources, offset: dict[str, str]) -> ET.Element:
    frames = min(shot.frames, max(1, take.count_frames_at(film.rate)))
    described = {"ref": resources.add_asset(take), "name": shot.scene_id, **offset, "start": "0s"}
    described |= {"duration": format_time(frames, film.rate), "format": resources.add_format(take.size, take.rate)}
    clip = ET.Element("asset-clip", {**described, "tcFormat": _get_time_code_format(take.rate)})
    _add_note(clip, take.prompt)
    if take.rate != film.rate:
        named = {"srcFrameRate": _CONFORMED_RATES[take.rate]} if take.rate in _CONFORMED_RATES else {}
        ET.SubElement(clip, "conform-rate", {"scaleEnabled": "0", **named})
    if take.size != film.size:
        ET.SubElement(clip, "adjust-conform", {"type": "fill"})
    _add_marker(clip, f"{shot.scene_id}: {take.summary}", take.prompt, film.rate)
    _add_metadata(clip, take.facts)
    return clip


def _make_gap(shot: Shot, film: Film) -> ET.Element:
    start = format_time(shot.start + shot.shown, film.rate)
    described = {"name": shot.scene_id, "offset": start, "start": "0s", "duration": format_time(shot.gap, film.rate)}
    gap = ET.Element("gap", described)
    _add_note(gap, shot.prompt)
    _add_marker(gap, shot.gap_reason, shot.prompt, film.rate)
    _add_metadata(gap, shot.facts)
    return gap


def _add_note(parent: ET.Element, text: str) -> None:
    if text:
        ET.SubElement(parent, "note").text = text


def _add_marker(parent: ET.Element, value: str, note: str, rate: Fraction) -> None:
    """Add a marker at the first frame of a clip or a gap."""
    described = {"start": "0s", "duration": format_time(1, rate), "value": value}
    ET.SubElement(parent, "marker", described | ({"note": note} if note else {}))


def _add_metadata(parent: ET.Element, facts: Facts) -> None:
    metadata = ET.SubElement(parent, "metadata")
    for name, value in facts.items():
        if name not in _UNTOLD:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            key = _KEYS.get(name, _KEY_PREFIX + name)
            shown = {"type": "string", "displayName": name.replace("_", " ").capitalize()}
            ET.SubElement(metadata, "md", {"key": key, "value": text, **shown})


def _get_time_code_format(rate: Fraction) -> str:
    return "DF" if rate in DROP_FRAME_RATES else "NDF"


def format_time(frames: int, rate: Fraction) -> str:
    """Return the time of a frame as FCPXML writes it, in exact seconds: `1001/30000s`, `5s`."""
    seconds = frames / rate
    if seconds.denominator == 1:
        return f"{seconds.numerator}s"
    return f"{frames * rate.denominator}/{rate.numerator}s"
