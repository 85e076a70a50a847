"""Write values and comments of TOML, one line each."""

import json
import re
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from videogen.text import escape_unprintable

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
WIDTH = 120


def write_value(value: Any) -> str:
    """Return a text, number, boolean, list or table as TOML on one line."""
    if isinstance(value, Mapping):
        entries = ", ".join(f"{write_key(name)} = {write_value(each)}" for name, each in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def write_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else write_value(name)


def write_line(name: str, value: Any, comment: str = "") -> str:
    """Return `name = value`, with a comment behind it."""
    remark = f"    # {make_comment_text(comment)}" if comment else ""
    return f"{write_key(name)} = {write_value(value)}{remark}"


def write_comment(text: str) -> Iterator[str]:
    """Yield the lines of a comment."""
    for line in wrap(make_comment_text(text), WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def make_comment_text(text: str) -> str:
    """Return a text of others on one line, without characters that a comment cannot have."""
    return escape_unprintable(" ".join(text.split())).replace("\x7f", "")
