"""Text as people read it."""

import re
from decimal import Decimal


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
