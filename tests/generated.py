"""Writes what follows from the types: schemas/*.json and the table in docs/environment.md.

`just generate` writes them anew; test_generated.py says when that is due.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from videogen.registry import Registry
from videogen.scene import Job
from videogen.settings import Settings, get_variable_names

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / "docs" / "environment.md"
BEGIN, END = "<!-- settings: written by `just generate` -->", "<!-- end of settings -->"
Schema = dict[str, Any]


def files() -> dict[Path, str]:
    """What each generated file should say."""
    return {
        ROOT / "schemas" / "job.schema.json": _text(_schema(Job, "A videogen job")),
        ENVIRONMENT: _with_settings(ENVIRONMENT.read_text(encoding="utf-8")),
        ROOT / "schemas" / "models.schema.json": _text(_extending(_schema(Registry, "Video models for videogen"))),
    }


def _schema(type_: type[BaseModel], title: str) -> Schema:
    schema = _tidied(type_.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _tidied(node: Any) -> Any:
    """Without titles that only repeat names, without null, which no TOML file can say, and closed where names are."""
    if isinstance(node, list):
        return [_tidied(each) for each in node if each != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    kept = {name: _tidied(each) for name, each in node.items() if not (name == "title" and isinstance(each, str))}
    kept = {name: each for name, each in kept.items() if (name, each) != ("default", None) and name != "discriminator"}
    if isinstance(text := kept.get("description"), str):
        kept["description"] = _in_a_file(text)
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if len(kept.get("anyOf", ())) == 1:
        kept |= kept.pop("anyOf")[0]
    return kept


def _extending(node: Any) -> Any:
    """The schema for a file that need not say everything, since it may change single values of a shipped model."""
    if isinstance(node, list):
        return [_extending(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: _extending(each) for name, each in node.items() if not (name == "required" and isinstance(each, list))
    }
    if "oneOf" in kept:  # without its `mode` a duration may be of either kind
        kept["anyOf"] = kept.pop("oneOf")
    return kept


def _in_a_file(text: str) -> str:
    """A docstring's words for who writes TOML or sets variables, who knows no None."""
    text = re.sub(r"\bNone (?=means|leaves|where)", "left out ", " ".join(text.split()))
    return text[:1].upper() + text[1:] if text.startswith("left out") else text


def _with_settings(page: str) -> str:
    """Return the page with the table of environment variables that `Settings` declares."""
    start, rest = page.split(BEGIN)
    _, end = rest.split(END)
    rows = [f"| `{name}` | {text} |" for name, text in _settings()]
    return "\n".join([f"{start}{BEGIN}", "", "| variable | |", "| --- | --- |", *rows, "", f"{END}{end}"])


def _settings() -> Iterator[tuple[str, str]]:
    for name, variable in get_variable_names().items():
        field = Settings.model_fields[name]
        text = _in_a_file(field.description or "").rstrip(".").replace("left out", "unset")
        yield variable, text if field.default is None else f"{text}; `{field.default}` by default"


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
