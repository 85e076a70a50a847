"""Append a model to a registry file, without a change of the text that is there."""

import tomllib
from pathlib import Path

from videogen.errors import ValidationError
from videogen.registry.extend import merge_tables
from videogen.registry.load import find_registry_path, parse_registry
from videogen.source_files.document import SourceFile, read_source_file
from videogen.source_files.positions import is_json_file


def append_model(path: Path, text: str) -> None:
    """Append the TOML of a model to the registry file at `path`, which is created if it is missing.

    Raises:
        ValidationError: the file is no valid registry, with or without the model, or it cannot be written. It is left
            as it is.
    """
    old = read_source_file(path).text if path.exists() else ""
    if old and is_json_file(path, old):
        raise ValidationError(f"{path} is JSON: name a TOML file, to which the model can be added")
    has_crlf = path.exists() and b"\r\n" in path.read_bytes()
    new = f"{_make_gap(old)}{text}"
    _validate(path, old + new)
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(new.replace("\n", "\r\n") if has_crlf else new)
    except OSError as exc:
        raise ValidationError(f"cannot write {path}: {exc.strerror or exc}") from None


def _make_gap(old: str) -> str:
    """Return the line breaks between the text that is there and the model."""
    if not old.strip():
        return ""
    return "\n" if old.endswith("\n") else "\n\n"


def _validate(path: Path, text: str) -> None:
    """Raise `ValidationError` if the text is no registry."""
    shipped = read_source_file(find_registry_path())
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ValidationError(f"the model cannot be appended to {path}: {exc}. Add it by hand") from None
    parse_registry(SourceFile(path, text, merge_tables(shipped.data, data), base=shipped))
