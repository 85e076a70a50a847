"""The prices of the endpoints of snapshots, which no schema says, as tiers of the effective inputs.

Sources, unless one stands beside the value: the billing tiers of the models' API pages on replicate.com as copied in
https://github.com/genfeedai/genfeed.ai (packages/pricing/src/reviewed-rates/replicate-variants.fixture.ts and
reviewed-rate-sheet.data.ts, 2026-09-30 and 2026-10-05). "Catalogue" marks prices that other services publish of
Replicate, and "estimate" values that are not confirmed.

A model is not in the table if its price is not known or if sources contradict each other: runwayml/gen-4.5 (0.12 and
0.25 a second), xai/grok-imagine-video (0.05 and 0.08). The ledger then bills 0 and says `price_known: false`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from videogen.emulator.clip_inputs import find_duration_s
from videogen.emulator.schemas import Inputs

Tier = str | int | bool | None
Criterion = Callable[[Inputs], Tier]


@dataclass(frozen=True, slots=True)
class EndpointPrice:
    """A table of prices: what they depend on, and the USD of each combination."""

    per: Literal["second", "clip"]
    criteria: tuple[Criterion, ...]
    usd: Mapping[tuple[Tier, ...], str]

    def compute(self, inputs: Inputs) -> Decimal | None:
        """Return the price of one output in USD, or None if no tier is known for these effective inputs."""
        tier = self.usd.get(tuple(criterion(inputs) for criterion in self.criteria))
        if tier is None:
            return None
        if self.per == "clip":
            return Decimal(tier)
        seconds = find_duration_s(inputs)
        return Decimal(tier) * seconds.numerator / seconds.denominator


def _by(name: str) -> Criterion:
    """Return the criterion of an input's value."""
    return lambda inputs: inputs.get(name)


def _if_given(name: str) -> Criterion:
    """Return the criterion whether an input is given."""
    return lambda inputs: bool(inputs.get(name))


def _flat(usd_per_second: str) -> EndpointPrice:
    return EndpointPrice("second", (), {(): usd_per_second})


_WAN_27 = EndpointPrice("second", (_by("resolution"),), {("720p",): "0.10", ("1080p",): "0.15"})  # catalogue

PRICES: Mapping[str, EndpointPrice] = {
    "kwaivgi/kling-v2.6": EndpointPrice("second", (_by("generate_audio"),), {(False,): "0.07", (True,): "0.14"}),
    "kwaivgi/kling-v3-video": EndpointPrice(
        "second",
        (_by("mode"), _by("generate_audio")),
        {
            ("standard", False): "0.168",
            ("standard", True): "0.252",
            ("pro", False): "0.224",
            ("pro", True): "0.336",
            ("4k", False): "0.42",
            ("4k", True): "0.42",
        },
    ),
    "kwaivgi/kling-v3-omni-video": EndpointPrice(
        "second",
        (_by("mode"), _by("generate_audio")),
        {
            ("standard", False): "0.168",
            ("standard", True): "0.224",
            ("pro", False): "0.224",
            ("pro", True): "0.28",
            ("4k", False): "0.42",
            ("4k", True): "0.42",
        },
    ),
    "kwaivgi/kling-o1": EndpointPrice(
        "second",
        (_by("mode"), _if_given("reference_video")),
        {("std", False): "0.084", ("pro", False): "0.112", ("std", True): "0.126", ("pro", True): "0.168"},
    ),
    "google/veo-3.1-fast": EndpointPrice("second", (_by("generate_audio"),), {(True,): "0.15", (False,): "0.10"}),
    "google/veo-3.1-lite": EndpointPrice(
        "second", (_by("resolution"),), {("720p",): "0.05", ("1080p",): "0.08"}
    ),  # replicate.com, 2026-10-06
    "bytedance/seedance-1.5-pro": EndpointPrice(
        "second",
        (_by("resolution"), _by("generate_audio")),
        {("480p", False): "0.013", ("480p", True): "0.025", ("1080p", False): "0.06", ("1080p", True): "0.12"},
    ),  # replicate.com, 2026-10-06; 720p is not known
    "bytedance/seedance-2.0": EndpointPrice(
        "second",
        (_by("resolution"), _if_given("reference_videos")),
        {
            ("480p", False): "0.08",
            ("720p", False): "0.18",
            ("1080p", False): "0.45",
            ("4k", False): "1.00",
            ("480p", True): "0.10",
            ("720p", True): "0.22",
            ("1080p", True): "0.55",
            ("4k", True): "1.25",
        },
    ),
    "bytedance/seedance-2.0-fast": EndpointPrice(
        "second",
        (_by("resolution"), _if_given("reference_videos")),
        {("480p", False): "0.07", ("720p", False): "0.15", ("480p", True): "0.08", ("720p", True): "0.17"},
    ),
    "bytedance/seedance-2.5": EndpointPrice(
        "second",
        (_by("resolution"), _if_given("reference_videos")),
        {("480p", False): "0.1028", ("720p", False): "0.2312", ("480p", True): "0.4304", ("720p", True): "0.9676"},
    ),
    "minimax/hailuo-2.3-fast": EndpointPrice(
        "clip",
        (_by("resolution"), _by("duration")),
        {("768p", 6): "0.19", ("768p", 10): "0.32", ("1080p", 6): "0.33"},
    ),
    "wan-video/wan-2.7-t2v": _WAN_27,
    "wan-video/wan-2.7-i2v": _WAN_27,
    "wan-video/wan-2.7-r2v": _WAN_27,
    "wan-video/wan-2.2-i2v-fast": EndpointPrice(
        "clip",
        (_by("resolution"), _by("interpolate_output")),
        {("480p", False): "0.05", ("720p", False): "0.11", ("480p", True): "0.065", ("720p", True): "0.145"},
    ),
    "lightricks/ltx-2.3-fast": _flat("0.06"),  # catalogue, 2026-08
    "pixverse/pixverse-v6": EndpointPrice(
        "second",
        (_by("quality"), _by("generate_audio_switch")),
        {
            ("360p", False): "0.05",
            ("360p", True): "0.07",
            ("540p", False): "0.07",
            ("540p", True): "0.09",
            ("720p", False): "0.09",
            ("720p", True): "0.12",
            ("1080p", False): "0.18",
            ("1080p", True): "0.23",
        },
    ),
    "luma/ray-3.2": EndpointPrice(
        "clip", (_by("resolution"), _by("duration")), {("720p", 5): "0.30", ("720p", 10): "0.90"}
    ),  # catalogue, 2026-08; other resolutions are not known
    "vidu/q3-pro": EndpointPrice("second", (_by("resolution"),), {("1080p",): "0.125"}),  # estimate; catalogue
    "prunaai/p-video": EndpointPrice(
        "second",
        (_by("resolution"), _by("draft")),
        {("720p", False): "0.02", ("1080p", False): "0.04", ("720p", True): "0.005", ("1080p", True): "0.01"},
    ),
}
"""By `owner/name`."""
