"""Models that are made from snapshots of input schemas.

The schema gives the inputs, their limits and defaults; `clip_inputs` reads the format of the clip from them. What the
schema does not say stands in `endpoint_rules` and `endpoint_prices`, and is unknown for an endpoint that is in neither.
"""

import functools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from videogen.emulator.clip_inputs import (
    derive_clip_format,
    find_audio,
    find_duration_s,
    find_first_frames,
    find_last_frames,
    find_other_files,
)
from videogen.emulator.endpoint_prices import PRICES
from videogen.emulator.endpoint_rules import NO_RULES, RULES
from videogen.emulator.models import EmulatedModel
from videogen.emulator.schemas import Inputs
from videogen.emulator.snapshots import Snapshot, read_inputs

_RUN_S = (60.0, 180.0)  # estimate


def make_models(snapshot: Snapshot) -> Iterator[EmulatedModel]:
    """Yield a model for each version of a snapshot that has inputs, the latest first."""
    versions = snapshot.openapi_schemas
    for version in sorted(versions, key=lambda version: version != snapshot.latest_version):
        if read_inputs(versions[version]).properties:
            yield _make_model(snapshot, version)


def _make_model(snapshot: Snapshot, version: str) -> EmulatedModel:
    document = snapshot.openapi_schemas[version]
    properties, required = read_inputs(document)
    owner, name = snapshot.name.split("/")
    rules = RULES.get(snapshot.name, NO_RULES)
    price = PRICES.get(snapshot.name)
    return EmulatedModel(
        owner=owner,
        name=name,
        description="Made from a snapshot of its input schema",
        properties=properties,
        required=required,
        get_format=functools.partial(
            derive_clip_format,
            model=name,
            ratio_follows_start=rules.ratio_follows_start,
            has_sound=rules.has_sound,
        ),
        run_s=_RUN_S,
        price=price.compute if price else _compute_unknown_price,
        find_conflict=rules.find_conflict,
        get_billing_metrics=_get_billing_metrics,
        start_images=find_first_frames(properties),
        end_images=find_last_frames(properties),
        other_files=find_other_files(properties),
        version=version if snapshot.is_official is False else None,
        published_version=version,
        document=document,
    )


def _get_billing_metrics(inputs: Inputs) -> dict[str, Any]:
    """Return what an official model is billed by, with the length in seconds in whatever form it was asked for."""
    billed: dict[str, Any] = {
        "video_output_count": 1,
        "video_output_duration_seconds": float(find_duration_s(inputs)),
    }
    names = {"resolution": "resolution_target", "quality": "resolution_target", "mode": "model_variant"}
    billed |= {metric: inputs[name] for name, metric in names.items() if name in inputs}
    audio = find_audio(inputs)
    if audio is not None:
        billed["with_audio"] = audio
    return billed


def _compute_unknown_price(_inputs: Inputs) -> Decimal | None:
    return None
