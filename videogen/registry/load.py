"""Read `models.toml`, and merge a user's own file into the shipped one."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError as PydanticError

from videogen.registry.extend import merge_tables
from videogen.registry.model_spec import Registry
from videogen.source_files.document import SourceFile, read_source_file
from videogen.source_files.messages import Loc, describe_errors, did_you_mean


def find_registry_path() -> Path:
    """Return the path of the shipped `models.toml`: beside this module in a wheel, one folder up in a checkout."""
    packaged = Path(__file__).parents[1] / "models.toml"
    return packaged if packaged.exists() else Path(__file__).parents[2] / "models.toml"


def read_registry(path: Path | None = None) -> Registry:
    """Return the shipped registry, extended and changed by the TOML file at `path`.

    Raises:
        ValidationError: with every problem, each with the file, line and column of the wrong value.
    """
    return _parse_shipped(*_get_shipped_state()) if path is None else parse_registry(load_registry_file(path))


def parse_registry(document: SourceFile) -> Registry:
    """Return the registry in a file that `load_registry_file` read. Raise the same error as `read_registry`."""
    try:
        return Registry.model_validate(document.data)
    except PydanticError as exc:
        raise document.errors_at(describe_registry_errors(exc, document)) from None


def load_registry_file(path: Path | None = None) -> SourceFile:
    """Read the shipped registry, merged with the file at `path`, without validating it.

    Raises `ValidationError` if a file is not well-formed.
    """
    shipped = _read_shipped(*_get_shipped_state())
    if path is None:
        return shipped
    own = read_source_file(path)
    return replace(own, data=merge_tables(shipped.data, own.data), base=shipped)


def _get_shipped_state() -> tuple[Path, int]:
    """Return the path of the shipped file, and when it was changed last."""
    path = find_registry_path()
    return path, path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=1)
def _read_shipped(path: Path, _changed_ns: int) -> SourceFile:
    return read_source_file(path)


@lru_cache(maxsize=1)
def _parse_shipped(path: Path, changed_ns: int) -> Registry:
    return parse_registry(_read_shipped(path, changed_ns))


def describe_registry_errors(error: PydanticError, document: SourceFile) -> list[tuple[Loc, str]]:
    """Describe the errors of a registry, as `describe_errors` does.

    An almost empty model is reported once, as a probable misspelling of a shipped model's name.
    """
    found = describe_errors(error, Registry, document.data, {})
    shipped = document.base.data["models"] if document.base else {}
    bare = {loc[:2] for loc, _ in found if len(loc) == 3 and loc[2] == "replicate" and loc[1] not in shipped}
    misspelt = {loc: text for loc in bare if (text := did_you_mean(str(loc[1]), shipped))}
    rest = [(loc, text) for loc, text in found if loc[:2] not in misspelt or text != "is required"]
    return [
        *((loc, f"is no shipped model, and no whole one of its own{text}") for loc, text in misspelt.items()),
        *rest,
    ]
