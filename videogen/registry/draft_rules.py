"""Understand the rules that the descriptions of a schema put into words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from videogen.registry.draft_inputs import Guess
from videogen.registry.endpoint_schema import InputSchema
from videogen.registry.tables import Inputs, to_plain_number

_RULE = re.compile(
    r"\b(only|ignored|must|not|cannot|can't|requires?d?|needs?|unless|without|at most|up to|maximum|"
    r"multiple of|supports?|or -1|add up)\b",
    re.IGNORECASE,
)
_CHARACTERS = re.compile(r"(\d[\d,]{1,8}) (?:characters|chars)", re.IGNORECASE)
_LENGTH_ONLY_WITH = re.compile(
    r"^(\d+) seconds? (?:is |are )?(?:only )?(?:available )?(only )?(?:with|for) (.+)$", re.IGNORECASE
)
_LENGTH_NOT_WITH = re.compile(r"^(\d+) seconds? (?:is |are )?not (?:available )?(?:with|for) (.+)$", re.IGNORECASE)
_ONLY_WITH_LENGTH = re.compile(
    r"^(\S+) (?:only (?:with|for)|supports only|(?:is )?only (?:available )?(?:with|for)) (?:an? )?(\d+)[ -]second",
    re.IGNORECASE,
)
_MUST_BE_WITH_FRAME = re.compile(r"^must be (\S+) with a (?:first|start)", re.IGNORECASE)


def is_rule(description: str) -> bool:
    """Return whether a description may restrict the values of an input."""
    return bool(_RULE.search(description))


def find_longest_prompt(schema: InputSchema) -> int | None:
    """Return the most characters that a prompt may have, by the schema or its words."""
    if schema.max_length:
        return schema.max_length
    found = _CHARACTERS.search(schema.description)
    return int(found[1].replace(",", "")) or None if found else None


def find_rules(
    known: Mapping[str, InputSchema],
    parameters: Mapping[str, str],
    qualities: Mapping[str, Any],
    shape: Mapping[str, Any],
    length: Guess,
) -> Iterator[dict[str, Any]]:
    """Yield the conditions of those rules that are understood.

    Args:
        known: the inputs by name.
        parameters: the inputs for the fields of a scene, by field.
        qualities: the values of the input for the quality, under its name.
        shape: the values of the input for the ratio, by ratio, under its name.
        length: the lengths.
    """
    for name, schema in known.items():
        for sentence in re.split(r"\.\s+|\.$|;\s*", schema.description):
            yield from _read_sentence(name, sentence.strip(), parameters, qualities, shape, length)


def _read_sentence(
    name: str,
    sentence: str,
    parameters: Mapping[str, str],
    qualities: Mapping[str, Any],
    shape: Mapping[str, Any],
    length: Guess,
) -> Iterator[dict[str, Any]]:
    if found := _LENGTH_NOT_WITH.match(sentence):
        rest = [to_plain_number(seconds) for seconds in length.seconds if seconds != float(found[1])]
        if rest and len(rest) < len(length.seconds):
            yield from _forbid(rest, re.split(r",\s*| or | and ", found[2]), parameters, qualities)
    elif (found := _LENGTH_ONLY_WITH.match(sentence)) and "only" in sentence.lower():
        values = re.split(r",\s*| or | and ", found[3])
        allowed = _find_quality(values[0], qualities)
        if len(values) == 1 and allowed and float(found[1]) in length.seconds:
            yield {"seconds": int(found[1]), "send": allowed}
    elif found := _ONLY_WITH_LENGTH.match(sentence):
        restricted = _find_quality(found[1], qualities)
        if restricted and float(found[2]) in length.seconds:
            yield {"inputs": restricted, "lengths": [int(found[2])]}
    elif (found := _MUST_BE_WITH_FRAME.match(sentence)) and "image" in parameters and found[1] in shape.get(name, ()):
        yield {"start_image": True, "send": {name: found[1]}}


def _forbid(
    rest: list[int | float], values: list[str], parameters: Mapping[str, str], qualities: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for value in values:
        field = next((field for field, name in parameters.items() if name == value), None)
        if field in ("image", "end_image"):
            yield {"start_image" if field == "image" else "end_image": True, "lengths": rest}
        elif restricted := _find_quality(value, qualities):
            yield {"inputs": restricted, "lengths": rest}


def _find_quality(value: str, qualities: Mapping[str, Any]) -> Inputs | None:
    """Return the input that asks for the quality of this name, or None."""
    for name, values in qualities.items():
        for each in values:
            if str(each).lower() == value.lower():
                return {name: each}
    return None
