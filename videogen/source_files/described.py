"""Models whose JSON schema describes each field by the docstring below it."""

import ast
import inspect
from textwrap import dedent
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class DescribedModel(BaseModel):
    """A model that reads the docstrings of its fields when its JSON schema is made.

    Pydantic would read them when the class is made, which takes a tenth of the time of a short command.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for parent in reversed(cls.__mro__):
            if issubclass(parent, DescribedModel) and parent is not DescribedModel:
                for name, text in _read_field_docstrings(parent).items():
                    if name in properties:
                        properties[name].setdefault("description", text)
        return schema


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
