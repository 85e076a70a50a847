"""Validators for numbers and booleans, which TOML and JSON can tell from strings. pydantic also reads `"1_0"` and
`"yes"`."""

from typing import Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError


def _require_number(value: Any) -> Any:
    if isinstance(value, str | bytes | bool):
        raise PydanticKnownError("float_type")
    return value


def _require_whole_number(value: Any) -> Any:
    if isinstance(value, str | bytes | bool):
        raise PydanticKnownError("int_type")
    return value


IS_NUMBER = BeforeValidator(_require_number)
IS_WHOLE_NUMBER = BeforeValidator(_require_whole_number)
IS_BOOLEAN = Field(strict=True)
