"""Sanitize a server's answers, so that no text, number or nesting breaks a database, a terminal or this program."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

MOST_CHARACTERS = 2_000
"""Limit for a text that is kept or shown."""
MOST_KEPT = 200_000
"""Limit for a whole answer that is kept for inspection, in characters."""
MOST_DEPTH = 16
MOST_DIGITS = 300
CUT = "…"

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that are not text: NUL (PostgreSQL refuses it), control characters for terminals, and unpaired
surrogates (not valid in UTF-8). Tabs and line ends are allowed."""
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body. NaN, infinities and numbers of hundreds of digits become None.

    Bytes that are not UTF-8 become U+FFFD, so that one of them in a message does not hide a whole prediction.

    Raises:
        ValueError: the body is not JSON, or is nested too deeply.
    """
    text = body.decode("utf-8-sig", errors="replace")
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_int=_read_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read_int(digits: str) -> int | None:
    return int(digits) if len(digits) <= MOST_DIGITS else None


def make_text_safe(text: str, *, most: int = MOST_CHARACTERS) -> str:
    """Return the text with U+FFFD for control characters, cut to `most` characters."""
    if len(text) > most:
        text = text[: most - len(CUT)] + CUT
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def make_encodable(text: str) -> str:
    """Return the text with U+FFFD for unpaired surrogates, and otherwise unchanged."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def bound_value(value: Any, *, most: int = MOST_KEPT, clean: Callable[[str], str] = make_text_safe) -> Any:
    """Return a copy of a JSON value with its texts cleaned, limited to a depth of `MOST_DEPTH` and about `most`
    characters. Numbers that databases refuse become None."""
    left = most

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 16  # as numbers and brackets take about
        if isinstance(value, str):
            text = clean(value)
            left -= len(text)
            return text
        if isinstance(value, dict | list):
            return copy_all(value, depth - 1) if depth else CUT
        return value if isinstance(value, bool) or not isinstance(value, int | float) else _bound_number(value)

    def copy_all(value: dict[str, Any] | list[Any], depth: int) -> Any:
        if isinstance(value, list):
            return [copy(item, depth) for item in value if left > 0]
        return {copy(name, 0): copy(item, depth) for name, item in value.items() if left > 0}

    return copy(value, MOST_DEPTH)


def _bound_number(value: float) -> float | None:
    return value if math.isfinite(value) and abs(value) < 2**63 else None


def read_number(value: Any, *, most: float) -> float | None:
    """Return a number from 0 to `most`, also from its digits as text, or None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= most else None
