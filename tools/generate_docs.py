"""Generate files from the types: schemas/*.json and the table in docs/environment.md.

`just generate` writes them; test_generated.py fails if they are out of date.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from videogen.job.model import Job
from videogen.registry.model_spec import Registry
from videogen.settings import Settings, get_variable_names

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / "docs" / "environment.md"
BEGIN, END = "<!-- settings: written by `just generate` -->", "<!-- end of settings -->"
Schema = dict[str, Any]


def make_files() -> dict[Path, str]:
    """Return the content of each generated file, by its path."""
    return {
        ROOT / "schemas" / "job.schema.json": _dump(_make_schema(Job, "A videogen job")),
        ENVIRONMENT: _insert_settings(ENVIRONMENT.read_text(encoding="utf-8")),
        ROOT / "schemas" / "models.schema.json": _dump(
            _allow_partial(_make_schema(Registry, "Video models for videogen"))
        ),
    }


def _make_schema(type_: type[BaseModel], title: str) -> Schema:
    schema = _tidy(type_.model_json_schema(schema_generator=_DescribedSchema))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


class _DescribedSchema(GenerateJsonSchema):
    """Describes each field by the docstring below it.

    Pydantic would read the docstrings when a class is made, which takes a tenth of the time of a short command.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        found = super().model_schema(schema)
        properties = self.resolve_ref_schema(found).get("properties", {})
        for class_ in reversed(schema["cls"].__mro__):
            if issubclass(class_, BaseModel) and class_ is not BaseModel:
                for name, text in _read_field_docstrings(class_).items():
                    if name in properties:
                        properties[name].setdefault("description", text)
        return found


def _read_field_docstrings(model: type) -> dict[str, str]:
    """Return the docstring below each annotated name in the body of a class."""
    (class_,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(class_, ast.ClassDef)
    found = {}
    for field, below in zip(class_.body, class_.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found


def _tidy(node: Any) -> Any:
    """Return the schema without titles that repeat names and without null, which TOML does not have.

    Tables with patterns for names allow no other names.
    """
    if isinstance(node, list):
        return [_tidy(each) for each in node if each != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    kept = {name: _tidy(each) for name, each in node.items() if not (name == "title" and isinstance(each, str))}
    kept = {name: each for name, each in kept.items() if (name, each) != ("default", None) and name != "discriminator"}
    if isinstance(text := kept.get("description"), str):
        kept["description"] = _adapt_description(text)
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if len(kept.get("anyOf", ())) == 1:
        kept |= kept.pop("anyOf")[0]
    return kept


def _allow_partial(node: Any) -> Any:
    """Return the schema for a file that may change single values of a shipped model, so that nothing is required."""
    if isinstance(node, list):
        return [_allow_partial(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: _allow_partial(each) for name, each in node.items() if not (name == "required" and isinstance(each, list))
    }
    if "oneOf" in kept:  # without its `mode` a duration may be of either kind
        kept["anyOf"] = kept.pop("oneOf")
    return kept


def _adapt_description(text: str) -> str:
    """Return a docstring with "left out" for None, which TOML files and variables do not have."""
    text = re.sub(r"\bNone (?=means|leaves|where)", "left out ", " ".join(text.split()))
    return text[:1].upper() + text[1:] if text.startswith("left out") else text


def _insert_settings(page: str) -> str:
    """Return the page with the table of environment variables that `Settings` declares."""
    start, rest = page.split(BEGIN)
    _, end = rest.split(END)
    rows = [f"| `{name}` | {text} |" for name, text in _list_settings()]
    return "\n".join([f"{start}{BEGIN}", "", "| variable | |", "| --- | --- |", *rows, "", f"{END}{end}"])


def _list_settings() -> Iterator[tuple[str, str]]:
    for name, variable in get_variable_names().items():
        field = Settings.model_fields[name]
        text = _adapt_description(field.description or "").rstrip(".").replace("left out", "unset")
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        yield variable, text if default is None else f"{text}; `{default}` by default"


def _dump(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in make_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
