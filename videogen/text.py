"""Text as people read it."""

import re
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
    return f"${usd:.{max(2, -int(exponent))}f}"
