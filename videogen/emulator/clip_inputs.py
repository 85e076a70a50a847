"""Derive the properties of a clip from the inputs of its model: length, frame rate, size, sound, first and last frame.

The names and values are those of the video models on Replicate. An input that a model does not have, or whose value
says nothing, leaves the default.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from videogen.emulator.models import ClipFormat, ModelError, PixelSize, round_to_even, scale_to_area
from videogen.emulator.schemas import Inputs, Property

DEFAULT_S = Fraction(5)
DEFAULT_FPS = Fraction(24)
DEFAULT_SHORT_SIDE_PX = 720
DEFAULT_RATIO = PixelSize(16, 9)
MAX_FRAMES = 20_000
MAX_PIXELS = 4096 * 2304

_SECONDS = ("duration", "seconds", "duration_seconds", "video_duration", "length")
_FRAMES = ("num_frames", "frames", "num_video_frames", "video_length", "frame_count")
_FPS = ("fps", "frames_per_second", "frame_rate")
_RESOLUTIONS = ("resolution", "quality", "size", "video_size", "target_resolution", "mode")
_RATIOS = ("aspect_ratio", "ratio", "orientation")
_AUDIO_SWITCHES = ("generate_audio", "generate_audio_switch", "save_audio", "with_audio", "enable_audio", "audio")
_FIRST_FRAMES = ("start_image", "first_frame_image", "first_frame", "start_frame", "image", "input_image")
_LAST_FRAMES = ("end_image", "last_frame_image", "last_frame", "end_frame", "last_image", "tail_image")
_SHORT_SIDES_PX = {"2k": 1440, "4k": 2160, "std": 720, "standard": 720, "pro": 1080, "sd": 480, "hd": 720, "fhd": 1080}
_NAMED_RATIOS = {"landscape": PixelSize(16, 9), "portrait": PixelSize(9, 16), "square": PixelSize(1, 1)}
_NOT_FIRST = {"reference", "end", "last", "tail", "mask", "style", "subject"}
_PICTURE_WORDS = ("image", "frame", "photo", "picture")

_NUMBER = re.compile(r"(-?\d+(?:\.\d+)?)\s*(?:s|sec|seconds)?")
_PIXELS = re.compile(r"(\d{2,5})\s*[*x×]\s*(\d{2,5})")
_LINES = re.compile(r"(\d{3,4})p")
_RATIO = re.compile(r"(\d{1,4}):(\d{1,4})")


def derive_clip_format(
    inputs: Inputs, start: PixelSize | None, *, model: str, ratio_follows_start: bool = False, has_sound: bool = False
) -> ClipFormat:
    """Return the format of the clip that effective inputs ask for.

    Args:
        inputs: the effective input.
        start: the size of the start image, or None without one.
        model: the model's name, which may have its resolution: `ray-2-720p`.
        ratio_follows_start: whether a start image decides the shape, whatever ratio is asked for.
        has_sound: whether the model makes sound without being asked.

    Raises:
        ModelError: the clip would be too large.
    """
    fps = find_fps(inputs)
    size = _find_size(inputs, start, model, ratio_follows_start=ratio_follows_start)
    frames = max(1, round(find_duration_s(inputs) * fps))
    if frames > MAX_FRAMES or size.width_px * size.height_px > MAX_PIXELS or not 1 <= fps <= 240:
        raise ModelError("CUDA out of memory. Tried to allocate 20.25 GiB")
    return ClipFormat(size, frames, fps, audio=has_sound or bool(find_audio(inputs)) or _has_sound_file(inputs))


def find_duration_s(inputs: Inputs) -> Fraction:
    """Return the length of the clip in seconds; a negative one (`-1`) leaves it to the model, which makes 5 s."""
    for name in _SECONDS:
        seconds = _parse_number(inputs.get(name))
        if seconds is not None:
            return seconds if seconds >= 0 else DEFAULT_S
    for name in _FRAMES:
        frames = _parse_number(inputs.get(name))
        if frames is not None:
            return frames / find_fps(inputs)
    return DEFAULT_S


def find_fps(inputs: Inputs) -> Fraction:
    """Return the frame rate."""
    rates = (_parse_number(inputs.get(name)) for name in _FPS)
    return next((rate for rate in rates if rate is not None and rate > 0), DEFAULT_FPS)


def find_audio(inputs: Inputs) -> bool | None:
    """Return the value of the switch for sound, or None if the inputs have no such switch."""
    return next((inputs[name] for name in _AUDIO_SWITCHES if isinstance(inputs.get(name), bool)), None)


def _has_sound_file(inputs: Inputs) -> bool:
    return isinstance(inputs.get("audio"), str) and bool(inputs.get("save_audio", True))


def _find_size(inputs: Inputs, start: PixelSize | None, model: str, *, ratio_follows_start: bool) -> PixelSize:
    if exact := _find_exact_size(inputs):
        return PixelSize(round_to_even(exact.width_px), round_to_even(exact.height_px))
    short_px = _find_short_side_px(inputs, model)
    reference = PixelSize(round_to_even(short_px * 16 / 9), round_to_even(short_px))
    asked = _find_ratio(inputs)
    ratio = start if start and (ratio_follows_start or asked is None) else asked
    return scale_to_area(reference, ratio or DEFAULT_RATIO)


def _find_exact_size(inputs: Inputs) -> PixelSize | None:
    """Return the size in pixels if the inputs give one: width and height, or a text such as `1280*720`."""
    width, height = _parse_number(inputs.get("width")), _parse_number(inputs.get("height"))
    if width and height and width > 0 and height > 0:
        return PixelSize(int(width), int(height))
    for text in _iterate_texts(inputs, _RESOLUTIONS):
        if found := _PIXELS.fullmatch(text):
            return PixelSize(int(found[1]), int(found[2]))
    return None


def _find_short_side_px(inputs: Inputs, model: str) -> int:
    for text in _iterate_texts(inputs, _RESOLUTIONS):
        if found := _LINES.fullmatch(text):
            return int(found[1])
        if text in _SHORT_SIDES_PX:
            return _SHORT_SIDES_PX[text]
    in_name = _LINES.search(model)
    return int(in_name[1]) if in_name else DEFAULT_SHORT_SIDE_PX


def _find_ratio(inputs: Inputs) -> PixelSize | None:
    """Return the ratio that is asked for; None if there is none, or if it is left to the model (`adaptive`, `auto`)."""
    for text in _iterate_texts(inputs, (*_RATIOS, "size")):
        if text in _NAMED_RATIOS:
            return _NAMED_RATIOS[text]
        if (found := _RATIO.fullmatch(text)) and int(found[1]) and int(found[2]):
            return PixelSize(int(found[1]), int(found[2]))
    return None


def _iterate_texts(inputs: Inputs, names: Iterable[str]) -> Iterable[str]:
    return (inputs[name].strip().lower() for name in names if isinstance(inputs.get(name), str))


def _parse_number(value: Any) -> Fraction | None:
    """Return the number of a value such as 5, 5.5, `"5"` or `"5s"`, or None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = _NUMBER.fullmatch(str(value).strip().lower())
    return Fraction(found[1]) if found else None


def find_first_frames(properties: Mapping[str, Property]) -> tuple[str, ...]:
    """Return the inputs that take the first frame, the usual ones before others that name an image or a frame."""
    pictures = [name for name in _find_files(properties) if _is_picture(name)]
    usual = [name for name in _FIRST_FRAMES if name in pictures]
    others = [name for name in pictures if name not in usual and _NOT_FIRST.isdisjoint(name.split("_"))]
    return (*usual, *others)


def find_last_frames(properties: Mapping[str, Property]) -> tuple[str, ...]:
    """Return the inputs that take the last frame."""
    files = _find_files(properties)
    return tuple(name for name in _LAST_FRAMES if name in files)


def find_other_files(properties: Mapping[str, Property]) -> tuple[str, ...]:
    """Return the inputs that take a file, or files, of which the name does not say that they are pictures."""
    lists = [name for name, plain in properties.items() if plain.get("items", {}).get("format") == "uri"]
    return tuple(name for name in (*_find_files(properties), *lists) if not _is_picture(name))


def _find_files(properties: Mapping[str, Property]) -> Sequence[str]:
    return [name for name, plain in properties.items() if plain.get("format") == "uri"]


def _is_picture(name: str) -> bool:
    return any(word in name for word in _PICTURE_WORDS)
