"""Read a prediction from Replicate's JSON, however malformed.

Fields may be missing, null, of another type, or of a size that breaks later steps.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from videogen.providers.base import TERMINAL_STATUSES, BilledOutput, Prediction, Status
from videogen.providers.moderation import classify_failure
from videogen.providers.sanitize import bound_value, make_encodable, make_text_safe, read_number
from videogen.providers.video_outputs import find_video, is_empty
from videogen.text import mask_credentials

MOST_SECONDS = 24 * 3600.0
"""Greatest plausible duration: the prediction's own deadline ends it after a day."""
BILLED_SECONDS = (0.1, 3600.0)
"""Least and greatest plausible length of a billed video."""
BILLED_VIDEOS = 100
"""Greatest plausible number of billed videos."""
MOST_INPUT = 64 * 1024**2
YEARS = range(2000, 2200)
STATUSES: frozenset[str] = frozenset({"starting", "processing", *TERMINAL_STATUSES})
SYNONYMS: Mapping[str, Status] = {
    "cancelled": "canceled",
    "success": "succeeded",
    "successful": "succeeded",
    "complete": "succeeded",
    "completed": "succeeded",
    "error": "failed",
    "errored": "failed",
    "failure": "failed",
    "rejected": "failed",
    "expired": "canceled",
    "timeout": "canceled",
    "timed_out": "canceled",
    "terminated": "canceled",
}
"""Statuses of other servers with the same API."""
ALIAS = "odd-id-"
"""Prefix of the names that stand for ids which cannot be used as they are."""

_BILLED_NAME = re.compile(r"[\w.:+-]{1,40}", re.ASCII)
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_id(data: Mapping[str, Any]) -> str | None:
    """Return the provider's own id of a prediction, or None if the answer has none."""
    found = data.get("id")
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if found and isinstance(found, str) else None


def name_id(their_id: str) -> str:
    """Return the name of a prediction here: its id, or a name derived from it.

    A name is part of URLs and file names, and the journal keeps 64 characters of it. An id that is longer, or has other
    characters, is not cut or cleaned, because two ids could become the same, and could not be looked up.
    """
    if _USABLE_ID.fullmatch(their_id) and not their_id.startswith(ALIAS):
        return their_id
    return ALIAS + hashlib.sha256(their_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def read_prediction(their_id: str, data: Mapping[str, Any], *, token: str = "") -> Prediction:
    """Return the prediction of an answer, with all its values sanitized. Its error has no secrets, also not `token`."""
    word = data.get("status")
    word = word.strip().lower() if isinstance(word, str) else ""
    status = cast(Status, word if word in STATUSES else SYNONYMS.get(word, "processing"))
    metrics = data.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    predict_time_s = read_number(metrics.get("predict_time"), most=MOST_SECONDS) or None
    inputs, output, error = data.get("input"), data.get("output"), _read_error(data.get("error"))
    output_url = find_video(output)
    return Prediction(
        id=name_id(their_id),
        status=status,
        output_url=output_url,
        holds_no_video=output_url is None and not is_empty(output),
        error=mask_credentials(error, token=token) if error else None,
        failure=classify_failure(error or "") if status == "failed" else None,
        model=_read_name(data.get("model")) or "",
        version=_read_name(data.get("version")),
        input=bound_value(inputs, most=MOST_INPUT, clean=make_encodable) if isinstance(inputs, dict) else {},
        created_at=read_time(data.get("created_at")),
        completed_at=read_time(data.get("completed_at")),
        predict_time_s=predict_time_s,
        billed=_read_billed(metrics),
        started=_has_started(word, data) or predict_time_s is not None,
        data_removed=data.get("data_removed") is True,
        raw=bound_value(data),
    )


def _read_billed(metrics: Mapping[str, Any]) -> BilledOutput:
    """Return what the metrics say is billed. Values that cannot be true are left out.

    Source: published metrics of finished predictions of bytedance/seedance-1-lite.
    """
    least_s, most_s = BILLED_SECONDS
    seconds = read_number(metrics.get("video_output_duration_seconds"), most=most_s)
    count = read_number(metrics.get("video_output_count"), most=BILLED_VIDEOS)
    with_audio = metrics.get("with_audio")
    return BilledOutput(
        seconds=seconds if seconds is not None and seconds >= least_s else None,
        count=int(count) if count and count.is_integer() else None,
        resolution=_read_billed_name(metrics.get("resolution_target")),
        with_audio=with_audio if isinstance(with_audio, bool) else None,
        variant=_read_billed_name(metrics.get("model_variant")),
    )


def _read_billed_name(name: Any) -> str | None:
    return name if isinstance(name, str) and _BILLED_NAME.fullmatch(name) else None


def _has_started(word: str, data: Mapping[str, Any]) -> bool:
    """Return whether the prediction may have begun, and be billed. Only Replicate's own statuses certainly exclude
    it."""
    return bool(data.get("started_at")) or word not in ("starting", "canceled", "aborted")


def _read_error(error: Any) -> str | None:
    if error is None:
        return None
    return make_text_safe((error if isinstance(error, str) else str(bound_value(error))).strip()) or None


def _read_name(name: Any) -> str | None:
    return make_text_safe(name, most=200) if isinstance(name, str) else None


def read_time(value: Any) -> datetime | None:
    """Return an RFC 3339 time. Without a zone it counts as UTC, and nanoseconds are cut to microseconds."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        time = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.replace("Z", "+00:00")))
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return time if time.year in YEARS else None
