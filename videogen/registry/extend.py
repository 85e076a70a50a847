"""Merge the tables of models: a user's own into the shipped ones, and a model into the one that it extends."""

from collections.abc import Mapping
from typing import Any

from videogen.source_files.messages import Loc, did_you_mean, make_nested_value_error

_PRICES = ("per_second", "per_clip", "per_gpu_second", "rows")
_LENGTHS = ("sizes", "steps", "frames")


def merge_tables(base: Any, own: Any) -> Any:
    """Return `base` with `own` merged into it.

    Tables are merged, other values are replaced. Where keys exclude each other, only those of `own` are kept, and tiers
    are replaced as a whole, for the prices are those of certain tiers.
    """
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    if {base.get("mode"), own.get("mode")} == {"discrete", "continuous"}:
        return own
    for names in (_PRICES, _LENGTHS):
        if any(name in own for name in names):
            base = {name: value for name, value in base.items() if name in own or name not in names}
    if "tiers" in own:
        base = {name: value for name, value in base.items() if name != "tiers"}
    return {**base, **{name: merge_tables(base.get(name), value) for name, value in own.items()}}


def resolve_extends(models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of all models, each merged into that of the model it extends.

    Raises:
        PydanticCustomError: a model extends one that is not there, or itself.
    """
    wrong: dict[Loc, str] = {}
    resolved = {name: _resolve(name, models, wrong, ()) for name in models}
    if wrong:
        raise make_nested_value_error(wrong)
    return resolved


def _resolve(name: str, models: Mapping[str, Any], wrong: dict[Loc, str], children: tuple[str, ...]) -> Any:
    own = models[name]
    parent = own.get("extends") if isinstance(own, dict) else None
    if not isinstance(parent, str):
        return own
    loc = ("models", name, "extends")
    if parent not in models:
        wrong[loc] = f"{parent!r} is not in the registry{did_you_mean(parent, models)}"
        return own
    if parent in (name, *children):
        wrong[loc] = f"{name} extends itself, by way of {parent}"
        return own
    base = _resolve(parent, models, wrong, (name, *children))
    if "replicate" in own and isinstance(base, dict):  # another endpoint, which does not retire with that one
        base = {field: value for field, value in base.items() if field not in ("retires", "successor")}
    return merge_tables(base, own)
