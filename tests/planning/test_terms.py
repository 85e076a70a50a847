"""Conditions, tiers, frames, own inputs and price rows of the registry, in plans."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import job_of
from videogen.errors import ValidationError
from videogen.planning.own_inputs import validate_inputs
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.registry.load import read_registry
from videogen.registry.model_spec import Registry

STUDIO = """
[models.studio]
replicate = "kwaivgi/kling-v2.5-turbo-pro"
source = "https://example.com/studio"
typical_run_seconds = 60
duration = { mode = "discrete", steps = { min = 3, max = 12 }, input = "seconds" }
aspect_ratios = { "16:9" = { aspect_ratio = "16:9" }, "adaptive" = { aspect_ratio = "adaptive" } }
fixed = { generate_audio = false, styles = ["film", "grain"] }
default_tier = "standard"
retires = 2026-12-01
successor = "veo-3.1"

[models.studio.parameters]
prompt = "prompt"
image = "first"
end_image = "last"
end_image_needs_start = true
longest_prompt = 40

[models.studio.references]
input = "subjects"
max = 3
excludes = ["end_image"]

[models.studio.audio]
inputs = { generate_audio = true }

[models.studio.tiers]
draft = { resolution = "720p" }
standard = { resolution = "1080p" }
final = { resolution = "4k" }

[[models.studio.when]]
start_image = true
send = { aspect_ratio = "adaptive" }

[[models.studio.when]]
end_image = true
lengths = [5, 10]

[[models.studio.when]]
tier = "standard"
seconds = [10, 11, 12]
send = { resolution = "720p" }

[[models.studio.when]]
tier = "final"
audio = true
refuse = "4k has no sound"

[[models.studio.when]]
references = true
longest_prompt = 20

[models.studio.price]
as_of = 2026-11-01
basis = "exact"
rows = [
  { when = { resolution = "720p" }, per_second = "0.10" },
  { when = { resolution = "1080p", generate_audio = false }, per_second = "0.20" },
  { when = { resolution = "1080p", generate_audio = true }, per_second = "0.30" },
  { when = { resolution = "4k" }, per_clip = "9" },
]

[models.studio-fast]
extends = "studio"
default_tier = "draft"
when = []
duration = { frames = { counts = [81, 121], input = "num_frames", fps = 24, fps_input = "fps" } }
"""


GRADED = """
[models.graded]
extends = "studio"
replicate = "me/unknown"
fixed = { grade = "cold", seedling = 1 }
[models.graded.price]
rows = [{ when = { grade = "cold" }, per_second = "0.10" }, { when = { grade = "hot" }, per_second = "0.20" }]
"""


def registry_of(folder: Path, text: str = STUDIO) -> Registry:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_registry(path)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_of(tmp_path)


DIGESTS = {name: name[0] * 64 for name in ("a.png", "b.png", "c.png", "d.png")}


def plan(registry: Registry, *scenes: dict[str, Any], **fields: Any) -> Plan:
    return build_plan(job_of(*scenes, **{"model": "studio", **fields}), registry, digests=DIGESTS)


def sent(planned: Plan) -> dict[str, Any]:
    (request,) = planned.requests
    return request.prediction.inputs


def problems(registry: Registry, *scenes: dict[str, Any], **fields: Any) -> Sequence[str]:
    def check() -> None:
        validate_inputs(job_of(*scenes, **{"model": "studio", **fields}), registry)
        plan(registry, *scenes, **fields)

    with pytest.raises(ValidationError) as caught:
        check()
    return [f"{problem.where}: {problem.message}" for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("scene", "fields", "inputs", "cost"),
    [
        pytest.param({}, {}, {"resolution": "1080p", "generate_audio": False}, "1.00", id="default-tier"),
        pytest.param({}, {"tier": "draft"}, {"resolution": "720p"}, "0.50", id="tier-of-the-job"),
        pytest.param({"tier": "final"}, {"tier": "draft"}, {"resolution": "4k"}, "9", id="tier-of-the-scene"),
        pytest.param({}, {"audio": True}, {"resolution": "1080p", "generate_audio": True}, "1.50", id="with-sound"),
        pytest.param({"target_duration": 10}, {}, {"resolution": "720p", "seconds": 10}, "1.00", id="ten-seconds"),
        pytest.param({}, {"model": "studio-fast"}, {"num_frames": 121, "fps": 24}, "0.5042", id="extended"),
    ],
)
def test_the_inputs_and_the_price_follow_what_is_asked(
    registry: Registry, scene: dict[str, Any], fields: dict[str, Any], inputs: dict[str, Any], cost: str
) -> None:
    """The tier, sound, the length, and the row of prices that the inputs fit."""
    planned = plan(registry, scene, **fields)
    assert inputs.items() <= sent(planned).items()
    assert sent(planned)["styles"] == ["film", "grain"]
    assert planned.total_cost == Decimal(cost)


def test_the_price_with_the_other_sound_is_that_of_its_row(registry: Registry) -> None:
    """So that a clip that was billed with sound can be booked, although none was asked for."""
    for audio, price, other in ((False, "0.20", "0.30"), (True, "0.30", "0.20")):
        bill = plan(registry, {}, audio=audio).requests[0].prediction.expected_bill
        assert bill
        assert bill.price_with_other_sound
        assert (bill.price.per_second, bill.price_with_other_sound.per_second) == (Decimal(price), Decimal(other))


def test_an_input_that_is_not_to_be_had_is_told(registry: Registry) -> None:
    planned = plan(registry, {"target_duration": 10}, {})
    assert "studio: resolution 1080p is not to be had: 720p (s0)" in planned.warnings


@pytest.mark.parametrize(
    ("scene", "inputs", "dropped"),
    [
        pytest.param({"start_image": "a.png"}, {"first": "frame"}, False, id="start"),
        pytest.param(
            {"start_image": "a.png", "end_image": "b.png"}, {"first": "frame", "last": "frame"}, False, id="both"
        ),
        pytest.param({"scene_reference_url": "a.png"}, {"subjects": "list"}, False, id="subjects"),
        pytest.param(
            {"start_image": "a.png", "character_reference_urls": ["b.png", "c.png"]},
            {"first": "frame", "subjects": "list"},
            False,
            id="start-and-subjects",
        ),
        pytest.param(
            {"scene_reference_url": "a.png", "end_image": "b.png"},
            {"first": "frame", "last": "frame"},
            False,
            id="subjects-excluded-by-the-end",
        ),
        pytest.param(
            {"start_image": "a.png", "end_image": "b.png", "character_reference_urls": ["c.png"]},
            {"first": "frame", "last": "frame"},
            True,
            id="no-place-for-subjects",
        ),
        pytest.param(
            {"character_reference_urls": ["a.png", "b.png", "c.png", "d.png"]}, {"first": "frame"}, False, id="too-many"
        ),
    ],
)
def test_pictures_go_where_the_model_takes_them(
    registry: Registry, scene: dict[str, Any], inputs: dict[str, str], dropped: bool
) -> None:
    """To the start frame, the end frame and the list, as far as one does not exclude the other."""
    planned = plan(registry, scene)
    pictures = {name: value for name, value in sent(planned).items() if name in ("first", "last", "subjects")}
    assert {name: "list" if isinstance(value, list) else "frame" for name, value in pictures.items()} == inputs
    assert bool(planned.requests[0].references.dropped) is dropped
    assert any("the start image takes their place" in warning for warning in planned.warnings) is dropped
    assert sent(planned)["aspect_ratio"] == ("adaptive" if "first" in inputs else "16:9")


def test_a_ratio_that_the_model_chooses_leaves_the_picture_as_it_is(registry: Registry) -> None:
    """It is not cut to a ratio before."""
    assert sent(plan(registry, {"start_image": "a.png"}, aspect_ratio="adaptive"))["first"] == f"sha256:{'a' * 64}"


def test_fewer_lengths_are_to_be_had_with_an_end_image(registry: Registry) -> None:
    scene = {"start_image": "a.png", "end_image": "b.png", "target_duration": 6}
    assert plan(registry, scene).requests[0].requested_duration == 10
    assert plan(registry, {"target_duration": 6}).requests[0].requested_duration == 6


def test_another_tier_or_input_is_another_clip(tmp_path: Path) -> None:
    """What was made as a draft is not taken for the final clip."""
    given: list[dict[str, Any]] = [{}, {"tier": "draft"}, {"inputs": {"camera_fixed": True}}, {"start_image": "a.png"}]
    unknown = registry_of(tmp_path, STUDIO.replace("kwaivgi/kling-v2.5-turbo-pro", "me/unknown"))
    planned = plan(unknown, *({"prompt": "p", **scene} for scene in given))
    assert len({request.key for request in planned.requests}) == 4


@pytest.mark.parametrize(
    ("scene", "fields", "problem"),
    [
        pytest.param(
            {}, {"tier": "drfat"}, "tier: studio has no tier 'drfat'; it has draft, standard, final", id="tier"
        ),
        pytest.param(
            {}, {"tier": "draft", "model": "kling-v2.5-turbo"}, "tier: kling-v2.5-turbo has no tier 'draft'", id="none"
        ),
        pytest.param(
            {"tier": "final"}, {"audio": True}, "scenes.0: studio cannot make scene 's0': 4k has no sound", id="refused"
        ),
        pytest.param(
            {"prompt": "x" * 41}, {}, "scenes.0.prompt: studio takes at most 40 characters, and the prompt", id="prompt"
        ),
        pytest.param(
            {"prompt": "x" * 21, "scene_reference_url": "a.png"},
            {},
            "scenes.0.prompt: studio takes at most 20 characters",
            id="prompt-with-subjects",
        ),
        pytest.param(
            {"end_image": "a.png"},
            {},
            "scenes.0.end_image: studio takes an end image only with a start",
            id="end-alone",
        ),
        pytest.param(
            {"end_image": "a.png", "scene_reference_url": "b.png"},
            {"model": "kling-v3-omni"},
            "scenes.0.end_image: kling-v3-omni takes an end image only with a start image",
            id="end-beside-references",
        ),
        pytest.param(
            {"end_image": "a.png"},
            {"model": "hailuo-2.3"},
            "scenes.0.end_image: hailuo-2.3 takes no end image: these models do: kling-v2.1, kling-v2.5-turbo",
            id="no-end",
        ),
        pytest.param(
            {"inputs": {"promt": "x"}}, {}, "scenes.0.inputs.promt: studio has no input 'promt'; did you", id="input"
        ),
        pytest.param(
            {}, {"inputs": {"prompt": "x"}}, "inputs.prompt: 'prompt' is set by the field prompt: give it", id="taken"
        ),
        pytest.param(
            {}, {"inputs": {"duration": "7"}}, "inputs.duration: \"7\" is refused: 'duration' takes one of", id="value"
        ),
        pytest.param(
            {},
            {"inputs": {"grade": "warm"}, "model": "graded"},
            'scenes.0: graded has no price: no row for a clip with grade = "warm"',
            id="price",
        ),
        pytest.param(
            {},
            {"inputs": {"resolution": "4k"}},
            "inputs.resolution: 'resolution' is set by the field tier",
            id="own-tier",
        ),
        pytest.param(
            {},
            {"inputs": {"aspect_ratio": "9:16"}},
            "inputs.aspect_ratio: 'aspect_ratio' is set by the field aspect_ratio",
            id="ratio",
        ),
        pytest.param(
            {}, {"inputs": {"generate_audio": True}}, "inputs.generate_audio: 'generate_audio' is set by", id="sound"
        ),
        pytest.param(
            {"inputs": {"subjects": ["https://a.example/a.png"]}},
            {},
            "scenes.0.inputs.subjects: 'subjects' is set by the field scene_reference_url",
            id="references",
        ),
        pytest.param(
            {},
            {"inputs": {"fps": 12}, "model": "studio-fast"},
            "inputs.fps: 'fps' is set by the field target",
            id="rate",
        ),
        pytest.param(
            {"target_duration": 30}, {}, "scenes.0.target_duration: studio makes at most 12 s, more than", id="length"
        ),
    ],
)
def test_what_a_model_does_not_make_is_told_with_its_place(
    tmp_path: Path, scene: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    """And with what would be right."""
    (told,) = problems(registry_of(tmp_path, STUDIO + GRADED), scene, **fields)
    assert told.startswith(problem)


def test_an_input_that_the_price_does_not_know_is_warned_about(tmp_path: Path) -> None:
    """Where it takes the place of one that is always sent; one with a row of its own has its own price."""
    registry = registry_of(tmp_path, STUDIO + GRADED)
    planned = plan(registry, {}, model="graded", inputs={"seedling": 2, "grade": "hot"})
    about = [warning for warning in planned.warnings if "seedling" in warning or "grade" in warning]
    assert about == ["graded: seedling = 2 is sent in place of 1, for which its price was looked up"]
    assert planned.total_cost == Decimal("1.00")


def test_conditions_that_leave_no_length_refuse_the_clip(tmp_path: Path) -> None:
    registry = registry_of(
        tmp_path,
        STUDIO
        + """
[models.narrow]
extends = "studio"
[[models.narrow.when]]
start_image = true
lengths = [5]
[[models.narrow.when]]
end_image = true
lengths = [10]
""",
    )
    (told,) = problems(registry, {"start_image": "a.png", "end_image": "b.png"}, model="narrow")
    assert told == "scenes.0: narrow cannot make scene 's0': its conditions leave no length for such a clip"


def test_a_ratio_that_the_start_frame_decides_is_no_other_ratio(registry: Registry) -> None:
    """The frame is cut to the ratio that was asked for."""
    planned = plan(registry, {"start_image": "a.png"})
    assert sent(planned)["aspect_ratio"] == "adaptive"
    assert [warning for warning in planned.warnings if "aspect_ratio" in warning] == []


def test_the_length_can_be_left_to_the_model() -> None:
    """By an input of the job's own, where the model has one for it. The plan has the price of the longest clip."""
    asked = {"model": "seedance-2.0", "inputs": {"duration": -1}}
    planned = plan(read_registry(), {"target_duration": 6}, **asked)
    (request,) = planned.requests
    assert (sent(planned)["duration"], request.requested_duration, request.cost) == (-1, 15, Decimal("2.70"))
    assert not request.prediction.cost_is_exact
    assert (
        "seedance-2.0: the length is left to the model; the price is that of its longest clip (s0)" in planned.warnings
    )
    validate_inputs(job_of({}, **asked), read_registry())
    (told,) = problems(read_registry(), {"inputs": {"duration": 7}}, model="seedance-2.0")
    assert told == (
        "scenes.0.inputs.duration: 'duration' is set by the field target_duration: give it there, "
        "or -1 here for a length that the model chooses"
    )


def test_the_longest_clip_obeys_the_conditions_of_the_model(tmp_path: Path) -> None:
    free = '[models.free]\nextends = "studio"\nduration = { automatic = { seconds = -1 } }\n'
    asked = {"model": "free", "tier": "draft", "inputs": {"seconds": -1}}
    registry = registry_of(tmp_path, STUDIO + free)
    frames = {"start_image": "a.png", "end_image": "b.png"}
    assert [plan(registry, scene, **asked).requests[0].requested_duration for scene in ({}, frames)] == [12, 10]


@pytest.mark.parametrize(
    ("day", "problem", "warning"),
    [
        (date(2026, 9, 1), None, None),
        (date(2026, 11, 28), None, "studio retires on 2026-12-01: use veo-3.1"),
        (date(2026, 12, 1), "studio retired on 2026-12-01: use veo-3.1", None),
    ],
)
def test_a_model_retires(registry: Registry, day: date, problem: str | None, warning: str | None) -> None:
    """First its plans warn, then it is refused; its successor is named both times."""
    job = job_of({}, model="studio")
    if problem:
        with pytest.raises(ValidationError, match=problem):
            build_plan(job, registry, today=day)
        return
    told = [each for each in build_plan(job, registry, today=day).warnings if "retires" in each]
    assert told == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("old", "new", "where", "says"),
    [
        ('extends = "studio"', 'extends = "studo"', "extends", "'studo' is not in the registry"),
        ('extends = "studio"', 'extends = "studio-fast"', "extends", "studio-fast extends itself"),
        ('default_tier = "standard"', "", "studio", "and tiers belong together"),
        ('default_tier = "standard"', 'default_tier = "finl"', "default_tier", "'finl' is no tier"),
        ('tier = "final"\naudio', 'tier = "finale"\naudio', "when[3].tier", "'finale' is no tier of this model"),
        ("lengths = [5, 10]", "lengths = [5, 20]", "when[1].lengths", "20 s cannot be requested"),
        ('refuse = "4k has no sound"', "", "when[3]", "changes nothing"),
        ('  { when = { resolution = "4k" }, per_clip = "9" },\n', "", "price.rows", "no row for a clip with"),
        ('{ resolution = "720p" }, per_second', "{ }, per_second", "price.rows", "2 rows for a clip with"),
        ('per_clip = "9"', 'per_clip = "9", per_second = "1"', "price.rows[3]", "give exactly one of per_second"),
        ('successor = "veo-3.1"', 'successor = "veo-3"', "successor", "'veo-3' is not in the registry"),
        ("steps = { min = 3, max = 12 }", "steps = { min = 3 }", "duration.steps.max", "is required"),
        ("inputs = { generate_audio = true }", "", "audio", "give either `inputs`"),
    ],
)
def test_a_misuse_is_told_with_file_line_and_column(tmp_path: Path, old: str, new: str, where: str, says: str) -> None:
    text = STUDIO.replace(old, new)
    assert text != STUDIO
    with pytest.raises(ValidationError) as caught:
        registry_of(tmp_path, text)
    problem = caught.value.problems[0]
    assert (problem.position or "").startswith("mine.toml:")
    assert problem.where.endswith(where.replace("[", ".").replace("]", "")), problem
    assert says in problem.message
