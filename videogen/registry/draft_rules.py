"""Understand the rules that the descriptions of a schema put into words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from videogen.registry.draft_inputs import Guess
from videogen.registry.endpoint_schema import InputSchema
from videogen.registry.tables import Inputs

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
    """Return whether a description may restrict what is sent."""
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
    tiers: Mapping[str, Inputs],
    shape: Mapping[str, Any],
    length: Guess,
) -> Iterator[dict[str, Any]]:
    """Yield the conditions of those rules that are understood.

    Args:
        known: the inputs by name.
        parameters: the inputs for the fields of a scene, by field.
        tiers: the inputs of each tier.
        shape: the values of the input for the ratio, by ratio, under its name.
        length: the lengths.
    """
    for name, schema in known.items():
        for sentence in re.split(r"\.\s+|\.$|;\s*", schema.description):
            yield from _read_sentence(name, sentence.strip(), parameters, tiers, shape, length)


def _read_sentence(
    name: str,
    sentence: str,
    parameters: Mapping[str, str],
    tiers: Mapping[str, Inputs],
    shape: Mapping[str, Any],
    length: Guess,
) -> Iterator[dict[str, Any]]:
    if found := _LENGTH_NOT_WITH.match(sentence):
        rest = [seconds for seconds in length.seconds if seconds != float(found[1])]
        if rest and len(rest) < len(length.seconds):
            yield from _forbid(rest, re.split(r",\s*| or | and ", found[2]), parameters, tiers)
    elif (found := _LENGTH_ONLY_WITH.match(sentence)) and "only" in sentence.lower():
        values = re.split(r",\s*| or | and ", found[3])
        allowed = _find_quality(values[0], tiers)
        if len(values) == 1 and allowed and float(found[1]) in length.seconds:
            yield {"seconds": int(found[1]), "send": allowed}
    elif found := _ONLY_WITH_LENGTH.match(sentence):
        restricted = _find_quality(found[1], tiers)
        if restricted and float(found[2]) in length.seconds:
            yield {"inputs": restricted, "lengths": [int(found[2])]}
    elif (found := _MUST_BE_WITH_FRAME.match(sentence)) and "image" in parameters and found[1] in shape.get(name, ()):
        yield {"start_image": True, "send": {name: found[1]}}


def _forbid(
    rest: list[float], values: list[str], parameters: Mapping[str, str], tiers: Mapping[str, Inputs]
) -> Iterator[dict[str, Any]]:
    for value in values:
        field = next((field for field, name in parameters.items() if name == value), None)
        if field in ("image", "end_image"):
            yield {"start_image" if field == "image" else "end_image": True, "lengths": rest}
        elif restricted := _find_quality(value, tiers):
            yield {"inputs": restricted, "lengths": rest}


def _find_quality(value: str, tiers: Mapping[str, Inputs]) -> Inputs | None:
    """Return the input of a tier that has this value, or None."""
    for sent in tiers.values():
        for name, each in sent.items():
            if str(each).lower() == value.lower():
                return {name: each}
    return None
