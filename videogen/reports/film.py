"""The film as an editor gets it: the chosen clips in order, each cut to the frame, with their other takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import floor

from videogen.media import count_frames, find_exact_frame_rate
from videogen.reports.rough_cut import find_common_frame_rate
from videogen.results.clip import Clip
from videogen.results.run_result import RunResult
from videogen.results.takes import find_unmade_scenes, get_chosen_clips, get_scene_id, group_takes, make_label
from videogen.text import format_money

Facts = dict[str, str | int | float | list[str]]
"""Facts about a take or a film by their names in the manifest."""

_WHOLE_RATES = tuple(map(Fraction, (24, 25, 30, 48, 50, 60)))
EDITING_RATES = (*_WHOLE_RATES, *(Fraction(count * 1000, 1001) for count in (24, 30, 48, 60)))
"""The frame rates that timelines of editing programs, and time codes, can have."""
DROP_FRAME_RATES = (Fraction(30_000, 1001), Fraction(60_000, 1001))
"""The frame rates whose time codes leave numbers out, so that they agree with the clock."""
_DEFAULT_SIZE = (1920, 1080)
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Take:
    """A delivered clip of a scene."""

    label: str
    path: str
    """Relative to the job's folder."""
    rate: Fraction
    """Frames per second of the file."""
    frames: int
    """Length of the file, at its own rate."""
    size: tuple[int, int]
    """Width and height in pixels."""
    has_audio: bool
    facts: Facts

    @property
    def model(self) -> str:
        return str(self.facts["model"])

    @property
    def prompt(self) -> str:
        return str(self.facts.get("prompt", ""))

    @property
    def summary(self) -> str:
        """The take in a few words: its label, its model, its cost unless it was reused, and your rating."""
        words = [f"take {self.label}"]
        if self.model not in self.label:
            words.append(self.model)
        if cost := Decimal(str(self.facts["cost"])):
            words.append(format_money(cost))
        if rating := self.facts.get("rating"):
            words.append("★" * int(str(rating)))
        return ", ".join(words)

    def count_frames_at(self, rate: Fraction) -> int:
        """Return the length of the file in frames of another rate. A last frame that is half filled counts."""
        return self.frames if rate == self.rate else floor(self.frames * rate / self.rate + Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Shot:
    """The part of the film that one scene fills. Its times are frames of the film."""

    scene_id: str
    start: int
    """Its first frame in the film."""
    frames: int
    """Its length, as planned."""
    shown: int
    """The number of frames that the chosen take fills, from the beginning of both. The rest is a gap: all of the shot
    if nothing was delivered, and the end of it if the clip is shorter than planned."""
    takes: tuple[Take, ...]
    """The delivered takes. The chosen one is the first."""
    gap_reason: str
    """The reason for the gap in a sentence; empty if there is none."""
    facts: Facts
    """About the take that was chosen, or failed."""

    @property
    def gap(self) -> int:
        """Length of the gap at its end."""
        return self.frames - self.shown

    @property
    def prompt(self) -> str:
        return str(self.facts.get("prompt", ""))


@dataclass(frozen=True, slots=True)
class Film:
    """The shots of a film, in order."""

    name: str
    rate: Fraction
    """Frames per second."""
    size: tuple[int, int]
    """Width and height in pixels."""
    shots: tuple[Shot, ...]
    facts: Facts

    @property
    def frames(self) -> int:
        """Length of the film."""
        return sum(shot.frames for shot in self.shots)

    @property
    def drops_frames(self) -> bool:
        """Whether its time codes leave numbers out."""
        return self.rate in DROP_FRAME_RATES


def cut_film(batch: RunResult) -> Film:
    """Return the film of the chosen clips, cut as the rough cut is, in the size of the first and the most common frame
    rate.

    If no editing program has timelines of that rate, such as 16 fps, the film has the next higher one that they have.
    """
    scenes = _list_scenes(batch)
    delivered = [scene.chosen for scene in scenes if scene.chosen and _is_delivered(scene.chosen)]
    rate = _choose_editing_rate(find_exact_frame_rate(find_common_frame_rate(delivered))) if delivered else Fraction(24)
    counts = count_frames((scene.length_s for scene in scenes), rate)
    shots: list[Shot] = []
    start = 0
    for scene, frames in zip(scenes, counts, strict=True):
        if frames > 0:
            shots.append(_make_shot(scene, rate, start, frames))
            start += frames
    facts = {name: getattr(batch, name) for name in ("job_id", "run_id", "model", "aspect_ratio", "provider")}
    return Film(
        name=batch.job_id,
        rate=rate,
        size=_get_size(delivered[0]) if delivered else _DEFAULT_SIZE,
        shots=tuple(shots),
        facts=_clean_facts({**facts, "total_cost": str(batch.total_cost)}),
    )


@dataclass(frozen=True, slots=True)
class _Scene:
    """The clips of a scene, and its place and length in the film."""

    scene_id: str
    clip_index: int
    length_s: float
    takes: tuple[Clip, ...] = ()
    chosen: Clip | None = None
    """None if no run has made a clip of it."""


def _list_scenes(batch: RunResult) -> list[_Scene]:
    scenes = [
        _Scene(get_scene_id(takes), min(clip.clip_index for clip in takes), chosen.target_duration, takes, chosen)
        for takes, chosen in zip(group_takes(batch), get_chosen_clips(batch), strict=True)
    ]
    unmade = (_Scene(each.scene_id, each.clip_index, each.target_duration) for each in find_unmade_scenes(batch))
    return sorted((*scenes, *unmade), key=lambda scene: scene.clip_index)


def _is_delivered(clip: Clip) -> bool:
    return clip.status == "success" and clip.video_path is not None


def _choose_editing_rate(rate: Fraction) -> Fraction:
    if rate in EDITING_RATES:
        return rate
    return next((known for known in _WHOLE_RATES if known >= rate), _WHOLE_RATES[-1])


def _get_size(clip: Clip) -> tuple[int, int]:
    return (clip.width, clip.height) if clip.width and clip.height else _DEFAULT_SIZE


def _make_shot(scene: _Scene, rate: Fraction, start: int, frames: int) -> Shot:
    scene_id, group, chosen = scene.scene_id, scene.takes, scene.chosen
    if chosen is None:
        facts: Facts = {"scene": scene_id, "target_duration": scene.length_s}
        return Shot(scene_id, start, frames, 0, (), f"{scene_id} is missing: it was not made yet", facts)
    ordered = [chosen, *(clip for clip in group if clip is not chosen)]
    takes = tuple(_make_take(clip, group, rate) for clip in ordered if _is_delivered(clip))
    shown, reason = 0, ""
    if takes and _is_delivered(chosen):
        shown = min(frames, takes[0].count_frames_at(rate))
        if shown < frames:
            reason = f"{scene_id} ends {float((frames - shown) / rate):.3g} s too early"
    else:
        reason = _clean(f"{scene_id} is missing: {chosen.error.message if chosen.error else 'it was not made'}")
    return Shot(
        scene_id=scene_id,
        start=start,
        frames=frames,
        shown=shown,
        takes=takes,
        gap_reason=reason,
        facts=_list_facts(chosen, group),
    )


def _make_take(clip: Clip, group: Sequence[Clip], film_rate: Fraction) -> Take:
    rate = find_exact_frame_rate(clip.fps) if clip.fps else film_rate
    length_s = clip.actual_duration or clip.requested_duration
    return Take(
        label=_find_unique_label(clip, group),
        path=str(clip.video_path),
        rate=rate,
        frames=round(length_s * rate),
        size=_get_size(clip),
        has_audio=bool(clip.has_audio),
        facts=_list_facts(clip, group),
    )


def _find_unique_label(clip: Clip, group: Sequence[Clip]) -> str:
    """Return the label of a take, or its id if another one has the same label, as in old manifests."""
    label = make_label(clip, group)
    is_unique = [make_label(other, group) for other in group].count(label) == 1
    return str(label) if is_unique else clip.scene_id


def _list_facts(clip: Clip, group: Sequence[Clip]) -> Facts:
    names = ("prompt", "seed", "target_duration", "rating", "note", "sha256", "prediction_ids", "warnings", "status")
    facts = {name: getattr(clip, name) for name in names}
    named = {"scene": get_scene_id(group), "clip": clip.scene_id, "take": _find_unique_label(clip, group)}
    return _clean_facts({**named, "model": clip.model, "cost": str(clip.cost_when_made), **facts})


def _clean_facts(facts: dict[str, object]) -> Facts:
    """Return the facts that are known, as values that each format can hold."""
    cleaned: Facts = {}
    for name, value in facts.items():
        if isinstance(value, tuple):
            if value:
                cleaned[name] = [_clean(str(each)) for each in value]
        elif isinstance(value, int | float):
            cleaned[name] = value
        elif value is not None and value != "":
            cleaned[name] = _clean(str(value))
    return cleaned


def _clean(text: str) -> str:
    """Return the text without the characters that XML cannot hold, such as control characters in an error message."""
    return _NOT_IN_XML.sub("", text)
