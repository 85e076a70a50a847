"""Recognise the inputs of a schema that ask for the length, the ratio, the quality and the references."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any

from videogen.registry.endpoint_schema import InputSchema
from videogen.registry.model_spec import FRAME_SIZES
from videogen.registry.tables import Inputs, to_plain_number

Schemas = Mapping[str, InputSchema]

_LENGTHS = ("duration", "seconds", "length", "duration_seconds", "num_seconds", "video_duration", "video_length")
_FRAMES = ("num_frames", "frames", "frame_count", "number_of_frames", "video_length")
_RATES = ("frames_per_second", "fps", "frame_rate")
_RATIOS = ("aspect_ratio", "ratio", "aspect", "orientation")
_SIZES = ("size", "video_size", "frame_size", "resolution")
_WORDS = {"landscape": "16:9", "portrait": "9:16", "square": "1:1", "adaptive": "adaptive", "auto": "auto"}
_RANKS = {
    **dict.fromkeys(("low", "draft", "sd"), 1),
    **dict.fromkeys(("std", "standard", "basic", "normal"), 2),
    **dict.fromkeys(("medium",), 3),
    **dict.fromkeys(("pro", "high", "hd"), 4),
    **dict.fromkeys(("master", "ultra"), 5),
}
"""Order of qualities that have no number."""
_SHORTEST_GUESS_S = 4
_LONGEST_GUESS_S = 10
_MOST_LENGTHS = 60
_USUAL_RATE = 24
_SNAP = 0.06
"""Largest difference of two ratios' logarithms at which a size in pixels has that ratio."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The duration of an entry."""

    value: dict[str, Any]
    seconds: tuple[float, ...] = ()
    """The lengths that can be requested; empty where any can."""
    used: frozenset[str] = frozenset()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """The ratios of an entry, and the tiers that come with them."""

    ratios: dict[str, Inputs]
    used: frozenset[str] = frozenset()
    tiers: dict[str, Inputs] = field(default_factory=dict)
    when: tuple[dict[str, Any], ...] = ()
    remark: str = ""
    frame_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The values of the input for the ratio, by its name."""


def _find(names: Iterable[str], known: Schemas) -> str | None:
    return next((name for name in names if name in known), None)


# -- length -----------------------------------------------------------------------------------------------------------


def find_length(known: Schemas) -> Guess:
    """Return the duration of an entry."""
    rate = _find(_RATES, known)
    frames = _find(_FRAMES, known)
    if frames and (frames != "video_length" or rate) and not known[frames].takes_file:
        counted = _count_frames(frames, rate, known)
        if counted:
            return counted
    name = _find(_LENGTHS, known)
    found = _read_lengths(name, known[name]) if name else None
    return found or Guess(
        {"mode": "discrete", "sizes": [{"seconds": 5, "inputs": {}}]},
        (5.0,),
        remark="QUESTION: how long are its clips? No input for the length is recognised",
    )


def _read_lengths(name: str, schema: InputSchema) -> Guess | None:
    used = frozenset([name])
    if schema.enum is not None and schema.type == "string":
        sizes = {seconds: each for each in schema.enum if (seconds := _read_seconds(str(each)))}
        listed = [{"seconds": to_plain_number(key), "inputs": {name: each}} for key, each in sizes.items()]
        return Guess({"mode": "discrete", "sizes": listed}, tuple(sizes), used) if listed else None
    if schema.enum is not None:
        numbers = sorted(to_plain_number(each) for each in schema.enum if isinstance(each, int | float) and each > 0)
        told = re.search(r"(\d+) or (\d+) (?:seconds )?without", schema.description)
        fewer = [each for each in numbers if told and each in (int(told[1]), int(told[2]))]
        remark = "guess: by its words" if fewer else ""
        value = {"mode": "discrete", "sizes": fewer or numbers, "input": name}
        return Guess(value, tuple(map(float, fewer or numbers)), used, remark) if numbers else None
    if schema.type not in ("integer", "number"):
        return None
    low, high, remark = _find_range(schema)
    if not 0 < low <= high:
        return None
    if schema.type == "number":
        return Guess({"mode": "continuous", "min": low, "max": high, "input": name}, (), used, remark)
    steps = {"min": low, "max": high}
    whole = tuple(float(each) for each in range(int(low), int(high) + 1))
    return Guess({"mode": "discrete", "steps": steps, "input": name}, whole, used, remark)


def _find_range(schema: InputSchema) -> tuple[int | float, int | float, str]:
    """Return the shortest and the longest length in seconds, by the words of the schema if it has some."""
    remarks = []
    high = schema.maximum
    if high is None:
        default = schema.default if isinstance(schema.default, int | float) else 0
        high = max(_LONGEST_GUESS_S, default, schema.minimum or 0)
        remarks.append("guess: the schema names no longest length")
    low = schema.minimum
    told = re.search(r"(\d+)\s*(?:to|-|–)\s*(\d+) s", schema.description)
    if told and schema.covers(float(told[1]), float(told[2])):
        low, high = float(told[1]), float(told[2])
        remarks.append("guess: by its words")
    elif low is None or low <= 0:
        low = min(_SHORTEST_GUESS_S, high)
        remarks.append(f"guess: the schema begins at {schema.minimum:g}" if schema.minimum is not None else "guess")
    if high - low > _MOST_LENGTHS and schema.type == "integer":
        high = low + _MOST_LENGTHS
        remarks.append("guess: longer ones are left out")
    return to_plain_number(low), to_plain_number(high), "; ".join(remarks)


def _read_seconds(text: str) -> float | None:
    found = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,3})?)\s*(?:s|sec|seconds?)?\s*", text, re.ASCII)
    return float(found[1]) or None if found else None


def _count_frames(name: str, rate: str | None, known: Schemas) -> Guess | None:
    schema = known[name]
    fps, remark = _find_rate(known[rate] if rate else None, schema.description)
    used = frozenset([name, *([rate] if rate else [])])
    sent = {rate: to_plain_number(fps)} if rate else {}
    if schema.enum is not None and schema.type == "string":
        counts = {int(found[1]): each for each in schema.enum if (found := re.match(r"(\d+)_?\s?frames", str(each)))}
        sizes = {round(count / fps, 3): {name: each, **sent} for count, each in counts.items() if count}
        listed = [{"seconds": to_plain_number(seconds), "inputs": inputs} for seconds, inputs in sizes.items()]
        return Guess({"mode": "discrete", "sizes": listed}, tuple(sizes), used, remark) if listed else None
    if schema.enum is not None:
        counted = sorted(each for each in schema.enum if isinstance(each, int) and each > 0)
    elif schema.type == "integer":
        counted = _choose_counts(schema, fps)
        remark = "; ".join(filter(None, [remark, "guess: these counts, about a second apart"]))
    else:
        return None
    if not counted:
        return None
    frames = {"counts": counted, "input": name, "fps": to_plain_number(fps), **({"fps_input": rate} if rate else {})}
    seconds = tuple(round(count / fps, 3) for count in counted)
    return Guess({"mode": "discrete", "frames": frames}, seconds, used, remark)


def _find_rate(schema: InputSchema | None, description: str) -> tuple[float, str]:
    if schema and isinstance(schema.default, int | float) and schema.default > 0:
        return float(schema.default), ""
    told = re.search(r"(\d{1,2}) ?fps", description)
    if told and int(told[1]):
        return float(told[1]), ""
    return float(_USUAL_RATE), "guess: the frames per second"


def _choose_counts(schema: InputSchema, fps: float) -> list[int]:
    """Return numbers of frames about a second apart, each a multiple of 4 plus 1, and the default one."""
    default = schema.default if isinstance(schema.default, int) and schema.default > 0 else None
    high = int(schema.maximum or max(default or 0, fps * _LONGEST_GUESS_S))
    low = int(max(schema.minimum or 1, 1))
    seconds = range(1, min(int(high / fps) + 2, _MOST_LENGTHS))
    counts = {round(each * fps / 4) * 4 + 1 for each in seconds} | ({default} if default else set())
    edges = {edge for edge in (low, high) if edge % 4 == 1 and edge >= fps}
    return sorted(count for count in counts | edges if low <= count <= high) or [low]


# -- ratio ------------------------------------------------------------------------------------------------------------


def find_shape(known: Schemas, *, takes_start: str | None, required: Collection[str]) -> Shape:
    """Return the ratios of an entry.

    Args:
        known: the inputs that have no other use yet.
        takes_start: the input for the start frame, or None.
        required: names of the required inputs.
    """
    if (name := _find(_RATIOS, known)) and (shape := _read_ratios(name, known[name])):
        return shape
    for name in _SIZES:
        if name in known and (shape := _read_sizes(name, known[name])):
            return shape
    if {"width", "height"} <= known.keys() and (shape := _choose_sizes(known)):
        return shape
    return _follow_start_image(takes_start, required)


def _read_ratios(name: str, schema: InputSchema) -> Shape | None:
    used = frozenset([name])
    if schema.enum is None:
        if schema.type != "string" or schema.takes_file:
            return None
        ratios: dict[str, Inputs] = {ratio: {name: ratio} for ratio in ("16:9", "9:16", "1:1")}
        return Shape(ratios, used, remark="guess: the schema lists no ratios")
    ratios, unknown = {}, []
    for value in schema.enum:
        ratio = _WORDS.get(str(value).lower(), str(value))
        if ratio in _WORDS.values() or re.fullmatch(r"[1-9]\d{0,2}:[1-9]\d{0,2}", ratio, re.ASCII):
            ratios.setdefault(ratio, {name: value})
        else:
            unknown.append(str(value))
    sizes = {ratio: _make_frame_size(ratio) for ratio in ratios if ":" in ratio and ratio not in FRAME_SIZES}
    remark = f"QUESTION: which ratios are {', '.join(unknown)}?" if unknown else ""
    return Shape(ratios, used, remark=remark, frame_sizes=sizes, inputs={name: schema.enum}) if ratios else None


def _make_frame_size(ratio: str) -> tuple[int, int]:
    width, height = _fit_area(_measure(ratio), 1280 * 720, 2)
    return width, height


def _measure(ratio: str) -> float:
    width, height = map(int, ratio.split(":"))
    return width / height


def _fit_area(shape: float, area: float, multiple: int) -> tuple[int, int]:
    height = sqrt(area / shape)
    return round(height * shape / multiple) * multiple, round(height / multiple) * multiple


def _find_nearest_ratio(width: int, height: int) -> str | None:
    def distance(ratio: str) -> float:
        return abs(log(_measure(ratio) / (width / height)))

    nearest = min(FRAME_SIZES, key=distance)
    return nearest if distance(nearest) <= _SNAP else None


def _read_sizes(name: str, schema: InputSchema) -> Shape | None:
    """Return the ratios of an input that takes sizes such as `1280*720`, with a tier for each quality."""
    by_height: dict[int, dict[str, Any]] = {}
    heights: dict[Any, int] = {}
    for value in schema.enum or ():
        found = re.fullmatch(r"(\d{2,5})\s?[x*×]\s?(\d{2,5})", str(value), re.ASCII)
        if not found or not (width := int(found[1])) or not (height := int(found[2])):
            return None
        if ratio := _find_nearest_ratio(width, height):
            heights[value] = min(width, height)
            by_height.setdefault(heights[value], {}).setdefault(ratio, value)
    if not by_height:
        return None
    used, ordered = frozenset([name]), sorted(by_height)
    standard = heights.get(schema.default, ordered[0])
    ratios: dict[str, Inputs] = {ratio: {name: value} for ratio, value in by_height[standard].items()}
    if len(ordered) == 1:
        return Shape(ratios, used)
    tiers = {"draft": ordered[0], "standard": standard, "final": ordered[-1]}
    when = [
        _make_size_condition(ratio, height, by_height[height].get(ratio), name, tiers)
        for ratio in ratios
        for height in sorted(set(tiers.values()))
    ]
    remark = f"{name} depends on the tier, too: see the conditions below"
    return Shape({ratio: {} for ratio in ratios}, used, {tier: {} for tier in tiers}, tuple(when), remark)


def _make_size_condition(ratio: str, height: int, size: Any, name: str, tiers: Mapping[str, int]) -> dict[str, Any]:
    """Return the condition under which a ratio is sent as this size, or refused if there is none of that height."""
    effect = {"refuse": f"this tier has no size in {ratio}"} if size is None else {"send": {name: size}}
    return {"aspect_ratio": ratio, "tier": [tier for tier, each in tiers.items() if each == height], **effect}


def _choose_sizes(known: Schemas) -> Shape | None:
    width, height = known["width"], known["height"]
    if width.type != "integer" or height.type != "integer" or width.enum or height.enum:
        return None
    told = re.search(r"multiple of (\d{1,3})|divisible by (\d{1,3})", width.description, re.IGNORECASE)
    multiple = int(told[1] or told[2]) or 16 if told else 16
    usual = (1280, 720)
    if isinstance(width.default, int) and isinstance(height.default, int) and min(width.default, height.default) > 0:
        usual = width.default, height.default
    own = _find_nearest_ratio(*usual)
    ratios: dict[str, Inputs] = {}
    for ratio in ("16:9", "9:16", "1:1"):
        size = usual if ratio == own else _fit_area(_measure(ratio), usual[0] * usual[1], multiple)
        if ratio == "9:16" and own == "16:9":
            size = usual[1], usual[0]  # the same numbers, even where they are not quite of that ratio
        if width.covers(size[0], size[0]) and height.covers(size[1], size[1]) and min(size) > 0:
            ratios[ratio] = {"width": size[0], "height": size[1]}
    remark = f"guess: about as many pixels as by default, in multiples of {multiple}"
    return Shape(ratios, frozenset(["width", "height"]), remark=remark) if ratios else None


def _follow_start_image(takes_start: str | None, required: Collection[str]) -> Shape:
    """Return the ratios of a model that has no input for them."""
    ratios: dict[str, Inputs] = {"16:9": {}}
    if takes_start is None:
        return Shape(ratios, remark="guess: no input for the ratio is recognised")
    ratios = {"16:9": {}, "9:16": {}, "1:1": {}}
    remark = "guess: no input for the ratio is recognised, so a clip has that of its start image"
    if takes_start in required:
        return Shape(ratios, remark=remark)
    refused = "without a start image its clips are 16:9"
    when = {"start_image": False, "aspect_ratio": ["9:16", "1:1"], "refuse": refused}
    return Shape(ratios, when=(when,), remark=f"{remark}, and without one it is 16:9")


# -- quality and references -------------------------------------------------------------------------------------------


def list_qualities(schema: InputSchema) -> list[str]:
    """Return the values of an input from the lowest quality to the highest; empty if they cannot be compared."""
    ranks = {str(each): _rank(str(each)) for each in schema.enum or ()}
    if any(rank is None for rank in ranks.values()):
        return []
    return sorted(ranks, key=lambda each: ranks[each] or 0)


def _rank(value: str) -> int | None:
    if found := re.search(r"(\d{3,4})\s?p\b", value, re.IGNORECASE):
        return int(found[1])
    if found := re.fullmatch(r"([1248])k", value, re.IGNORECASE):
        return int(found[1]) * 540
    return _RANKS.get(value.lower())


def find_reference_limit(schema: InputSchema) -> tuple[int, str]:
    """Return the most reference images, and a remark if that is a guess."""
    if schema.max_items:
        return schema.max_items, ""
    told = re.search(
        r"(?:\d+ (?:to|-|–) |at most |up to |maximum(?: of)? )(\d{1,2})\b", schema.description, re.IGNORECASE
    )
    if told and int(told[1]):
        return int(told[1]), "guess: by its words"
    return 1, "guess: the schema does not say how many"
