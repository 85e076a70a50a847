"""Text as people read it."""

import re
from collections.abc import Sequence
from decimal import Decimal

_PLAIN_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_WHOLE_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)


def is_plain_number(text: str) -> bool:
    """Return whether a text is a number as people write it: digits and at most one point, after at most a minus.

    Python and pydantic also read `1_0`, `1e1`, ` 10`, `+10` and the digits of other scripts.
    """
    return _PLAIN_NUMBER.fullmatch(text) is not None


def is_whole_number(text: str) -> bool:
    """Return whether a text is a plain number without a point."""
    return _WHOLE_NUMBER.fullmatch(text) is not None


def escape_unprintable(text: str) -> str:
    """Return the text on one line, with line breaks and control characters as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def escape_json(text: str) -> str:
    """Return JSON text of the same value in ASCII, without characters that a terminal would interpret or not show."""
    return re.sub(r"[^\n -~]", lambda found: _escape_character(found.group()), text)


def _escape_character(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def format_money(usd: Decimal) -> str:
    """Return the amount with cents, and with fractions of them if there are any: `$0.35`, `$0.0125`."""
    exponent = usd.normalize().as_tuple().exponent
    return f"{'-' if usd < 0 else ''}${abs(usd):.{max(2, -int(exponent))}f}"


def format_duration(seconds: float) -> str:
    """Format a duration: `7.3 s`, `2 min 5 s`, `1 h 12 min`."""
    if seconds < 59.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def list_first(names: Sequence[str], *, most: int = 5, separator: str = ", ") -> str:
    """Return the first names, separated by commas or another text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


MAX_LOGGED_CHARS = 500
MIN_HIDDEN_CHARS = 8
"""A shorter text is not hidden: it says little, and is part of other words."""
_CREDENTIALS = re.compile(r"(?i)\b(?:r8_|bearer\s+)[\w.~+/-]{8,}=*")
_SECRETS_OF_ADDRESS = re.compile(r"(?i)\b(data:|[a-z][a-z0-9+.-]*://)([^\s\"'<>]+)")
_SECRET_PAIRS = re.compile(
    r"(?i)(?<![\w-])([\w-]{0,40}(?:password|passwd|token|secret|key|signature)(?:=|[\"']\s?:\s?)[\"']?)[^\s\"'&,;}]+"
)
"""Pairs such as `password=…` and `"token": "…"`."""


def make_loggable(text: object, *, hide: str = "") -> str:
    """Return text of another program, such as an error, for a log: on one line, cut, and without secrets and the text
    `hide`."""
    shown = str(text)
    if len(hide) >= MIN_HIDDEN_CHARS:
        shown = shown.replace(hide, "…")
    shown = mask_credentials(shown)
    shown = shown if len(shown) <= MAX_LOGGED_CHARS else shown[: MAX_LOGGED_CHARS - 1] + "…"
    return escape_unprintable(shown)


def mask_credentials(text: str, *, token: str = "") -> str:
    """Return the text without secrets: tokens, among them `token`, the values of pairs such as `password=…`, and the
    users, passwords, queries and fragments of addresses."""
    if len(token) >= MIN_HIDDEN_CHARS:
        text = text.replace(token, "***")
    text = _CREDENTIALS.sub("***", _SECRETS_OF_ADDRESS.sub(_shorten_address, text))
    return _SECRET_PAIRS.sub(r"\1***", text)


def _shorten_address(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    if scheme.lower() == "data:":
        return f"{scheme}…"
    place, is_cut, _ = re.sub(r"^[^/?#]*@", "", rest).partition("?")
    place, has_fragment, _ = place.partition("#")
    return f"{scheme}{place}{'?…' if is_cut or has_fragment else ''}"
