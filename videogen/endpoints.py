"""What Replicate says of a model's endpoint: the inputs that it takes, and snapshots kept of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from videogen.documents import read_source_file
from videogen.errors import ValidationError

MAX_NESTED = 8
_REFERRING = ("$ref", "allOf", "anyOf", "oneOf")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


class Endpoint(BaseModel):
    """A model as `GET /v1/models/{owner}/{name}` and `GET …/versions/{id}` describe it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """`owner/name`."""
    is_official: bool | None = None
    """Whether it is run by name; a community model is run by version. None where Replicate does not say."""
    latest_version: str | None
    openapi_schemas: dict[str, dict[str, Any]]
    """The OpenAPI document of each version that was looked at and is there, by its id."""

    def read_inputs(self, version: str | None) -> "EndpointInputs | None":
        """What that version takes, by default the latest; None where it is not there, or tells no inputs."""
        document = self.openapi_schemas.get(version or self.latest_version or "")
        return None if document is None else _read_inputs(document)


class InputSchema(BaseModel):
    """What an endpoint says of one input; what it does not say is None."""

    model_config = ConfigDict(frozen=True)

    type: str | None = None
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    format: str | None = None
    items: "InputSchema | None" = None
    max_items: int | None = Field(None, alias="maxItems")
    deprecated: bool = False
    description: str = ""

    @property
    def takes_file(self) -> bool:
        """Whether it wants the address of a file."""
        return self.type == "string" and self.format == "uri"

    def accepts(self, value: Any) -> bool:
        """Whether the endpoint lets this value in."""
        if not self._is_of_type(value):
            return False
        if self.enum is not None:
            return value in self.enum
        if self.takes_file:
            return _is_address(value)
        return not isinstance(value, int | float) or self.covers(value, value)

    def covers(self, low: float, high: float) -> bool:
        """Whether numbers from `low` to `high` are within its range."""
        return (self.minimum is None or low >= self.minimum) and (self.maximum is None or high <= self.maximum)

    def _is_of_type(self, value: Any) -> bool:
        if self.type is None or self.type not in _TYPES:
            return True
        if isinstance(value, bool):
            return self.type == "boolean"
        if self.type == "integer" and isinstance(value, float):
            return value.is_integer()
        return isinstance(value, _TYPES[self.type])

    def __str__(self) -> str:
        """What it takes, in words: `one of 5, 10`."""
        if self.enum is not None:
            return f"one of {', '.join(json.dumps(entry, ensure_ascii=False) for entry in self.enum)}"
        if self.type == "array":
            most = "" if self.max_items is None else f" of at most {self.max_items}"
            return f"a list{most}, each {self.items or 'anything'}"
        kind = "the address of a file" if self.takes_file else _NAMES.get(self.type or "", "anything")
        return " ".join([kind, *self._range()])

    def _range(self) -> Iterator[str]:
        if self.minimum is not None:
            yield f"from {self.minimum:g}"
        if self.maximum is not None:
            yield f"up to {self.maximum:g}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))


_NAMES = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}


@dataclass(frozen=True, slots=True)
class EndpointInputs:
    """The inputs of one version, by name, and the names of those that it does not do without."""

    schemas: Mapping[str, InputSchema]
    required: tuple[str, ...]


def _read_inputs(document: Mapping[str, Any]) -> EndpointInputs | None:
    """The inputs in an OpenAPI document as cog writes it; None where there are none to be read."""
    components = _as_table(_as_table(document.get("components")).get("schemas"))
    wanted = _as_table(components.get("Input"))
    required = wanted.get("required", [])
    try:
        schemas = {
            name: InputSchema.model_validate(_flatten(_as_table(plain), components))
            for name, plain in _as_table(wanted.get("properties")).items()
        }
    except PydanticError:
        return None
    if not schemas or not isinstance(required, list):
        return None
    return EndpointInputs(schemas, tuple(str(name) for name in required))


def _flatten(schema: Mapping[str, Any], components: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The schema with all it refers to in one table: cog keeps enums apart and wraps what may be null."""
    if depth > MAX_NESTED:
        return {}
    flat: dict[str, Any] = {}
    for part in _iterate_referred(schema, components):
        flat |= _flatten(part, components, depth + 1)
    flat |= {key: value for key, value in schema.items() if key not in _REFERRING and value is not None}
    if isinstance(flat.get("type"), list):  # OpenAPI 3.1
        kinds = [kind for kind in flat["type"] if kind != "null"]
        flat["type"] = kinds[0] if len(kinds) == 1 else None
    if isinstance(flat.get("items"), dict):
        flat["items"] = _flatten(flat["items"], components, depth + 1)
    return flat


def _iterate_referred(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(name := schema.get("$ref"), str):
        yield _as_table(components.get(name.rpartition("/")[2]))
    yield from map(_as_table, _as_list(schema.get("allOf")))
    for either in ("anyOf", "oneOf"):
        alternatives = [part for part in map(_as_table, _as_list(schema.get(either))) if part.get("type") != "null"]
        if len(alternatives) == 1:  # of several any may be meant: nothing is known
            yield alternatives[0]


def _as_table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# -- snapshots --------------------------------------------------------------------------------------------------------


class Snapshots:
    """A folder with a JSON file for each endpoint, `owner/name.json`."""

    def __init__(self, folder: Path | None = None) -> None:
        """By default the folder that came with videogen."""
        self.folder = folder or _find_shipped_folder()

    def read(self, name: str) -> Endpoint | None:
        """What was kept of `owner/name`, or None. Raises `ValidationError` where the file is no snapshot."""
        path = self._path(name)
        return read_source_file(path).parse(Endpoint) if path.exists() else None

    def write(self, endpoint: Endpoint) -> None:
        """Keeps it in place of an older one. Raises `ValidationError` where that cannot be written."""
        path = self._path(endpoint.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text(endpoint), encoding="utf-8")
        except OSError as exc:
            raise ValidationError(f"cannot write {path}: {exc.strerror or exc}") from None

    @classmethod
    def text(cls, endpoint: Endpoint) -> str:
        """The file's content: the same for the same schema, whatever the order in which it came."""
        return json.dumps(endpoint.model_dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _find_shipped_folder() -> Path:
    """In the wheel beside this module, in a checkout among the cassettes."""
    packaged = Path(__file__).with_name("snapshots")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "cassettes" / "schemas"
