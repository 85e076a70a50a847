"""Draft the entry of a model from the input schema of its endpoint. Pure: a schema goes in, TOML comes out.

Whatever the schema does not say is marked as a guess or as a question, and the price always is one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from videogen.errors import ValidationError
from videogen.registry.draft_inputs import (
    Guess,
    Shape,
    find_length,
    find_reference_limit,
    find_shape,
    list_qualities,
)
from videogen.registry.draft_rules import find_longest_prompt, find_rules, is_rule
from videogen.registry.drift import fits_parameter
from videogen.registry.endpoint_schema import Endpoint, EndpointInputs, InputSchema
from videogen.registry.tables import Inputs
from videogen.source_files.toml_text import write_comment, write_key, write_line, write_value

GUESSED_PRICES = {"per_second": "1.00", "per_gpu_second": "0.0122"}
"""Amounts that few models exceed, so that a budget holds: the dearest listed price for 4k, and eight H100."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "text_prompt", "prompt_text", "text"),
    "negative_prompt": ("negative_prompt", "negative_text", "neg_prompt"),
    "image": (
        *("start_image", "first_frame_image", "first_frame", "start_frame", "first_image", "image", "input_image"),
        *("init_image", "image_url", "input_reference"),
    ),
    "end_image": (
        *("end_image", "last_frame_image", "last_frame", "last_image", "end_frame", "tail_image", "image_tail"),
        *("final_frame", "end_image_url"),
    ),
    "seed": ("seed", "random_seed"),
}
"""Usual names of the inputs for the fields of a scene, the likeliest first."""
_LISTS = ("reference_images", "reference_image_urls", "input_images", "subject_references", "ref_images", "images")
_SOUND = (
    *("generate_audio", "generate_audio_switch", "audio", "with_audio", "enable_audio", "generate_sound", "sound"),
    *("enable_sound", "with_sound", "sound_effect_switch", "save_audio"),
)
_QUALITIES = ("resolution", "quality", "video_resolution", "video_quality", "mode", "variant")
_COSTLY = ("fps", "frame", "rate", "mode", "quality", "resolution", "variant", "hdr", "exr", "interpolat", "upscal")
_COSTLY_STARTS = ("num_", "generate_", "multi_", "draft", "turbo", "go_fast", "output_format")
_SECRETS = ("api_key", "token", "secret", "password")


@dataclass
class _Entry:
    """The parts of an entry while they are collected."""

    lines: list[str] = field(default_factory=list)
    fixed: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, comment: str = "") -> None:
        self.lines.append(write_line(name, value, comment))

    def ask(self, text: str) -> None:
        """Add a question to the notes."""
        self.notes.append(f"QUESTION: {text}")


def draft_model(name: str, endpoint: Endpoint, today: date) -> str:
    """Return the TOML of an entry for the latest version of a model.

    Args:
        name: the name that jobs use.
        endpoint: the model on Replicate.
        today: the date that the entry is marked with.

    Raises:
        ValidationError: the endpoint does not describe its inputs.
    """
    inputs = endpoint.read_inputs(None)
    if inputs is None:
        raise ValidationError(f"{endpoint.name} does not describe its inputs: write the entry by hand")
    return "\n".join(_Draft(name, endpoint, inputs, today).write()) + "\n"


class _Draft:
    def __init__(self, name: str, endpoint: Endpoint, inputs: EndpointInputs, today: date) -> None:
        self._name, self._endpoint, self._today = name, endpoint, today
        ordered = sorted(inputs.schemas.items(), key=lambda each: each[1].order)
        self._known = {key: schema for key, schema in ordered if not schema.deprecated}
        self._required = inputs.required
        self._source = f"https://replicate.com/{endpoint.name}"
        self._entry = _Entry()

    def write(self) -> Iterator[str]:
        """Yield the lines of the entry."""
        entry, table = self._entry, f"models.{write_key(self._name)}"
        self._add_endpoint()
        parameters = self._add_parameters()
        length = self._add_length()
        self._add_references()
        shape = find_shape(self._find_unused(), takes_start=parameters.get("image"), required=self._required)
        entry.used.update(shape.used)
        tiers = self._add_tiers(shape)
        self._add_sound()
        self._add_others()
        if shape.frame_sizes:
            entry.add("frame_sizes", shape.frame_sizes)
        if entry.fixed:
            entry.add("fixed", entry.fixed, "the endpoint's own defaults may change")
        yield f"[{table}]"
        yield from write_comment(
            f'Drafted on {self._today} from the input schema of {self._endpoint.name}. Look at each "guess" and '
            '"QUESTION"; the texts in quotes are the schema\'s.'
        )
        yield from entry.lines
        for note in [*entry.notes, *self._list_rules()]:
            yield from write_comment(note)
        yield from self._write_price(table)
        yield from _write_shape(table, shape)
        qualities = {key: self._known[key].enum or () for sent in tiers.values() for key in sent}
        rules = find_rules(self._known, parameters, qualities, shape.inputs, length)
        for when in shape.when:
            yield from _write_condition(table, when)
        for when in rules:
            yield from _write_condition(table, when, "    # guess: by the words of the schema")

    def _find_unused(self) -> dict[str, InputSchema]:
        return {name: schema for name, schema in self._known.items() if name not in self._entry.used}

    def _add_endpoint(self) -> None:
        add, endpoint = self._entry.add, self._endpoint
        add("replicate", endpoint.name)
        if endpoint.is_official is False and endpoint.latest_version:
            add("version", endpoint.latest_version, "the latest one; a community model is run by version")
        add("source", self._source)
        add("typical_run_seconds", 180, "guess: the schema does not say how long it takes")
        add("timeout_seconds", 900, "guess")

    def _add_parameters(self) -> dict[str, str]:
        """Add the inputs for the fields of a scene, and return their names by field."""
        found = {field: name for field in _NAMES if (name := self._find_parameter(field))}
        self._entry.used.update(found.values())
        told: dict[str, Any] = dict(found)
        image = found.get("image")
        remarks = []
        if image in self._required:
            told["image_required"] = True
        if "end_image" in found and image:
            told["end_image_needs_start"] = True
            remarks.append("guess: an end frame needs a start frame")
        if "prompt" in found and (most := find_longest_prompt(self._known[found["prompt"]])):
            told["longest_prompt"] = most
        self._entry.add("parameters", told, "; ".join(remarks))
        if "prompt" not in found:
            self._entry.ask("no input for the prompt is recognised. Is there one?")
        return found

    def _find_parameter(self, field: str) -> str | None:
        usual = (name for name in _NAMES[field] if name in self._known)
        return next((name for name in usual if fits_parameter(field, self._known[name])), None)

    def _add_length(self) -> Guess:
        length = find_length(self._find_unused())
        self._entry.used.update(length.used)
        self._entry.add("duration", length.value, length.remark)
        return length

    def _add_references(self) -> None:
        name = next((name for name in _LISTS if name in self._known and _takes_files(self._known[name])), None)
        if name is None:
            return
        self._entry.used.add(name)
        most, remark = find_reference_limit(self._known[name])
        told: dict[str, Any] = {"input": name, "max": most}
        if "first or last frame" in self._known[name].description.lower():
            told["excludes"] = ["start_image", "end_image"]
        if name in self._required:
            told["required"] = True
        self._entry.add("references", told, remark)

    def _add_tiers(self, shape: Shape) -> dict[str, Inputs]:
        """Add the qualities as tiers, and return them."""
        entry, tiers, remark = self._entry, shape.tiers, ""
        name = next((name for name in _QUALITIES if name in self._find_unused() and self._known[name].enum), None)
        if name and not tiers:
            ordered = list_qualities(self._known[name])
            if len(ordered) > 1:
                standard = self._known[name].default or ordered[0]
                entry.used.add(name)
                tiers = {"draft": {name: ordered[0]}, "standard": {name: standard}, "final": {name: ordered[-1]}}
                others = [write_value(each) for each in ordered[1:-1] if each != standard]
                remark = f"{name} takes {', '.join(others)}, too" if others else ""
        if (faster := self._known.get("draft")) and faster.type == "boolean":
            entry.used.add("draft")
            tiers = {tier: {**sent, "draft": tier == "draft"} for tier, sent in (tiers or _EMPTY_TIERS).items()}
        if tiers:
            entry.add("default_tier", "standard")
            entry.add("tiers", tiers, remark)
        return tiers

    def _add_sound(self) -> None:
        unused = self._find_unused()
        name = next((name for name in _SOUND if name in unused and unused[name].type == "boolean"), None)
        if name is None:
            self._entry.ask("do its clips have sound? The schema has no switch. If they always do, add "
                            "audio = { always = true }")  # fmt: skip
            return
        self._entry.used.add(name)
        self._entry.fixed[name] = False
        default = f"the endpoint's default is {str(unused[name].default).lower()}"
        self._entry.add("audio", {"inputs": {name: True}}, f"QUESTION: does sound cost more? {default}")

    def _add_others(self) -> None:
        """Fix the defaults that the cost may depend on, and note the inputs that are not sent."""
        not_sent = []
        for name, schema in self._find_unused().items():
            value = schema.default
            if name in self._required and value is None:
                value = schema.enum[0] if schema.enum else False if schema.type == "boolean" else None
            if (name in self._required or _may_cost(name)) and isinstance(value, bool | int | float | str):
                self._entry.fixed[name] = value
            elif name in self._required:
                self._entry.ask(f"{name} is required, and takes {schema}. Which value is right?")
            elif not any(word in name for word in _SECRETS):
                not_sent.append(name if value is None else f"{name} (default {value!r})")
        if not_sent:
            self._entry.notes.append(f"Not sent: {', '.join(not_sent)}")

    def _list_rules(self) -> Iterator[str]:
        """Yield the sentences of the schema that may restrict the inputs."""
        for name, schema in self._known.items():
            if is_rule(schema.description):
                yield f'{name}: "{schema.description[:300]}"'

    def _write_price(self, table: str) -> Iterator[str]:
        unit = "per_gpu_second" if self._endpoint.is_official is False else "per_second"
        yield from ["", f"[{table}.price]"]
        yield from write_comment(
            f"QUESTION: what does it cost? Look it up at {self._source} and write it here, with the date and basis = "
            '"exact". Until then, every plan warns that this amount is only a guess on the high side.'
        )
        yield write_line(unit, GUESSED_PRICES[unit])
        yield f"as_of = {self._today}"
        yield write_line("basis", "unknown")
        yield write_line("note", f"UNKNOWN: look it up at {self._source}")


_EMPTY_TIERS: dict[str, Inputs] = {"draft": {}, "standard": {}, "final": {}}


def _takes_files(schema: InputSchema) -> bool:
    return schema.type == "array" and schema.items is not None and schema.items.takes_file


def _may_cost(name: str) -> bool:
    return name.startswith(_COSTLY_STARTS) or any(word in name for word in _COSTLY)


def _write_shape(table: str, shape: Shape) -> Iterator[str]:
    yield from ["", f"[{table}.aspect_ratios]"]
    yield from write_comment(shape.remark)
    for ratio, sent in shape.ratios.items():
        yield write_line(ratio, sent)


def _write_condition(table: str, when: Mapping[str, Any], remark: str = "") -> Iterator[str]:
    yield from ["", f"[[{table}.when]]{remark}"]
    yield from (write_line(key, value) for key, value in when.items())
