"""Write the film for editing programs: `film.otio`, `film.fcpxml` and `film.edl`."""

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from typing import TYPE_CHECKING

from videogen.reports.edl import render_edl
from videogen.reports.fcpxml import render_fcpxml
from videogen.reports.film import Film, Shot, Take, cut_film
from videogen.reports.media_root import MediaRoot, make_media_url
from videogen.results.run_result import RunResult
from videogen.storage.base import Store

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange
    from opentimelineio.schema import ExternalReference, Gap, Marker, Track

_METADATA = "videogen"
"""The name below which OpenTimelineIO files hold the metadata of a program."""


def write_timeline(name: str, batch: RunResult, store: Store, *, media_root: MediaRoot = None) -> None:
    """Write one of `TIMELINE_NAMES` to the job's folder. Raise `StorageError` if it cannot be written."""
    store.put_text(_RENDERERS[name](cut_film(batch), media_root), name)


def render_otio(film: Film, media_root: MediaRoot = None) -> str:
    """Return the film as an OpenTimelineIO file.

    Each clip has the delivered takes of its scene as media, by their labels, of which the chosen one is active. A clip
    is as long as its scene, and its media are as long as their files. A track of sound follows if clips have sound.
    """
    from opentimelineio import schema

    pictures = schema.Track(name="V1", kind=schema.TrackKind.Video)
    for shot in film.shots:
        _append_shot(pictures, shot, film.rate, media_root)
    timeline = schema.Timeline(
        name=film.name, global_start_time=_make_time(0, film.rate), metadata={_METADATA: dict(film.facts)}
    )
    timeline.tracks.append(pictures)
    if any(shot.shown and shot.takes[0].has_audio for shot in film.shots):
        timeline.tracks.append(_copy_sound(pictures, film))
    return str(timeline.to_json_string(indent=2)) + "\n"


def _append_shot(track: "Track", shot: Shot, rate: Fraction, media_root: MediaRoot) -> None:
    from opentimelineio import schema

    if shot.shown:
        chosen = shot.takes[0]
        clip = schema.Clip(
            name=shot.scene_id,
            source_range=_make_range(shot.shown, rate),
            metadata={_METADATA: dict(shot.facts)},
            markers=[_make_marker(shot.scene_id, f"{chosen.summary}\n{chosen.prompt}".strip(), "GREEN", rate)],
        )
        references = {take.label: _make_reference(take, media_root) for take in shot.takes}
        clip.set_media_references(references, chosen.label)
        track.append(clip)
    if shot.gap:
        track.append(_make_gap(shot, rate))


def _make_gap(shot: Shot, rate: Fraction) -> "Gap":
    from opentimelineio import schema

    return schema.Gap(
        name=shot.scene_id,
        source_range=_make_range(shot.gap, rate),
        metadata={_METADATA: dict(shot.facts)},
        markers=[_make_marker(shot.gap_reason, shot.prompt, "RED", rate)],
    )


def _make_reference(take: Take, media_root: MediaRoot) -> "ExternalReference":
    from opentimelineio import schema

    reference = schema.ExternalReference(
        target_url=make_media_url(take.path, media_root),
        available_range=_make_range(take.frames, take.rate),
        metadata={_METADATA: dict(take.facts)},
    )
    reference.name = take.path.rpartition("/")[2]
    return reference


def _make_marker(name: str, comment: str, color: str, rate: Fraction) -> "Marker":
    from opentimelineio import schema

    return schema.Marker(
        name=name, marked_range=_make_range(1, rate), color=getattr(schema.MarkerColor, color), comment=comment
    )


def _copy_sound(pictures: "Track", film: Film) -> "Track":
    """Return a track with the sound of the clips, and gaps in place of those that have none."""
    from opentimelineio import schema

    heard = {shot.scene_id for shot in film.shots if shot.shown and shot.takes[0].has_audio}
    track = schema.Track(name="A1", kind=schema.TrackKind.Audio)
    for item in pictures:
        if isinstance(item, schema.Clip) and item.name in heard:
            sound = deepcopy(item)
            sound.markers.clear()
            track.append(sound)
        else:
            track.append(schema.Gap(source_range=item.source_range))
    return track


def _make_time(frames: int, rate: Fraction) -> "RationalTime":
    from opentimelineio.opentime import RationalTime

    return RationalTime(frames, float(rate))


def _make_range(frames: int, rate: Fraction) -> "TimeRange":
    """Return the range from the beginning of this length."""
    from opentimelineio.opentime import TimeRange

    return TimeRange(_make_time(0, rate), _make_time(frames, rate))


_RENDERERS: dict[str, Callable[[Film, MediaRoot], str]] = {
    "film.otio": render_otio,
    "film.fcpxml": render_fcpxml,
    "film.edl": render_edl,
}
TIMELINE_NAMES = tuple(_RENDERERS)
