"""The syntax trees of the project's code, which the tests of its style and its imports read."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def parse_modules() -> Mapping[str, ast.Module]:
    """Return the syntax trees of `videogen` and `flows`, by the path below the repository."""
    return {
        str(path.relative_to(ROOT)): parse_code(path.read_text(encoding="utf-8"))
        for folder in ("videogen", "flows")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def parse_code(text: str) -> ast.Module:
    """Return the syntax tree of a module.

    Python 3.11 counts the depth of a tree for all threads together, and raises SystemError if another thread compiles
    something meanwhile: then the code is parsed again.
    """
    while True:
        try:
            return ast.parse(text)
        except SystemError:
            continue
