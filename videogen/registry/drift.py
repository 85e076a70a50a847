"""Compare the registry's models with the schemas of their endpoints on Replicate. Pure: no I/O happens here."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from videogen.registry.endpoint_schema import Endpoint, EndpointInputs, InputSchema
from videogen.registry.lengths import Continuous, Discrete, FixedLength
from videogen.registry.model_spec import ModelSpec
from videogen.registry.tables import Inputs, to_plain_number
from videogen.source_files.messages import Loc, did_you_mean

SEEDS = (0, 2**31 - 1)
"""Lowest and highest `seed` of a scene."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A contradiction between a model and its endpoint, or an input that is known to be ignored."""

    loc: Loc
    """Location in the model's table, such as `("fixed", "fps")`."""
    message: str
    """Description of the problem and of what would be correct."""
    ignored: bool = False
    """Whether the registry lists the input as ignored, so that this is no contradiction."""


def compare(spec: ModelSpec, endpoint: Endpoint) -> list[Finding]:
    """Return everything in `spec` that the endpoint contradicts or ignores."""
    if spec.version is None and endpoint.is_official is False:
        latest = f': add `version = "{endpoint.latest_version}"`' if endpoint.latest_version else ""
        return [Finding(("version",), f"{spec.replicate} is a community model, which is run by version only{latest}")]
    if spec.version and spec.version not in endpoint.openapi_schemas:
        latest = endpoint.latest_version or "not shown"
        return [Finding(("version",), f"{spec.replicate} has no such version; the latest is {latest}")]
    inputs = endpoint.read_inputs(spec.version)
    if inputs is None:
        return [Finding(("replicate",), f"{spec.replicate} does not say what inputs it takes: look at {spec.source}")]
    return list(_Comparison(spec, inputs).findings())


class _Comparison:
    """The comparison of one model with the inputs of its endpoint."""

    def __init__(self, spec: ModelSpec, inputs: EndpointInputs) -> None:
        self._spec, self._known, self._required = spec, inputs.schemas, inputs.required

    def findings(self) -> Iterator[Finding]:
        for loc, inputs in _iterate_fixed_inputs(self._spec):
            for name, value in inputs.items():
                yield from self._check_value((*loc, name), name, value)
        yield from self._check_duration()
        yield from self._check_parameters()
        yield from self._check_references()
        yield from self._find_missing()
        yield from self._check_ignored()

    def _check_name(self, loc: Loc, name: str) -> Iterator[Finding]:
        """Yield problems of the input's name: unknown, deprecated or ignored."""
        if name in self._known:
            if self._known[name].deprecated:
                description = self._known[name].description
                reason = f": {description}" if description else ""
                yield Finding(loc, f"{name!r} is deprecated{reason}")
        elif name in self._spec.ignored:
            yield Finding(loc, f"{name!r} is ignored by the endpoint", ignored=True)
        else:
            yield Finding(loc, f"{self._spec.replicate} has no input {name!r}{self._suggest_input(name)}")

    def _suggest_input(self, name: str) -> str:
        return f"{did_you_mean(name, self._known) or ';'} it takes {', '.join(sorted(self._known))}"

    def _check_value(self, loc: Loc, name: str, value: Any) -> Iterator[Finding]:
        """Yield problems of the input's name and of its fixed value."""
        yield from self._check_name(loc, name)
        if name in self._known:
            yield from self._check_fixed_value(loc, name, value)

    def _check_fixed_value(self, loc: Loc, name: str, value: Any) -> Iterator[Finding]:
        if not self._known[name].accepts(value):
            shown = json.dumps(value, ensure_ascii=False)
            yield Finding(loc, f"{shown} is refused, {name!r} takes {self._known[name]}")

    # -- duration -----------------------------------------------------------------------------------------------------

    def _check_duration(self) -> Iterator[Finding]:
        duration = self._spec.duration
        name = duration.input
        if name is None:
            return
        yield from self._check_name(("duration", "input"), name)
        if name not in self._known:
            return
        for loc, length in _iterate_lengths(duration):
            if length.inputs is None:
                of_number = (*loc, "seconds") if loc[1] == "sizes" else loc
                yield from self._check_fixed_value(of_number, name, to_plain_number(length.seconds))
        if isinstance(duration, Continuous):
            yield from self._check_continuous(duration, self._known[name])

    def _check_continuous(self, duration: Continuous, schema: InputSchema) -> Iterator[Finding]:
        if duration.accepts is None and (schema.enum is not None or schema.type != "number"):
            yield Finding(
                ("duration", "accepts"),
                f"not any length is accepted, {duration.input!r} takes {schema}: list those lengths in `accepts`",
            )
        for bound in ("min", "max"):
            seconds = getattr(duration, bound)
            relevant = duration.accepts is None or bound in duration.model_fields_set
            if relevant and not schema.covers(seconds, seconds):
                message = f"{seconds:g} s is refused, {duration.input!r} takes {schema}"
                yield Finding(("duration", bound), message)

    # -- parameters and references ------------------------------------------------------------------------------------

    def _check_parameters(self) -> Iterator[Finding]:
        named = _get_named_parameters(self._spec)
        names = Counter(named.values())
        for field, name in named.items():
            loc = ("parameters", field)
            yield from self._check_name(loc, name)
            if name not in self._known:
                continue
            wanted, fits = _PARAMETER_CHECKS[field]
            if not fits(self._known[name]):
                yield Finding(loc, f"{name!r} does not take {wanted} but {self._known[name]}")
            if names[name] > 1:
                others = ", ".join(other for other in named if named[other] == name and other != field)
                yield Finding(loc, f"{name!r} is sent for {others} too: each needs an input of its own")

    def _check_references(self) -> Iterator[Finding]:
        references = self._spec.references
        if references is None:
            return
        yield from self._check_name(("references", "input"), references.input)
        schema = self._known.get(references.input)
        if schema is None:
            return
        if schema.type != "array" or not (schema.items and schema.items.takes_file):
            yield Finding(("references", "input"), f"{references.input!r} does not take a list of files but {schema}")
        elif schema.max_items is not None and references.max > schema.max_items:
            message = f"{references.max} is too many, {references.input!r} takes {schema}"
            yield Finding(("references", "max"), message)

    # -- required, ignored --------------------------------------------------------------------------------------------

    def _find_missing(self) -> Iterator[Finding]:
        """Yield required inputs that are not sent with every clip, at each place where they are missing."""
        for name in self._required:
            for loc in _find_missing_senders(self._spec, name):
                yield Finding(loc, f"{name!r} is required by the endpoint, and not sent with every clip")

    def _check_ignored(self) -> Iterator[Finding]:
        sent = {name for _, inputs in _iterate_fixed_inputs(self._spec) for name in inputs}
        sent |= {*_get_named_parameters(self._spec).values(), self._spec.duration.input or ""}
        for index, name in enumerate(self._spec.ignored):
            if name in self._known:
                yield Finding(("ignored", index), f"{name!r} is not ignored: it takes {self._known[name]}")
            elif name not in sent:
                yield Finding(("ignored", index), f"{name!r} is never sent")


def _iterate_fixed_inputs(spec: ModelSpec) -> Iterator[tuple[Loc, Inputs]]:
    """Yield every set of inputs with fixed values, with its location."""
    yield ("fixed",), spec.fixed
    for ratio, inputs in spec.aspect_ratios.items():
        yield ("aspect_ratios", ratio), inputs
    for loc, length in _iterate_lengths(spec.duration):
        yield (*loc, "inputs") if len(loc) > 2 else loc, length.inputs or {}
    yield ("duration", "automatic"), spec.duration.automatic or {}
    for tier, inputs in spec.tiers.items():
        yield ("tiers", tier), inputs
    for index, when in enumerate(spec.when):
        yield ("when", index, "inputs"), when.inputs
        yield ("when", index, "send"), when.send
    for index, row in enumerate(spec.price.rows):
        yield ("price", "rows", index, "when"), row.when
    if spec.audio:
        yield ("audio", "inputs"), spec.audio.inputs
    if spec.references:
        yield ("references", "requires"), spec.references.requires


def _iterate_lengths(duration: Discrete | Continuous) -> Iterator[tuple[Loc, FixedLength]]:
    """Yield every length that is listed, with its location: that of all of them where steps or frames give them."""
    field, lengths = duration.get_listed_lengths()
    for index, length in enumerate(lengths):
        yield ("duration", field, index) if field in ("sizes", "accepts") else ("duration", field), length


def _get_named_parameters(spec: ModelSpec) -> dict[str, str]:
    """Return the endpoint's name of each parameter that the model has, by our name."""
    named = {field: getattr(spec.parameters, field) for field in _PARAMETER_CHECKS}
    return {field: name for field, name in named.items() if name is not None}


def _find_missing_senders(spec: ModelSpec, name: str) -> list[Loc]:
    """Return the places in the model that should send the input so that every clip has it; empty if every clip does."""
    duration, parameters = spec.duration, spec.parameters
    if name in spec.fixed or name == parameters.prompt or (name == parameters.image and parameters.image_required):
        return []
    sizes: list[Inputs] = [duration.make_inputs(length) for length in duration.lengths] or [{duration.input or "": 0}]
    ratios = [("aspect_ratios", ratio) for ratio, inputs in spec.aspect_ratios.items() if name not in inputs]
    lengths = [("duration", "sizes", index) for index, inputs in enumerate(sizes) if name not in inputs]
    in_every_tier = bool(spec.tiers) and all(name in inputs for inputs in spec.tiers.values())
    is_required_list = spec.references is not None and spec.references.required and name == spec.references.input
    if not ratios or not lengths or in_every_tier or is_required_list:
        return []
    if len(ratios) < len(spec.aspect_ratios):
        return list(ratios)
    if len(lengths) < len(sizes):
        return list(lengths)
    if name == parameters.image:
        return [("parameters", "image_required")]
    return [("parameters", *(field for field, named in _get_named_parameters(spec).items() if named == name))]


def _takes_text(schema: InputSchema) -> bool:
    return schema.accepts("any text") and not schema.takes_file


def _takes_file(schema: InputSchema) -> bool:
    return schema.takes_file


def _takes_seeds(schema: InputSchema) -> bool:
    return schema.enum is None and schema.type in ("integer", "number") and schema.covers(*SEEDS)


def fits_parameter(field: str, schema: InputSchema) -> bool:
    """Return whether an input takes every value of this field of a scene, such as `prompt`."""
    return _PARAMETER_CHECKS[field][1](schema)


_PARAMETER_CHECKS: dict[str, tuple[str, Callable[[InputSchema], bool]]] = {
    "prompt": ("any text", _takes_text),
    "negative_prompt": ("any text", _takes_text),
    "image": ("the address of a file", _takes_file),
    "end_image": ("the address of a file", _takes_file),
    "seed": (f"every seed from {SEEDS[0]} to {SEEDS[1]}", _takes_seeds),
}
"""By parameter: a description of the values that are sent, and a check that an input accepts them."""
