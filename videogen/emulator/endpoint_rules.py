"""Rules of the endpoints of snapshots that their input schemas do not say: conflicts of inputs, and ignored inputs.

A schema says which values an input takes. That 1080p needs 8 seconds, or that a start image decides the shape, stands
only in texts for people, or shows when a prediction fails.

Sources, unless one stands beside the value: input properties of the models' API pages on replicate.com as copied in
https://github.com/genfeedai/genfeed.ai (packages/pricing/src/reviewed-rates/replicate-variants.fixture.ts, 2026-10-05)
and https://github.com/superdesigndev/treg (src/treg/catalog/replicate.extended.yaml, 2026-09-01). The wording of the
errors is ours, because those of the live API are not known.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from videogen.emulator.clip_inputs import find_duration_s, find_fps
from videogen.emulator.schemas import Inputs

FindConflict = Callable[[Inputs], str | None]
"""Returns the error text if inputs that are valid on their own conflict, else None."""


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """The behaviour of an endpoint beyond its schema."""

    conflicts: tuple[FindConflict, ...] = ()
    ratio_follows_start: bool = False
    """Whether the ratio is ignored with a start image."""
    has_sound: bool = False
    """Whether the model makes sound without a switch for it."""

    def find_conflict(self, inputs: Inputs) -> str | None:
        """Return the error text of the first conflict in effective inputs, or None if there is none."""
        return next((error for find in self.conflicts if (error := find(inputs))), None)


def _is_given(inputs: Inputs, *names: str) -> bool:
    return any(bool(inputs.get(name)) for name in names)


def _refuse(error: str, is_refused: Callable[[Inputs], bool]) -> FindConflict:
    return lambda inputs: error if is_refused(inputs) else None


def _limit_prompt(most: int) -> FindConflict:
    return _refuse(f"prompt must be at most {most} characters", lambda inputs: len(inputs.get("prompt", "")) > most)


def _limit_files(name: str, most: int) -> FindConflict:
    return _refuse(f"{name} must have at most {most} items", lambda inputs: len(inputs.get(name) or ()) > most)


_REFERENCES = ("reference_images", "reference_videos", "reference_audios")
_NO_FRAMES_WITH_REFERENCES = _refuse(
    "First and last frames cannot be combined with references",
    lambda inputs: _is_given(inputs, "image", "last_frame_image") and _is_given(inputs, *_REFERENCES),
)
_END_NEEDS_START = _refuse(
    "end_image requires start_image",
    lambda inputs: _is_given(inputs, "end_image") and not _is_given(inputs, "start_image"),
)


def _find_prompt_list_conflict(inputs: Inputs) -> str | None:
    """Check Kling's `multi_prompt`: a text that holds a JSON array of at most six `{prompt, duration}`."""
    text = inputs.get("multi_prompt")
    if not text:
        return None
    try:
        shots: Any = json.loads(text)
        total_s = sum(int(shot["duration"]) for shot in shots)
        is_list = isinstance(shots, list) and all(isinstance(shot["prompt"], str) for shot in shots)
    except (ValueError, TypeError, KeyError, RecursionError):
        is_list, total_s = False, 0
    if not is_list or len(shots) > 6:
        return "multi_prompt must be a JSON array of at most 6 objects with prompt and duration"
    if total_s != find_duration_s(inputs):
        return f"The durations of multi_prompt add up to {total_s} s, not to duration"
    return None


def _find_kling_reference_conflict(inputs: Inputs) -> str | None:
    has_video = _is_given(inputs, "reference_video")
    most = 4 if has_video else 7
    if len(inputs.get("reference_images") or ()) > most:
        return f"At most {most} reference images are supported{' with a reference video' if has_video else ''}"
    return None


def _limit_hunyuan(inputs: Inputs) -> str | None:
    if inputs.get("width", 0) % 16 or inputs.get("height", 0) % 16:
        return "width and height must be multiples of 16"
    if (inputs.get("video_length", 1) - 1) % 4:
        return "video_length - 1 must be a multiple of 4"
    return None


NO_RULES = EndpointRules()
# Paid runs were refused below 4 s. Source: https://github.com/davidrd123/riff-mcp (LIVE_VERIFICATION.md).
_SEEDANCE_2 = EndpointRules(
    (
        _refuse(
            "Duration must be between 4 and 15 seconds, or -1",
            lambda inputs: find_duration_s(inputs) < 4,
        ),
        _NO_FRAMES_WITH_REFERENCES,
        _limit_files("reference_images", 9),
        _limit_files("reference_videos", 3),
        _limit_files("reference_audios", 3),
        _limit_prompt(4000),
    )
)

RULES: Mapping[str, EndpointRules] = {
    "kwaivgi/kling-v2.6": EndpointRules(ratio_follows_start=True),
    "kwaivgi/kling-v3-video": EndpointRules(
        (_END_NEEDS_START, _limit_prompt(2500), _find_prompt_list_conflict), ratio_follows_start=True
    ),
    "kwaivgi/kling-v3-omni-video": EndpointRules(
        (
            _find_kling_reference_conflict,
            _find_prompt_list_conflict,
            _refuse(
                "4k mode does not support a reference video",
                lambda inputs: inputs.get("mode") == "4k" and _is_given(inputs, "reference_video"),
            ),
            _refuse(
                "generate_audio does not support a reference video",
                lambda inputs: _is_given(inputs, "generate_audio") and _is_given(inputs, "reference_video"),
            ),
        ),
        ratio_follows_start=True,
    ),
    "kwaivgi/kling-o1": EndpointRules(
        (
            _find_kling_reference_conflict,
            _refuse(
                "Without a reference video, duration must be 5 or 10",
                lambda inputs: find_duration_s(inputs) not in (5, 10) and not _is_given(inputs, "reference_video"),
            ),
        ),
        ratio_follows_start=True,
    ),
    "google/veo-3.1-lite": EndpointRules(
        (
            _refuse(
                "1080p resolution requires a duration of 8 seconds",
                lambda inputs: inputs.get("resolution") == "1080p" and find_duration_s(inputs) != 8,
            ),
        )
    ),
    # That the ratio is ignored with an image is known of seedance-1-pro, and assumed of these two.
    "bytedance/seedance-1-lite": EndpointRules(
        (
            _NO_FRAMES_WITH_REFERENCES,
            _limit_files("reference_images", 4),
            _refuse(
                "1080p resolution does not support reference images",
                lambda inputs: inputs.get("resolution") == "1080p" and _is_given(inputs, "reference_images"),
            ),
        ),
        ratio_follows_start=True,
    ),
    "bytedance/seedance-1.5-pro": EndpointRules(ratio_follows_start=True),
    "bytedance/seedance-2.0": _SEEDANCE_2,
    "bytedance/seedance-2.0-fast": _SEEDANCE_2,
    "bytedance/seedance-2.5": EndpointRules(
        (
            _refuse(
                "Duration must be between 4 and 30 seconds, or -1",
                lambda inputs: find_duration_s(inputs) < 4,
            ),
            _refuse(
                "With a first or last frame, aspect_ratio must be adaptive",
                lambda inputs: (
                    _is_given(inputs, "image", "last_frame_image") and inputs.get("aspect_ratio") != "adaptive"
                ),
            ),
            _NO_FRAMES_WITH_REFERENCES,
            _limit_files("reference_images", 30),
            _limit_files("reference_videos", 10),
            _limit_files("reference_audios", 10),
            _limit_prompt(2000),
        )
    ),
    "minimax/hailuo-02": EndpointRules(
        (
            _refuse(
                "A duration of 10 seconds is only supported at 768p",
                lambda inputs: find_duration_s(inputs) == 10 and inputs.get("resolution") != "768p",
            ),
        )
    ),
    "minimax/hailuo-2.3-fast": EndpointRules(
        (
            _refuse(
                "1080p resolution only supports a duration of 6 seconds",
                lambda inputs: find_duration_s(inputs) == 10 and inputs.get("resolution") == "1080p",
            ),
        )
    ),
    # Without a file in `audio`, Wan 2.7 makes the sound itself.
    "wan-video/wan-2.7-t2v": EndpointRules(has_sound=True),
    "wan-video/wan-2.7-i2v": EndpointRules(has_sound=True),
    "lightricks/ltx-2.5-fast": EndpointRules(
        (
            _refuse(
                "More than 10 seconds are only supported at 720p or 1080p with 24 or 25 frames per second",
                lambda inputs: (
                    find_duration_s(inputs) > 10
                    and (inputs.get("resolution") not in ("720p", "1080p") or find_fps(inputs) not in (24, 25))
                ),
            ),
        )
    ),
    "luma/ray-3.2": EndpointRules(
        (
            _refuse(
                "10 seconds are not supported with start_image, end_image, loop or hdr",
                lambda inputs: (
                    find_duration_s(inputs) == 10 and _is_given(inputs, "start_image", "end_image", "loop", "hdr")
                ),
            ),
        ),
        ratio_follows_start=True,
    ),
    "xai/grok-imagine-video-1.5": EndpointRules(has_sound=True),
    "vidu/q3-pro": EndpointRules((_limit_prompt(5000),)),
    "tencent/hunyuan-video": EndpointRules((_limit_hunyuan,)),
}
"""By `owner/name`; an endpoint without an entry does what its schema says."""
