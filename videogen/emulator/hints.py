"""Hints that the emulator adds to the live API's 404 and 405 errors."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

Route = tuple[str, str]
"""Method and path; `{name}` in a path matches any segment."""

_MIN_SIMILARITY = 0.75
_MAX_QUOTED_CHARS = 200


def make_unknown_route_hint(method: str, path: str, routes: Sequence[Route]) -> str:
    """Return a hint for an unknown route that names the request, the closest route and all routes."""
    meant = _find_closest_route(method, path, routes)
    question = f"; did you mean {' '.join(meant)}?" if meant else "."
    known = ", ".join(" ".join(route) for route in routes)
    return f"The emulator does not know {method} {path[:_MAX_QUOTED_CHARS]}{question} It knows {known}."


def make_unknown_model_hint(name: str, models: Iterable[str]) -> str:
    """Return a hint for an unknown model that names the closest model and says how to add one."""
    close = get_close_matches(name.lower(), sorted(models), n=1)
    question = f"; did you mean {close[0]!r}?" if close else "."
    return (
        f"The emulator has no model {name[:_MAX_QUOTED_CHARS]!r}{question} To add it, save its input schema with "
        "`videogen models check --snapshot MODEL`, or give --schemas a folder that has it. GET /v1/models lists the "
        "models that there are."
    )


def _find_closest_route(method: str, path: str, routes: Sequence[Route]) -> Route | None:
    asked = [segment for segment in path.split("/") if segment not in ("", "v1")]
    found = [(_rate_similarity(asked, template), (name, template)) for name, template in routes if name == method]
    best, route = max(found, default=(0.0, None))
    return route if best else None


def _rate_similarity(asked: Sequence[str], template: str) -> float:
    """Return the similarity of a path and a template, from 0 (one of their segments differs too much) to 1."""
    wanted = template.split("/")[2:]
    if not asked or len(asked) != len(wanted):
        return 0.0
    alike = [
        1.0 if segment.startswith("{") else SequenceMatcher(None, given, segment).ratio()
        for given, segment in zip(asked, wanted, strict=True)
    ]
    return sum(alike) / len(alike) if min(alike) >= _MIN_SIMILARITY else 0.0
