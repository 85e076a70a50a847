from decimal import Decimal
from pathlib import Path

import pytest

from videogen.errors import ValidationError
from videogen.registry.load import find_registry_path, read_registry
from videogen.registry.model_spec import Registry
from videogen.registry.prices import Price

MODEL = """
[models.mine]
replicate = "me/mine"
source = "https://example.com"
typical_run_seconds = 60
duration = { mode = "discrete", sizes = [5, 10], input = "duration" }
aspect_ratios = { "16:9" = {} }
parameters = { prompt = "prompt" }
price = { per_second = "0.10", as_of = 2026-11-01, basis = "exact" }
"""


def registry_of(text: str, folder: Path) -> Registry:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return read_registry(path)


def test_the_shipped_registry_has_the_described_models() -> None:
    """The seven models of the description, the truly continuous one, and those that people asked for since."""
    described = "kling-v2.1 kling-v2.5-turbo hailuo-2.3 wan-2.5-i2v veo-3.1 seedance-1-pro svd cogvideox"
    asked = (
        "kling-v2.6 kling-v3 kling-v3-omni kling-o1 veo-3.1-fast veo-3.1-lite seedance-1-lite seedance-1.5-pro "
        "seedance-2.0 seedance-2.0-fast seedance-2.5 hailuo-02 hailuo-2.3-fast wan-2.2-i2v-fast wan-2.6-t2v "
        "wan-2.7-t2v wan-2.7-i2v ltx-2.5-fast pixverse-v6 ray-3.2 gen-4.5 vidu-q3-pro grok-imagine-video p-video"
    )
    assert list(read_registry().models) == [*described.split(), *asked.split()]


def test_what_costs_money_is_always_sent() -> None:
    """Endpoints change their defaults. What the price depends on, and sound, is never left to them."""
    for name, spec in read_registry().models.items():
        always = {*spec.fixed, *(name for inputs in [*spec.tiers.values()][:1] for name in inputs)}
        always |= {name for inputs in [*spec.aspect_ratios.values()][:1] for name in inputs}
        priced = {each for row in spec.price.rows for each in row.when} | set(spec.audio.inputs if spec.audio else ())
        lengths = spec.duration.lengths
        assert priced <= always | spec.duration.make_inputs(lengths[0]).keys(), name


def test_an_unknown_model_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """The message is enough to mend the job."""
    with pytest.raises(
        ValidationError, match=r"'main' is not .*; `videogen models` lists the 33 there are; did you mean 'mine'"
    ):
        registry_of(MODEL, tmp_path).get_model("main")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "sizes = [5, 10]",
            "sizes = [5, -1]",
            "models.toml:6:45: models.mine.duration.sizes.1: input should be greater than 0, not -1",
            id="negative-size",
        ),
        pytest.param(
            "typical_run_seconds = 60",
            'typical_run_seconds = "6_0"',
            "models.toml:5:1: models.mine.typical_run_seconds: input should be a number, not '6_0'",
            id="text-for-a-number",
        ),
        pytest.param(
            'input = "duration"',
            'inptu = "duration"',
            "models.toml:6:50: models.mine.duration.inptu: unknown field",
            id="misspelt",
        ),
        pytest.param(
            'as_of = 2026-11-01, basis = "exact"',
            'basis = "exact"',
            "models.toml:9:1: models.mine.price.as_of: is required",
            id="missing",
        ),
        pytest.param('"16:9" = {}', '"wide" = {}', "models.toml:7:19: models.mine.aspect_ratios.wide", id="no-ratio"),
        pytest.param(
            '"16:9" = {}', '"5:4" = {}', "aspect_ratios.5:4: frame_sizes must name the size in pixels", id="no-size"
        ),
        pytest.param(
            'per_second = "0.10"',
            'per_second = "0.10", per_clip = "1"',
            "exactly one of per_second, per_clip, per_gpu_second",
            id="two-prices",
        ),
        pytest.param(
            'per_second = "0.10"',
            'per_clip = { 5 = "1" }',
            "price.per_clip: has no price for 10 s",
            id="size-without-price",
        ),
        pytest.param(
            'basis = "exact" }',
            'basis = "exact" }\naudio = { inputs = { sound = true }, price = { per_clip = { 5 = "1" }, '
            'as_of = 2026-11-01, basis = "exact" } }',
            "price.per_clip: has no price for 10 s",
            id="size-without-price-of-sound",
        ),
        pytest.param(
            'mode = "discrete"', 'mode = "some"', "models.toml:6:14: models.mine.duration.mode", id="no-such-mode"
        ),
    ],
)
def test_a_wrong_registry_says_where_and_what(old: str, new: str, message: str, tmp_path: Path) -> None:
    """File, line and column of the value, and what is wrong with it."""
    assert old in MODEL
    with pytest.raises(ValidationError) as caught:
        registry_of(MODEL.replace(old, new), tmp_path)
    assert message in str(caught.value)


def test_comments_move_no_position(tmp_path: Path) -> None:
    """Behind an inline table and within an array they are no values."""
    text = MODEL.replace('{ "16:9" = {} }', '{ "16:9" = { a = {} } }  # wide').replace("[5, 10]", "[\n5, # short\n-1]")
    with pytest.raises(ValidationError) as caught:
        registry_of(text, tmp_path)
    assert {problem.position for problem in caught.value.problems} == {"models.toml:8:1", "models.toml:9:30"}


def test_all_problems_of_a_registry_are_told_at_once(tmp_path: Path) -> None:
    """Mending one does not uncover the next."""
    text = MODEL.replace("[5, 10]", "[0, 10]").replace('"me/mine"', '"mine"').replace("= 60", "= 0")
    with pytest.raises(ValidationError) as caught:
        registry_of(text, tmp_path)
    assert [problem.where for problem in caught.value.problems] == [
        "models.mine.replicate",
        "models.mine.typical_run_seconds",
        "models.mine.duration.sizes.0",
    ]


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        pytest.param({"per_second": "0.07"}, "0.35", id="per-second"),
        pytest.param({"per_clip": "0.28"}, "0.28", id="per-clip"),
        pytest.param({"per_clip": {5: "0.28", 10: "0.56"}}, "0.28", id="per-clip-by-length"),
        pytest.param({"per_gpu_second": "0.001"}, "0.032", id="gpu-time"),
    ],
)
def test_a_price_is_exact_to_the_cent_and_below(price: dict[str, object], expected: str) -> None:
    """Five seconds that took 32 s of GPU time, in decimals, not in floats."""
    model = Price.model_validate({**price, "as_of": "2026-11-01", "basis": "exact"})
    assert model.calculate_cost(5.0, 32.0, {}) == Decimal(expected)


def extended_by(text: str, folder: Path) -> Registry:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_registry(path)


def test_an_own_registry_changes_single_values_and_nothing_else(tmp_path: Path) -> None:
    """A price, a ratio more, a default; all other values and models are the shipped ones."""
    own = """
        defaults.attempts = 5
        [models."veo-3.1".price]
        per_second = "0.15"
        [models."kling-v2.1".aspect_ratios]
        "9:16" = { mode = "pro" }
    """
    shipped, mine = read_registry().model_dump(), extended_by(own, tmp_path).model_dump()
    shipped["defaults"]["attempts"] = 5
    shipped["models"]["veo-3.1"]["price"]["per_second"] = Decimal("0.15")
    shipped["models"]["kling-v2.1"]["aspect_ratios"]["9:16"] = {"mode": "pro"}
    assert mine == shipped


@pytest.mark.parametrize(
    ("own", "path", "expected"),
    [
        pytest.param(
            '[models."hailuo-2.3".price]\nper_second = "0.05"',
            ("hailuo-2.3", "price"),
            {"per_second": Decimal("0.05"), "per_clip": None},
            id="another-kind-of-price",
        ),
        pytest.param(
            '[models."hailuo-2.3".price]\nper_clip = { 6 = "0.20" }',
            ("hailuo-2.3", "price"),
            {"per_clip": {6.0: Decimal("0.20"), 10.0: Decimal("0.56")}},
            id="one-price-of-a-table",
        ),
        pytest.param(
            '[models."kling-v2.5-turbo"]\nduration = { mode = "continuous", max = 10, input = "duration" }',
            ("kling-v2.5-turbo", "duration"),
            {"mode": "continuous", "min": 0.0, "max": 10.0},
            id="another-kind-of-duration",
        ),
        pytest.param(
            '[models."kling-v2.1".aspect_ratios]\n"16:9" = { mode = "standard" }',
            ("kling-v2.1", "aspect_ratios"),
            {"16:9": {"resolution": "1080p", "mode": "standard"}},
            id="one-input-of-a-ratio",
        ),
    ],
)
def test_of_values_that_exclude_each_other_the_own_is_left(
    own: str, path: tuple[str, str], expected: dict[str, object], tmp_path: Path
) -> None:
    """And only of those: an input that is called `mode` is an input."""
    found = extended_by(own, tmp_path).models[path[0]].model_dump()[path[1]]
    assert {name: found[name] for name in expected} == expected


def test_a_problem_is_told_in_the_file_where_the_value_stands(tmp_path: Path) -> None:
    """An own length without a price: the prices are in the shipped file."""
    with pytest.raises(ValidationError) as caught:
        extended_by('[models."hailuo-2.3".duration]\nsizes = [6, 12]\n[models.svd]\nsource = 3', tmp_path)
    own, shipped = caught.value.problems
    assert str(own).startswith("mine.toml:4:1: models.svd.source: input should be a string")
    line = int(shipped.position.split(":")[1])
    assert shipped.message == "has no price for 12 s"
    assert find_registry_path().read_text().splitlines()[line - 1].startswith('price = { per_clip = { 6 = "0.28"')
