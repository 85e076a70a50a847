"""Snapshots of input schemas, from which the emulator makes the models that its catalogue does not define.

A snapshot is the file `OWNER/NAME.json` that `videogen models check --snapshot` saves. The emulator reads it without
videogen's own reader, because it shares nothing with what it is to prove.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from videogen.emulator.schemas import Property
from videogen.errors import InvalidError

_MAX_NESTED = 8
_REFERRING = ("$ref", "allOf", "anyOf", "oneOf")


class SnapshotError(InvalidError):
    """A folder of snapshots or a file in it cannot be read; the message names it."""


class Snapshot(BaseModel):
    """The content of a snapshot."""

    model_config = ConfigDict(frozen=True)

    name: str
    """`owner/name`."""
    is_official: bool | None = None
    latest_version: str | None = None
    openapi_schemas: dict[str, dict[str, Any]]
    """The OpenAPI document of each version, by version id."""


class PublishedInputs(NamedTuple):
    """The inputs of a version in the order of publication, and the names of the required ones."""

    properties: Mapping[str, Property]
    required: tuple[str, ...]


def find_shipped_folder() -> Path:
    """Return the folder of the shipped snapshots: in the package in a wheel, among the cassettes in a checkout."""
    packaged = Path(__file__).parents[1] / "snapshots"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "cassettes" / "schemas"


def read_snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots of a folder by name.

    Raises:
        SnapshotError: the folder does not exist, or a file in it is not a snapshot.
    """
    if not folder.is_dir():
        raise SnapshotError(
            f"{folder}: there is no such folder of schemas; `videogen models check --snapshot` makes it"
        )
    return [_read_snapshot(path) for path in sorted(folder.glob("*/*.json"))]


def _read_snapshot(path: Path) -> Snapshot:
    try:
        snapshot = Snapshot.model_validate(json.loads(path.read_bytes()))
    except OSError as exc:
        raise SnapshotError(f"{path}: cannot be read: {exc.strerror or exc}") from None
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise SnapshotError(f"{path}: is not a snapshot of a schema: {place or 'the file'}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise SnapshotError(f"{path}: is not a snapshot of a schema: it is not JSON") from None
    if snapshot.name != f"{path.parent.name}/{path.stem}":
        raise SnapshotError(f"{path}: has the schema of {snapshot.name}; name the file {snapshot.name}.json")
    return snapshot


def read_inputs(document: Mapping[str, Any]) -> PublishedInputs:
    """Return the inputs in a version's OpenAPI document, each with all schemas that it refers to merged into it."""
    components = _as_table(_as_table(document.get("components")).get("schemas"))
    wanted = _as_table(components.get("Input"))
    properties = {
        name: _flatten(_as_table(plain), components) for name, plain in _as_table(wanted.get("properties")).items()
    }
    ordered = dict(sorted(properties.items(), key=lambda item: _get_order(item[1])))
    return PublishedInputs(ordered, tuple(name for name in _as_list(wanted.get("required")) if name in properties))


def _get_order(plain: Property) -> int:
    order = plain.get("x-order")
    return order if isinstance(order, int) else 0


def _flatten(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int = 0) -> Property:
    """Return the schema merged with those that it refers to; cog puts enums into schemas of their own."""
    if depth > _MAX_NESTED:
        return {}
    flat: Property = {}
    for part in _iterate_referred(schema, components):
        flat |= _flatten(part, components, depth + 1)
    flat |= {key: value for key, value in schema.items() if key not in _REFERRING}
    kinds = _as_list(flat.get("type"))  # OpenAPI 3.1
    if kinds:
        plain_kinds = [kind for kind in kinds if kind != "null"]
        flat |= {"type": plain_kinds[0] if len(plain_kinds) == 1 else None, "nullable": "null" in kinds}
    if any(_as_table(part).get("type") == "null" for part in _as_list(schema.get("anyOf"))):
        flat["nullable"] = True
    if "items" in flat:
        flat["items"] = _flatten(_as_table(flat["items"]), components, depth + 1)
    return {key: value for key, value in flat.items() if value is not None}


def _iterate_referred(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(name := schema.get("$ref"), str):
        yield _as_table(components.get(name.rpartition("/")[2]))
    yield from map(_as_table, _as_list(schema.get("allOf")))
    for either in ("anyOf", "oneOf"):
        alternatives = [part for part in map(_as_table, _as_list(schema.get(either))) if part.get("type") != "null"]
        if len(alternatives) == 1:
            yield alternatives[0]


def _as_table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
