"""Input schemas of the models' endpoints as Replicate describes them, and saved snapshots of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError

from videogen.errors import ValidationError
from videogen.source_files.document import read_source_file

MAX_NESTED = 8
MAX_INPUTS = 10_000
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
    """Whether it is run by name; a community model is run by version. None if Replicate does not say."""
    latest_version: str | None
    openapi_schemas: dict[str, dict[str, Any]]
    """The OpenAPI document of each version that was found, by version id."""

    def read_inputs(self, version: str | None) -> "EndpointInputs | None":
        """Return the inputs of a version, by default the latest; None if it does not exist or describes no inputs."""
        document = self.openapi_schemas.get(version or self.latest_version or "")
        return None if document is None else _read_inputs(document)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model in one of Replicate's collections."""

    name: str
    """`owner/name`."""
    description: str
    is_official: bool


class InputSchema(BaseModel):
    """The schema of one input; None for each property that the endpoint does not specify."""

    model_config = ConfigDict(frozen=True)

    type: str | None = None
    enum: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    format: str | None = None
    items: "InputSchema | None" = None
    max_items: int | None = Field(None, alias="maxItems")
    max_length: int | None = Field(None, alias="maxLength")
    """Most characters of a text."""
    default: Any = None
    order: int = Field(MAX_INPUTS, alias="x-order")
    """Position among the inputs, as the author of the model wrote them."""
    deprecated: bool = False
    description: str = ""

    @property
    def takes_file(self) -> bool:
        """Whether the input takes the address of a file."""
        return self.type == "string" and self.format == "uri"

    def accepts(self, value: Any) -> bool:
        """Return whether the endpoint accepts this value."""
        if not self._is_of_type(value):
            return False
        if self.enum is not None:
            return value in self.enum
        if self.takes_file:
            return _is_address(value)
        return not isinstance(value, int | float) or self.covers(value, value)

    def covers(self, low: float, high: float) -> bool:
        """Return whether all numbers from `low` to `high` are within the range of the input."""
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
        """Return a description of the accepted values, such as `one of 5, 10`."""
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
    """The inputs of one version, by name, and the names of the required ones."""

    schemas: Mapping[str, InputSchema]
    required: tuple[str, ...]


def _read_inputs(document: Mapping[str, Any]) -> EndpointInputs | None:
    """Return the inputs in an OpenAPI document as cog writes it, or None if there are none or they are malformed."""
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
    """Return the schema merged with all schemas that it refers to.

    cog puts enums into schemas of their own, and wraps nullable types.
    """
    if depth > MAX_NESTED:
        return {}
    flat: dict[str, Any] = {}
    for part in _iterate_referred(schema, components):
        flat |= _flatten(part, components, depth + 1)
    flat |= {key: value for key, value in schema.items() if key not in _REFERRING and value is not None}
    if isinstance(flat.get("type"), list):  # OpenAPI 3.1
        kinds = [kind for kind in flat["type"] if kind != "null"]
        flat["type"] = kinds[0] if len(kinds) == 1 else None
    if isinstance(flat.get("enum"), list):  # null, in an enum that can be left out, is no value to choose
        flat["enum"] = [value for value in flat["enum"] if value is not None]
    if isinstance(flat.get("items"), dict):
        flat["items"] = _flatten(flat["items"], components, depth + 1)
    return flat


def _iterate_referred(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(name := schema.get("$ref"), str):
        yield _as_table(components.get(name.rpartition("/")[2]))
    yield from map(_as_table, _as_list(schema.get("allOf")))
    for either in ("anyOf", "oneOf"):
        alternatives = [part for part in map(_as_table, _as_list(schema.get(either))) if part.get("type") != "null"]
        if len(alternatives) == 1:  # with several alternatives nothing is certain
            yield alternatives[0]


def _as_table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_schema_file(path: Path, name: str) -> Endpoint:
    """Return the endpoint `owner/name` from a file with its schema.

    The file is a snapshot, the answer of Replicate about the model or its version, an OpenAPI document, or the schema
    of the inputs alone.

    Raises:
        ValidationError: the file is none of these, or a snapshot of another model.
    """
    source = read_source_file(path)
    found = _as_table(source.data)
    if "openapi_schemas" in found:
        endpoint = source.parse(Endpoint)
        if endpoint.name != name:
            raise ValidationError(f"{path.name} is a snapshot of {endpoint.name}, not of {name}")
        return endpoint
    official = found.get("is_official")
    found = _as_table(found.get("latest_version")) or found
    version = found.get("id") if "openapi_schema" in found else None
    found = _as_table(found.get("openapi_schema")) or found
    if "properties" in found:
        defined = {**_as_table(found.get("$defs")), **_as_table(found.get("definitions"))}
        found = {"components": {"schemas": {**defined, "Input": found}}}
    endpoint = Endpoint(
        name=name,
        is_official=official if isinstance(official, bool) else None,
        latest_version=version if isinstance(version, str) else None,
        openapi_schemas={version if isinstance(version, str) else "": found},
    )
    if endpoint.read_inputs(None) is None:
        raise ValidationError(
            f"{path.name} describes no inputs: give a snapshot, an OpenAPI document or an Input schema"
        )
    return endpoint


# -- snapshots --------------------------------------------------------------------------------------------------------


def get_own_folder(registry: Path) -> Path:
    """Return the folder of snapshots beside a registry file of the user's own."""
    return registry.parent / "schemas"


class Snapshots:
    """A folder with a JSON file for each endpoint, `owner/name.json`."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use `folder`, by default the one that is shipped with videogen."""
        self.folder = folder or _find_shipped_folder()

    def read(self, name: str) -> Endpoint | None:
        """Return the snapshot of `owner/name`, or None. Raise `ValidationError` if the file is not a snapshot."""
        path = self._path(name)
        return read_source_file(path).parse(Endpoint) if path.exists() else None

    def write(self, endpoint: Endpoint) -> None:
        """Save a snapshot, replacing an older one. Raise `ValidationError` if the file cannot be written."""
        path = self._path(endpoint.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text(endpoint), encoding="utf-8")
        except OSError as exc:
            raise ValidationError(f"cannot write {path}: {exc.strerror or exc}") from None

    @classmethod
    def text(cls, endpoint: Endpoint) -> str:
        """Return the content of the file, which does not depend on the order of the schema's keys."""
        return json.dumps(endpoint.model_dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _find_shipped_folder() -> Path:
    """Return the folder of snapshots: beside this module in a wheel, among the cassettes in a checkout."""
    packaged = Path(__file__).parents[1] / "snapshots"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "cassettes" / "schemas"
