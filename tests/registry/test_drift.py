"""`videogen models check`: the registry beside what the models' endpoints say they take."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tokens import TOKEN
from videogen.cli import main as cli
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.emulator.catalogue import MODELS, Catalogue
from videogen.emulator.models import EmulatedModel
from videogen.job.model import Scene
from videogen.registry import drift
from videogen.registry.drift import Finding
from videogen.registry.endpoint_schema import Endpoint, EndpointInputs, Snapshots
from videogen.registry.extend import resolve_extends
from videogen.registry.load import find_registry_path, read_registry
from videogen.registry.model_spec import ModelSpec
from videogen.source_files.document import join_path, read_source_file

pytestmark = pytest.mark.integration

Path_ = tuple[str | int, ...]
WRITTEN: dict[str, Any] = json.loads(json.dumps(read_source_file(find_registry_path()).data["models"], default=str))
SHIPPED: dict[str, Any] = {
    name: {key: value for key, value in table.items() if key != "extends"}
    for name, table in resolve_extends(WRITTEN).items()
}
"""The tables of the models as they are written down, but for what they extend."""
FIRST = list(SHIPPED)[:8]
"""Models whose mutations are tried by default; those of the others are many."""
TRUTH = {model.full_name: model for model in Catalogue().list_models()}
"""The endpoints as the emulator knows them."""
REGISTRY = read_registry()
KEPT = find_registry_path().parent / "cassettes" / "schemas"
IGNORED = {
    "kling-v2.1": {"resolution"},
    "kling-v2.5-turbo": {"resolution"},
    "hailuo-2.3": {"aspect_ratio"},
    "wan-2.5-i2v": {"aspect_ratio"},
}
"""What the module description names and the live API drops."""


class Check:
    """`videogen models check` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys, self._patch = capsys, patch

    def __call__(self, *arguments: str, registry: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        if registry:
            self._patch.setenv("VIDEOGEN_REGISTRY", str(registry))
        code = cli.main(["models", "check", *arguments])
        return code, *self._capsys.readouterr()

    def json(self, *arguments: str, registry: Path | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code, and what was found by model."""
        code, out, err = self("--json", *arguments, registry=registry)
        assert out, err
        found = json.loads(out)
        assert found["drift"] == bool(code)
        return code, {model["id"]: model for model in found["models"]}


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    for name in ("REPLICATE_API_TOKEN", "REPLICATE_BASE_URL", "VIDEOGEN_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    return Check(capsys, monkeypatch)


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with run_emulator(EmulatorSettings()) as server:
        yield server


@pytest.fixture
def online(check: Check, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Check:
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    return check


# -- what is shipped --------------------------------------------------------------------------------------------------


def test_the_shipped_registry_has_no_drift(check: Check) -> None:
    """Nothing contradicts the kept schemas; what is sent to no effect is told apart."""
    code, models = check.json("--offline")
    assert (code, list(models)) == (0, list(SHIPPED))
    ignored = {name: {found["field"].rpartition(".")[2] for found in told["ignored"]} for name, told in models.items()}
    assert {name: names for name, names in ignored.items() if names} == IGNORED


def test_the_kept_schemas_are_what_the_emulator_serves(online: Check, tmp_path: Path) -> None:
    """Every model of the registry, asked over HTTP: same inputs, same version of what is run by version.

    There are also schemas of models that only other registries have.
    """
    assert online("--snapshot", "--schemas", str(tmp_path))[0] == 0
    served, kept = Snapshots(tmp_path), Snapshots(KEPT)
    for spec in REGISTRY.models.values():
        assert taken(served.read(spec.replicate), spec) == taken(kept.read(spec.replicate), spec) != None  # noqa: E711
    assert {path.relative_to(KEPT) for path in KEPT.rglob("*.json")} >= {
        path.relative_to(tmp_path) for path in tmp_path.rglob("*.json")
    }


def taken(endpoint: Endpoint | None, spec: ModelSpec) -> tuple[bool | None, dict[str, Any], list[str]] | None:
    """What an endpoint takes, but for the descriptions; None where it is not there."""
    inputs = endpoint.read_inputs(spec.version) if endpoint else None
    if endpoint is None or inputs is None:
        return None
    schemas = {name: schema.model_dump(exclude={"description"}) for name, schema in inputs.schemas.items()}
    return endpoint.is_official, schemas, sorted(inputs.required)


def test_a_snapshot_is_the_same_file_every_time(online: Check, tmp_path: Path) -> None:
    """Sorted and indented, so that a diff shows what has changed and nothing else."""
    texts = []
    for _ in range(2):
        assert online("svd", "--snapshot", "--schemas", str(tmp_path))[0] == 0
        (path,) = tmp_path.rglob("*.json")
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert texts[0] == json.dumps(json.loads(texts[0]), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


# -- mutations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """One value of a model changed to what its endpoint does not take."""

    model: str
    path: Path_
    """Of what is changed, in the model's table."""
    what: str
    table: dict[str, Any]
    """The model's table after the change."""
    field: Path_
    """Where it must be reported."""

    def __str__(self) -> str:
        return f"{self.model}-{join_path(self.path)}-{self.what}"


NO_INPUT = {
    "refused_pictures",
    "replicate",
    "source",
    "typical_run_seconds",
    "timeout_seconds",
    "price",
    "frame_sizes",
    "delivery",
    "excludes",
    "default_tier",
    "longest_prompt",
    "always",
}
"""Parts of a model's table of which the endpoint's schema says nothing. Another endpoint has no schema to compare."""


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every value that is no table and no array, and where it is."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path, value
    else:
        for key, child in children:
            yield from leaves(child, (*path, key))


def is_condition(path: Path_) -> bool:
    """Return whether a value is only compared with what is asked, and not sent."""
    return path[0] == "when" and path[2] not in ("send", "inputs")


class Mutations:
    """All mutations of one model, made from its table and the true schema."""

    def __init__(self, name: str) -> None:
        self.name, self.table = name, SHIPPED[name]
        self.truth: EmulatedModel = TRUTH[self.table["replicate"]]
        self.ignored = self.table.get("ignored", [])

    def all(self) -> Iterator[Mutation]:
        for path, value in leaves(self.table):
            if not NO_INPUT & set(path) and not is_condition(path):
                yield from self._of(path, value)
        if "accepts" in self.table["duration"]:
            yield self._changed(("duration", "accepts"), "dropped", _without)

    def find_unsaid(self) -> set[Path_]:
        """Return the limits that the endpoint has, and its schema does not say."""
        image, references = self.table["parameters"].get("image"), self.table.get("references")
        unsaid: set[Path_] = set() if image in self.truth.required else {("parameters", "image_required")}
        if references and "maxItems" not in self.truth.properties[references["input"]]:
            unsaid.add(("references", "max"))
        return unsaid

    def _of(self, path: Path_, value: Any) -> Iterator[Mutation]:
        match path:
            case (_, "input") | ("ignored", _):
                yield self._set(path, "renamed", f"{value}-x")
            case ("version",):
                yield self._set(path, "another", value[::-1])
                yield self._changed(path, "dropped", _without)
            case ("parameters", str(field)):
                yield from self._parameter(path, field, value)
            case ("references", "max"):
                if path not in self.find_unsaid():
                    yield self._set(path, "above", value + 1)
            case ("duration", "steps" | "frames", *_):
                yield from self._series(path, value)
            case ("duration", _, int()) | ("duration", "min" | "max"):
                yield from self._length(path, value)
            case ("fixed", _) | (_, _, _) | (_, _, _, "inputs", _) | ("when", _, "send", _):
                yield from self._input(path, value)

    def _series(self, path: Path_, value: Any) -> Iterator[Mutation]:
        """Of lengths that are given by steps, or by frames."""
        match path[1:]:
            case ("steps", "max"):
                yield self._set(path, "beyond", 99, ("duration", "steps"))
            case ("frames", "input" | "fps_input"):
                yield self._set(path, "renamed", f"{value}_x", ("duration", "frames", f"{value}_x"))
            case ("frames", *_):
                name = self.table["duration"]["frames"]["fps_input" if path[-1] == "fps" else "input"]
                yield self._set(path, "beyond", 999, ("duration", "frames", name))

    def _length(self, path: Path_, seconds: float) -> Iterator[Mutation]:
        schema = self.truth.properties[self.table["duration"]["input"]]
        if path[1] in ("sizes", "accepts"):
            yield self._set(path, "no-such-length", 99)
            yield self._set(path, "fraction", seconds + 0.5)
        elif "minimum" in schema:
            yield self._set(path, "beyond", schema["minimum"] - 1 if path[1] == "min" else schema["maximum"] + 1)

    def _parameter(self, path: Path_, field: str, name: Any) -> Iterator[Mutation]:
        if field == "image_required" and path not in self.find_unsaid():
            yield self._set(path, "false", False)
        if field in ("image_required", "end_image_needs_start"):
            return
        yield self._set(path, "renamed", f"{name}_x")
        wanted = self.truth.properties[name]
        for other, schema in self.truth.properties.items():
            kinds = (wanted["type"], wanted.get("format")), (schema["type"], schema.get("format"))
            if kinds[0] != kinds[1] and kinds != (("integer", None), ("number", None)):  # which takes whole ones too
                yield self._set(path, f"as-{other}", other)
        if name in self.truth.required:
            yield self._changed(path, "dropped", _without_image if field == "image" else _without, ("parameters",))

    def _input(self, path: Path_, value: Any) -> Iterator[Mutation]:
        name = str(path[-1])

        def rename(parent: Any, key: Any) -> None:
            parent[f"{name}_x"] = parent.pop(key)

        yield self._changed(path, "renamed", rename, (*path[:-1], f"{name}_x"))
        if name in self.ignored:
            return
        yield self._set(path, "another-type", value == "true" if isinstance(value, str) else str(value).lower())
        schema = self.truth.properties[name]
        if "enum" in schema:
            yield self._set(path, "not-in-enum", f"{value}x" if isinstance(value, str) else max(schema["enum"]) + 1)
        for bound, beyond in (("minimum", -1), ("maximum", 1)):
            if bound in schema:
                yield self._set(path, f"beyond-{bound}", schema[bound] + beyond)

    def _set(self, path: Path_, what: str, value: Any, field: Path_ | None = None) -> Mutation:
        def change(parent: Any, key: Any) -> None:
            parent[key] = value

        return self._changed(path, what, change, field)

    def _changed(
        self, path: Path_, what: str, change: Callable[[Any, Any], object], field: Path_ | None = None
    ) -> Mutation:
        table = deepcopy(self.table)
        parent = table
        for key in path[:-1]:
            parent = parent[key]
        change(parent, path[-1])
        if isinstance(prices := table["price"].get("per_clip"), dict):
            prices |= {"99": "1", "6.5": "1", "10.5": "1"}  # else the registry itself is refused
        return Mutation(self.name, path, what, table, field or path)


def _without(parent: Any, key: Any) -> None:
    del parent[key]


def _without_image(parent: Any, key: Any) -> None:
    del parent[key]
    for name in ("image_required", "end_image", "end_image_needs_start"):
        parent.pop(name, None)


MUTATIONS = [mutation for name in SHIPPED for mutation in Mutations(name).all()]


def test_every_value_that_the_schemas_speak_of_is_mutated() -> None:
    """None is left out but the ways of counting, and values that are sent to no effect."""
    mutated = {(mutation.model, mutation.path) for mutation in MUTATIONS}
    assert len(mutated) > 100
    for name, table in SHIPPED.items():
        spoken_of = [path for path, _ in leaves(table) if not NO_INPUT & set(path) and not is_condition(path)]
        left = {path for path in spoken_of if (name, path) not in mutated}
        sizes = {path for path in left if path[:2] == ("duration", "sizes") and path[-1] == "seconds"}
        described = {("duration", "max")} if name == "veo-3.1" else set()  # ten seconds, of which eight are accepted
        ways = {("duration", "mode"), ("parameters", "end_image_needs_start"), ("duration", "steps", "min")}
        assert left - sizes - described - Mutations(name).find_unsaid() <= ways


@pytest.mark.long_variants
@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(mutation, id=str(mutation), marks=[] if mutation.model in FIRST else [pytest.mark.long])
        for mutation in MUTATIONS
    ],
)
def test_a_value_that_the_endpoint_contradicts_is_reported(mutation: Mutation, check: Check, tmp_path: Path) -> None:
    """Its model, beside the same one unchanged, its field and its line."""
    registry = tmp_path / "models.json"
    tables = {"unchanged": SHIPPED[mutation.model], "changed": mutation.table}
    registry.write_text(json.dumps({"models": tables}, indent=1), encoding="utf-8")
    code, out, err = check("--json", "--offline", "unchanged", "changed", registry=registry)
    if code == 2:  # no price is left for it, or a condition speaks of it
        assert "models.changed." in err
        return
    models = {model["id"]: model for model in json.loads(out)["models"]}
    assert (code, models["unchanged"]["drift"]) == (1, [])
    reported = {found["field"]: found for found in models["changed"]["drift"]}
    field = join_path(("models", "changed", *mutation.field))
    (found,) = [reported[name] for name in reported if name in (field, f"{field}.seconds")]
    assert at(found["position"], registry).startswith(written(mutation.table, mutation.field))


def at(position: str, path: Path) -> str:
    """What stands at `file:line:column`, if that is in the changed model's table."""
    name, line, column = position.split(":")
    text = path.read_text(encoding="utf-8")
    before, _, _ = text.partition('\n  "changed"')
    assert (name, int(line) > before.count("\n")) == (path.name, True)
    return text.splitlines()[int(line) - 1][int(column) - 1 :]


def written(table: Any, path: Path_) -> str:
    """How the key at the path begins in the file, or an array's element, or the nearest parent that is there."""
    shown = '"changed"'
    for key in path:
        if isinstance(key, int):
            table = table[key]
            shown = "{" if isinstance(table, dict) else json.dumps(table)
        elif key in table:
            table, shown = table[key], f'"{key}"'
        else:
            break
    return shown


# -- single values ----------------------------------------------------------------------------------------------------

INPUTS = [
    pytest.param(model, name, id=f"{model.name}-{name}", marks=[] if model.full_name in MODELS else [pytest.mark.long])
    for model in TRUTH.values()
    for name, plain in model.properties.items()
    if plain["type"] != "array"  # a registry has no arrays
]


@pytest.mark.long_variants
@pytest.mark.parametrize(("model", "name"), INPUTS)
@given(data=st.data())
def test_a_value_is_refused_exactly_where_the_endpoint_refuses_it(
    model: EmulatedModel, name: str, data: st.DataObject
) -> None:
    """Whatever the value, what the emulator answers to it is what the check says of it."""
    plain = model.properties[name]
    near = [plain[bound] + step for bound in ("minimum", "maximum") if bound in plain for step in (-1, -0.5, 0, 1)]
    known = [*plain.get("enum", ()), *near, True, "https://example.com/a.png", "http://[", 5.0]
    value = data.draw(
        st.sampled_from(known) | st.text(max_size=9) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    )
    refused = any(problem["field"] == f"input.{name}" for problem in model.find_invalid_fields({name: value}))
    schema = inputs_of(model).schemas[name]
    assert schema.accepts(value) is not refused


def inputs_of(model: EmulatedModel) -> EndpointInputs:
    endpoint = Endpoint(name="a/b", latest_version="1", openapi_schemas={"1": model.make_openapi_schema()})
    inputs = endpoint.read_inputs(None)
    assert inputs
    return inputs


# -- other endpoints --------------------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "replicate": "me/mine",
    "source": "https://example.com",
    "typical_run_seconds": 60,
    "duration": {"mode": "discrete", "sizes": [5, 10], "input": "duration"},
    "aspect_ratios": {"16:9": {"shape": "wide"}, "9:16": {"shape": "tall"}},
    "parameters": {"prompt": "prompt", "seed": "seed"},
    "price": {"per_second": "0.10", "as_of": "2026-11-01", "basis": "exact"},
}
PROPERTIES: dict[str, Any] = {
    "prompt": {"type": "string"},
    "duration": {"type": "integer", "enum": [5, 10]},
    "shape": {"type": "string", "enum": ["wide", "tall"]},
    "seed": {"type": "integer"},
    "audio": {"type": "boolean"},
}
CONTINUOUS = {"duration": {"mode": "continuous", "max": 10, "input": "duration"}}
VERSION = "0" * 64


def compared(
    spec: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    required: list[str] | None = None,
    **endpoint: Any,
) -> list[tuple[str, str]]:
    """Where and what is found, with these changes to a registry's model and to an endpoint that agree."""
    wanted = {"type": "object", "properties": {**PROPERTIES, **(properties or {})}, "required": required or ["prompt"]}
    document = {"components": {"schemas": {"Input": wanted, "Loop": {"$ref": "#/components/schemas/Loop"}}}}
    told = {"name": "me/mine", "is_official": True, "latest_version": "1", "openapi_schemas": {"1": document}}
    found = drift.compare(ModelSpec.model_validate({**SPEC, **(spec or {})}), Endpoint(**{**told, **endpoint}))
    return [(join_path(finding.loc), finding.message) for finding in found]


def test_a_model_that_agrees_has_nothing_found() -> None:
    """What the cases below are changes of."""
    assert compared() == []


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        pytest.param(
            {"spec": {"aspect_ratios": {"16:9": {"shap": "wide"}}}},
            "aspect_ratios.16:9.shap",
            "me/mine has no input 'shap'; did you mean 'shape'? it takes audio, duration, prompt, seed, shape",
            id="no-such-input",
        ),
        pytest.param(
            {"spec": {"fixed": {"duration": "5"}}},
            "fixed.duration",
            "\"5\" is refused, 'duration' takes one of 5, 10",
            id="another-type",
        ),
        pytest.param(
            {"spec": {"fixed": {"fps": 60}}, "properties": {"fps": {"type": "integer", "maximum": 30}}},
            "fixed.fps",
            "60 is refused, 'fps' takes a whole number up to 30",
            id="out-of-range",
        ),
        pytest.param(
            {"properties": {"seed": {"type": "integer", "deprecated": True, "description": "Use noise instead."}}},
            "parameters.seed",
            "'seed' is deprecated: Use noise instead.",
            id="deprecated",
        ),
        pytest.param(
            {"required": ["prompt", "audio"]},
            "parameters",
            "'audio' is required by the endpoint, and not sent with every clip",
            id="required-never-sent",
        ),
        pytest.param(
            {"required": ["seed"]},
            "parameters.seed",
            "'seed' is required by the endpoint, and not sent with every clip",
            id="required-sent-at-times",
        ),
        pytest.param(
            {"required": ["shape"], "spec": {"aspect_ratios": {"16:9": {"shape": "wide"}, "1:1": {}}}},
            "aspect_ratios.1:1",
            "'shape' is required by the endpoint, and not sent with every clip",
            id="required-not-sent-for-a-ratio",
        ),
        pytest.param(
            {
                "required": ["duration"],
                "spec": {
                    "duration": {"mode": "discrete", "sizes": [5, {"seconds": 8, "inputs": {}}], "input": "duration"}
                },
            },
            "duration.sizes.1",
            "'duration' is required by the endpoint, and not sent with every clip",
            id="required-not-sent-for-a-length",
        ),
        pytest.param(
            {"spec": CONTINUOUS},
            "duration.accepts",
            "not any length is accepted, 'duration' takes one of 5, 10: list those lengths in `accepts`",
            id="not-continuous",
        ),
        pytest.param(
            {"spec": CONTINUOUS, "properties": {"duration": {"type": "number", "minimum": 0, "maximum": 8}}},
            "duration.max",
            "10 s is refused, 'duration' takes a number from 0 up to 8",
            id="not-that-long",
        ),
        pytest.param(
            {"properties": {"seed": {"type": "integer", "minimum": 0, "maximum": 65535}}},
            "parameters.seed",
            "'seed' does not take every seed from 0 to 2147483647 but a whole number from 0 up to 65535",
            id="few-seeds",
        ),
        pytest.param(
            {"spec": {"parameters": {"prompt": "prompt", "negative_prompt": "prompt"}}},
            "parameters.prompt",
            "'prompt' is sent for negative_prompt too: each needs an input of its own",
            id="one-input-for-two",
        ),
        pytest.param(
            {"spec": {"ignored": ["shape"]}},
            "ignored.0",
            '\'shape\' is not ignored: it takes one of "wide", "tall"',
            id="not-ignored-any-more",
        ),
        pytest.param({"spec": {"ignored": ["size"]}}, "ignored.0", "'size' is never sent", id="ignored-and-not-sent"),
        pytest.param(
            {"is_official": False},
            "version",
            'me/mine is a community model, which is run by version only: add `version = "1"`',
            id="community",
        ),
        pytest.param(
            {"spec": {"version": VERSION}},
            "version",
            "me/mine has no such version; the latest is 1",
            id="version-gone",
        ),
        pytest.param(
            {"openapi_schemas": {"1": {"components": {"schemas": "?"}}}},
            "replicate",
            "me/mine does not say what inputs it takes: look at https://example.com",
            id="unreadable",
        ),
        pytest.param(
            {"latest_version": None, "openapi_schemas": {}},
            "replicate",
            "me/mine does not say what inputs it takes: look at https://example.com",
            id="no-version",
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(changes: dict[str, Any], field: str, message: str) -> None:
    """One finding, at the value that has to be changed."""
    assert (field, message) in compared(**changes)


def test_a_bound_that_nobody_wrote_is_never_asked_for() -> None:
    """The shortest clip is the first accepted one, not the 0 s that `min` is by default."""
    spec = {"duration": {**CONTINUOUS["duration"], "accepts": [5]}}
    assert compared(spec, {"duration": {"type": "integer", "minimum": 2, "maximum": 10}}) == []


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": ["integer", "null"]}, id="list-of-types"),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "null"}]}, id="any-of"),
        pytest.param({"allOf": [{"$ref": "#/components/schemas/Input/seed"}]}, id="unknown-reference"),
        pytest.param({"$ref": "#/components/schemas/Loop"}, id="loop"),
        pytest.param({"anyOf": [{"type": "integer"}, {"type": "string"}]}, id="several-types"),
        pytest.param({"type": "integer", "minimum": None, "description": None}, id="null"),
    ],
)
def test_a_schema_may_be_written_in_other_ways(schema: dict[str, Any]) -> None:
    """What it says counts; where it says nothing that is understood, nothing contradicts it."""
    assert [field for field, _ in compared({"fixed": {"steps": 5}}, {"steps": schema})] == []


def test_all_seeds_of_a_scene_are_looked_at() -> None:
    """A scene takes the first and the last, and none beyond."""
    low, high = drift.SEEDS
    for seed, taken_ in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        try:
            Scene.model_validate({"id": "a", "prompt": "p", "target_duration": 5, "seed": seed})
        except ValueError:
            assert not taken_
        else:
            assert taken_


def test_what_is_ignored_is_no_drift() -> None:
    """It is found, but apart."""
    spec = ModelSpec.model_validate({**SPEC, "fixed": {"size": "big"}, "ignored": ["size"]})
    told = {"1": {"components": {"schemas": {"Input": {"properties": PROPERTIES}}}}}
    endpoint = Endpoint(name="me/mine", latest_version="1", openapi_schemas=told)
    assert drift.compare(spec, endpoint) == [
        Finding(("fixed", "size"), "'size' is ignored by the endpoint", ignored=True)
    ]


# -- the command ------------------------------------------------------------------------------------------------------


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """The shipped registry with one change."""
    text = find_registry_path().read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "models.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_drift_is_told_by_line_and_column(check: Check, tmp_path: Path) -> None:
    """As other problems of the registry, with the model it is about."""
    path = edited(tmp_path, 'mode = "pro"', 'mode = "ultra"')
    code, out, _ = check("--offline", "kling-v2.1", "veo-3.1", registry=path)
    lines = path.read_text(encoding="utf-8").splitlines()
    (row,) = [number for number, line in enumerate(lines, start=1) if "ultra" in line]
    column = lines[row - 1].index("mode =") + 1
    assert code == 1
    assert out.splitlines() == [
        "kling-v2.1: drifted from kwaivgi/kling-v2.1 in 1 place; ignored by the endpoint: resolution",
        f"  models.toml:{row}:{column}: models.kling-v2.1.aspect_ratios.16:9.mode: "
        '"ultra" is refused, \'mode\' takes one of "standard", "pro"',
        "veo-3.1: agrees",
        f"2 models compared with the snapshots in {KEPT}: 1 drifted",
    ]


@pytest.mark.parametrize(
    ("old", "new", "model", "field", "message"),
    [
        pytest.param(
            '"google/veo-3.1"',
            '"google/veo-9"',
            "veo-3.1",
            "replicate",
            "google/veo-9 is not on Replicate (404)",
            id="model",
        ),
        pytest.param(
            'version = "3f', 'version = "ff', "svd", "version", "no such version; the latest is 3f0457", id="version"
        ),
    ],
)
def test_what_is_gone_from_replicate_is_drift(
    old: str, new: str, model: str, field: str, message: str, online: Check, tmp_path: Path
) -> None:
    """A model or a version that answers 404; the others are compared all the same."""
    code, models = online.json(registry=edited(tmp_path, old, new))
    (found,) = models[model]["drift"]
    assert (code, found["field"]) == (1, f"models.{model}.{field}")
    assert message in found["message"]
    assert [name for name, told in models.items() if told["drift"]] == [model]


def test_the_shipped_registry_agrees_with_what_the_emulator_says_now(online: Check) -> None:
    """Over HTTP, with no snapshot in between."""
    assert online()[0] == 0


def test_a_refused_token_ends_with_3(online: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of any model."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", "wrong")
    code, out, err = online()
    assert (code, out) == (3, "")
    assert "refused the token (401)" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "REPLICATE_API_TOKEN is not set", id="no-token"),
        pytest.param(["--offline", "--snapshot"], "use one of them", id="both"),
        pytest.param(["--offline", "veo-9"], "'veo-9' is not in the registry", id="no-such-model"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(arguments: list[str], message: str, check: Check) -> None:
    """With what to do instead."""
    code, out, err = check(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_model_without_a_snapshot_is_not_taken_for_true(check: Check, tmp_path: Path) -> None:
    """Nor for drifted: nothing was compared, and the message tells how to come by a snapshot."""
    code, out, _ = check("--offline", "svd", "veo-3.1", "--schemas", str(make_snapshots(tmp_path, "google/veo-3.1")))
    assert code == 1
    assert out.splitlines() == [
        "svd: not compared: there is no snapshot of stability-ai/stable-video-diffusion in "
        f"{tmp_path}. To fetch and save one, run this with --snapshot instead of --offline; "
        "that needs REPLICATE_API_TOKEN.",
        "veo-3.1: agrees",
        f"1 model compared with the snapshots in {tmp_path}: all agree, 1 without a snapshot",
    ]


def test_a_missing_snapshot_is_told_apart_from_drift_in_json(check: Check, tmp_path: Path) -> None:
    """A program sees the same difference."""
    code, out, _ = check("--json", "--offline", "svd", "--schemas", str(tmp_path))
    found = json.loads(out)
    (model,) = found["models"]
    assert (code, found["drift"], model["drift"]) == (1, False, [])
    assert "there is no snapshot of stability-ai/stable-video-diffusion" in model["not_compared"]


def make_snapshots(folder: Path, *names: str) -> Path:
    """Copy shipped snapshots into the folder."""
    for name in names:
        endpoint = Snapshots(KEPT).read(name)
        assert endpoint
        Snapshots(folder).write(endpoint)
    return folder


def test_a_file_that_is_no_snapshot_is_told(check: Check, tmp_path: Path) -> None:
    """It is the file that is wrong, not the registry."""
    path = tmp_path / "stability-ai" / "stable-video-diffusion.json"
    path.parent.mkdir()
    path.write_text('{"name": 1}', encoding="utf-8")
    code, _, err = check("--offline", "svd", "--schemas", str(tmp_path))
    assert code == 2
    assert "stable-video-diffusion.json:1:2: name: " in err
