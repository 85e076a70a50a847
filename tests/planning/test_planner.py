from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support.builders import small_registry
from videogen.errors import ValidationError
from videogen.job.model import Job
from videogen.planning.plan import Plan
from videogen.planning.planner import build_plan
from videogen.planning.requests import ClipRequest, ImageInput, ReferenceUse
from videogen.planning.rules import validate_budget
from videogen.registry.load import read_registry

REGISTRY = read_registry()
TARGETS_S = (3, 5, 5.1, 7.5, 8, 10)
DIGESTS = {"bg.jpg": "b" * 64, "anna.png": "a" * 64, "ben.png": "e" * 64}


def scene(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "prompt": "p", "target_duration": 5, **fields}


def planned(model: str, *scenes: dict[str, Any], buffer: float | None = None, **fields: Any) -> Plan:
    job = Job.model_validate({"model": model, "scenes": scenes or [scene()], **fields})
    return build_plan(job, REGISTRY, digests=DIGESTS, buffer=buffer)


def with_image(model: str) -> dict[str, Any]:
    needed = REGISTRY.models[model].parameters.image_required
    return {"scene_reference_url": "bg.jpg"} if needed else {}


BUFFERED_AND_REQUESTED_S: dict[str, list[tuple[float, float] | None]] = {
    "kling-v2.1": [(5, 5), (5, 5), (10, 10), (10, 10), (10, 10), (10, 10)],
    "kling-v2.5-turbo": [(5, 5), (5, 5), (10, 10), (10, 10), (10, 10), (10, 10)],
    "hailuo-2.3": [(6, 6), (6, 6), (6, 6), (10, 10), (10, 10), (10, 10)],
    "wan-2.5-i2v": [(5, 5), (5, 5), (10, 10), (10, 10), (10, 10), (10, 10)],
    "veo-3.1": [(3.75, 4), (6.25, 8), (6.375, 8), (9.375, 8), (10, 8), (10, 8)],
    "seedance-1-pro": [(3.75, 4), (6.25, 7), (6.375, 7), (9.375, 10), (10, 10), (12, 12)],
    "svd": [(3.125, 3.125), (5, 5), (5, 5), None, None, None],
    "cogvideox": [(6.125, 6.125), (6.125, 6.125), (6.125, 6.125), (6.125, 6.125), (6.125, 6.125), None],
}
"""By model, for each of TARGETS_S; None where the target cannot be met within 2 s."""


@pytest.mark.parametrize(
    ("model", "target_s", "expected"),
    [
        pytest.param(model, target, expected, id=f"{model}-{target}s")
        for model, row in BUFFERED_AND_REQUESTED_S.items()
        for target, expected in zip(TARGETS_S, row, strict=True)
    ],
)
def test_each_model_is_asked_for_its_durations(
    model: str, target_s: float, expected: tuple[float, float] | None
) -> None:
    """Maximum buffer for discrete models, 25 % for continuous ones, what the endpoint accepts for all."""
    wanted = scene(target_duration=target_s, **with_image(model))
    if expected is None:
        with pytest.raises(ValidationError, match=r"split the scene into 2 of"):
            planned(model, wanted)
        return
    request = planned(model, wanted).requests[0]
    assert (request.buffered_duration, request.requested_duration) == expected


def test_the_spec_example_keeps_both_figures() -> None:
    """Veo 3.1, 6 s: buffered to 7.5 s, and 8 s is what its endpoint accepts."""
    request = planned("veo-3.1", scene(target_duration=6)).requests[0]
    assert (request.buffered_duration, request.requested_duration, request.prediction.inputs["duration"]) == (7.5, 8, 8)
    assert isinstance(request.prediction.inputs["duration"], int)


def test_the_buffer_changes_continuous_models_only() -> None:
    """VIDEO_GENERATOR_DURATION_BUFFER has no say in discrete sizes."""
    assert planned("veo-3.1", buffer=1.0).requests[0].buffered_duration == 5
    assert planned("kling-v2.5-turbo", buffer=2.0).requests[0].buffered_duration == 5


RATIO_INPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "kling-v2.1": {"16:9": {"resolution": "1080p", "mode": "pro"}},
    "kling-v2.5-turbo": {
        "16:9": {"resolution": "1080p", "aspect_ratio": "16:9"},
        "9:16": {"resolution": "1080p", "aspect_ratio": "9:16"},
        "1:1": {"resolution": "1080p", "aspect_ratio": "1:1"},
        "4:3": {"resolution": "1080p", "aspect_ratio": "16:9"},
        "3:4": {"resolution": "1080p", "aspect_ratio": "9:16"},
    },
    "hailuo-2.3": {ratio: {"aspect_ratio": ratio} for ratio in ("16:9", "9:16", "1:1")},
    "wan-2.5-i2v": {ratio: {"aspect_ratio": ratio} for ratio in ("16:9", "1:1", "9:16")},
    "veo-3.1": {ratio: {"aspect_ratio": ratio} for ratio in ("16:9", "9:16")},
    "seedance-1-pro": {ratio: {"aspect_ratio": ratio} for ratio in ("16:9", "9:16", "1:1", "4:3", "3:4")},
    "svd": {
        "16:9": {"sizing_strategy": "crop_to_16_9"},
        "9:16": {"sizing_strategy": "use_image_dimensions"},
        "1:1": {"sizing_strategy": "use_image_dimensions"},
    },
    "cogvideox": {"16:9": {}, "1:1": {}},
}


@pytest.mark.parametrize("model", RATIO_INPUTS)
@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1", "4:3", "3:4"])
def test_each_ratio_sends_its_inputs_or_is_refused(model: str, ratio: str) -> None:
    """The described parameter and the effective one; an unsupported ratio names those that are supported."""
    wanted = scene(**with_image(model))
    if ratio not in RATIO_INPUTS[model]:
        with pytest.raises(ValidationError) as caught:
            planned(model, wanted, aspect_ratio=ratio)
        supported = ", ".join(RATIO_INPUTS[model])
        assert str(caught.value) == f"aspect_ratio: {model} does not support '{ratio}'; it supports {supported}"
        return
    inputs = planned(model, wanted, aspect_ratio=ratio).requests[0].prediction.inputs
    expected = RATIO_INPUTS[model][ratio]
    ratio_names = {name for inputs_ in RATIO_INPUTS[model].values() for name in inputs_}
    assert {name: value for name, value in inputs.items() if name in ratio_names} == expected


@pytest.mark.parametrize(
    ("model", "fixed"),
    [
        pytest.param("svd", {"motion_bucket_id": 127, "video_length": "25_frames_with_svd_xt"}, id="motion"),
        pytest.param("cogvideox", {"steps": 30}, id="steps"),
        pytest.param("veo-3.1", {"generate_audio": False}, id="no-paid-audio"),
        pytest.param("seedance-1-pro", {"fps": 24}, id="fps"),
    ],
)
def test_the_generation_settings_go_to_the_models_that_take_them(model: str, fixed: dict[str, Any]) -> None:
    """Motion 127, 20 to 30 steps, 24 to 30 frames a second; audio that costs is off."""
    inputs = planned(model, scene(**with_image(model))).requests[0].prediction.inputs
    assert fixed.items() <= inputs.items()


def test_sound_has_its_inputs_its_price_and_its_key() -> None:
    """Veo 3.1: $0.40 a second in place of $0.20; a silent clip is another clip."""
    silent, heard = planned("veo-3.1"), planned("veo-3.1", audio=True)
    assert (silent.requests[0].prediction.inputs["generate_audio"], silent.total_cost) == (False, Decimal("1.60"))
    assert (heard.requests[0].prediction.inputs["generate_audio"], heard.total_cost) == (True, Decimal("3.20"))
    assert silent.requests[0].key != heard.requests[0].key


@pytest.mark.parametrize("model", REGISTRY.models)
@pytest.mark.parametrize("audio", [False, True])
def test_the_planned_price_is_that_of_the_expected_bill(model: str, audio: bool) -> None:
    """Whatever is billed is compared with it. GPU time is not billed by the output."""
    request = planned(model, scene(**with_image(model)), audio=audio).requests[0].prediction
    expected, price = request.expected_bill, REGISTRY.models[model].price
    assert (expected is None) == (price.per_gpu_second is not None)
    if expected:
        assert expected.price.calculate_cost(expected.seconds) == request.cost
        assert expected.source == REGISTRY.models[model].source


def test_the_expected_bill_has_what_is_asked_for() -> None:
    """An input that the endpoint ignores asks for nothing. Sound that cannot be asked for is not expected."""

    def expect(model: str, **fields: Any) -> tuple[str | None, bool | None]:
        bill = planned(model, scene(**with_image(model)), **fields).requests[0].prediction.expected_bill
        assert bill
        return bill.resolution, bill.sound

    assert expect("veo-3.1") == ("1080p", False)
    assert expect("veo-3.1", audio=True) == ("1080p", True)
    assert expect("kling-v2.5-turbo") == (None, False)
    assert expect("seedance-1-pro", audio=True) == ("1080p", None)


@pytest.mark.parametrize("model", [name for name, spec in REGISTRY.models.items() if not spec.audio])
def test_a_model_without_sound_is_warned_of_and_costs_no_more(model: str) -> None:
    """Its clip is the same clip: what was delivered is not paid for again."""
    silent, heard = (planned(model, scene(**with_image(model)), audio=audio) for audio in (False, True))
    assert set(heard.warnings) - set(silent.warnings) == {
        f"{model}: sound is wanted, but the model cannot be asked for it (a)"
    }
    assert (heard.total_cost, heard.requests[0].key) == (silent.total_cost, silent.requests[0].key)


def test_a_scene_is_sent_under_the_names_its_model_knows() -> None:
    """What a model does not take is left out, and the plan says so."""
    wanted = scene(negative_prompt="n", seed=7)
    assert planned("wan-2.5-i2v", wanted | {"scene_reference_url": "bg.jpg"}).requests[0].prediction.inputs == {
        "prompt": "p",
        "negative_prompt": "n",
        "seed": 7,
        "image": planned("wan-2.5-i2v", wanted | {"scene_reference_url": "bg.jpg"})
        .requests[0]
        .prediction.inputs["image"],
        "aspect_ratio": "16:9",
        "duration": 5,
        "resolution": "720p",
    }
    plan_ = planned("hailuo-2.3", wanted)
    assert not {"negative_prompt", "seed"} & set(plan_.requests[0].prediction.inputs)
    assert "hailuo-2.3: the negative prompt is not sent (a)" in plan_.warnings
    assert "hailuo-2.3: the seed is not sent (a)" in plan_.warnings


def test_a_model_that_lists_references_gets_them_one_by_one() -> None:
    """Veo at 16:9 and 8 s: up to three, the scene first."""
    wanted = scene(target_duration=8, scene_reference_url="bg.jpg", character_reference_urls=["anna.png"])
    request = planned("veo-3.1", wanted).requests[0]
    assert request.prediction.inputs["reference_images"] == [f"sha256:{'b' * 64}", f"sha256:{'a' * 64}"]
    assert request.references.used == ("bg.jpg", "anna.png")
    assert "image" not in request.prediction.inputs


@pytest.mark.parametrize(
    ("model", "warned"), [("seedance-2.0", True), ("seedance-2.0-fast", True), ("kling-v3", False)]
)
def test_pictures_that_a_model_refuses_are_warned_of_where_it_gets_any(model: str, warned: bool) -> None:
    """Nobody looks into the picture: its author knows what it shows."""
    scenes = scene(id="plain"), scene(id="faces", start_image="anna.png")
    told = [each for each in planned(model, *scenes).warnings if "refuse" in each]
    assert told == [f"{model}: it may refuse pictures with photoreal faces (faces)"] * warned


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"target_duration": 4}, id="not-8-s"),
        pytest.param({"character_reference_urls": ["anna.png", "ben.png", "anna.png"]}, id="too-many"),
    ],
)
def test_references_are_composed_where_the_list_does_not_apply(fields: dict[str, Any]) -> None:
    """One start frame of all of them."""
    wanted = scene(target_duration=8, scene_reference_url="bg.jpg", character_reference_urls=["anna.png"]) | fields
    request = planned("veo-3.1", wanted).requests[0]
    assert request.references.composed[0] == "bg.jpg"
    assert request.prediction.inputs["image"].startswith("frame:")
    assert "reference_images" not in request.prediction.inputs


def test_a_model_without_pictures_drops_references_and_says_so() -> None:
    """CogVideoX gets the text alone."""
    plan_ = planned("cogvideox", scene(scene_reference_url="bg.jpg"))
    assert plan_.requests[0].references.dropped == ("bg.jpg",)
    assert "cogvideox: references are dropped, the model takes no images (a)" in plan_.warnings


@pytest.mark.parametrize("model", ["kling-v2.1", "wan-2.5-i2v", "svd"])
def test_a_missing_start_image_is_refused_before_anything_is_spent(model: str) -> None:
    """The message names the scene and the field."""
    with pytest.raises(ValidationError, match=r"scenes.0.scene_reference_url: .* needs a start image: .* scene 'a'"):
        planned(model)


def test_every_problem_of_a_job_is_told_at_once() -> None:
    """The ratio, the missing image and the length of one, and of the next."""
    with pytest.raises(ValidationError) as caught:
        planned("kling-v2.1", scene(target_duration=14), scene(id="b"), aspect_ratio="9:16")
    assert [problem.where for problem in caught.value.problems] == [
        "aspect_ratio",
        "scenes.0.scene_reference_url",
        "scenes.0.target_duration",
        "scenes.1.scene_reference_url",
    ]


def test_the_plan_adds_up_prices_and_what_the_buffer_costs() -> None:
    """Kling v2.5: $0.07 a second; 7.5 s pays for 10."""
    plan_ = planned("kling-v2.5-turbo", scene(), scene(id="b", prompt="q", target_duration=7.5))
    assert (plan_.total_cost, plan_.worst_case_cost) == (Decimal("1.05"), Decimal("3.15"))
    assert [request.buffer_cost_impact for request in plan_.requests] == [0.0, 33.3]
    assert plan_.buffer_cost_impact == 16.6


def test_a_plan_above_the_cap_is_refused() -> None:
    """What is reused does not count."""
    plan_ = planned("kling-v2.5-turbo", max_cost="0.34")
    with pytest.raises(ValidationError, match=r"the plan costs \$0.35, \$0.01 above the cap of \$0.34"):
        validate_budget(plan_)
    job = Job.model_validate({"model": "kling-v2.5-turbo", "max_cost": 0, "scenes": [scene()]})
    validate_budget(build_plan(job, REGISTRY).with_reuse({plan_.requests[0].key}))


def test_the_plan_tells_what_is_spent_from_what_is_reserved() -> None:
    plan_ = planned("kling-v2.5-turbo", max_cost="0.50").with_prior_cost(Decimal("0.10"), Decimal("0.35"))
    assert plan_.describe_spending() == "spent so far $0.10 and $0.35 reserved of $0.50, this run $0.35"
    assert plan_.warnings[-1].endswith(
        "clips that the remaining $0.05 does not cover will fail with `budget`. --max-cost 0.80 covers all of them"
    )
    assert planned("kling-v2.5-turbo").with_prior_cost(Decimal("0.10")).describe_spending() == (
        "spent so far $0.10, this run $0.35"
    )


def test_the_same_clip_twice_is_paid_for_once() -> None:
    """Another take is another clip."""
    plan_ = planned("kling-v2.5-turbo", scene(), scene(id="b"), scene(id="c", take=2))
    assert plan_.reused == {"b"}
    assert len({request.key for request in plan_.requests}) == 2


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"prompt": "q"}, id="prompt"),
        pytest.param({"target_duration": 6}, id="length"),
        pytest.param({"take": 2}, id="take"),
        pytest.param({"scene_reference_url": "bg.jpg"}, id="picture"),
    ],
)
def test_what_changes_the_clip_changes_its_key(fields: dict[str, Any]) -> None:
    """And nothing else: a renamed scene, or a target that asks for the same length, keeps it."""
    key = planned("kling-v2.5-turbo").requests[0].key
    assert planned("kling-v2.5-turbo", scene(**fields)).requests[0].key != key
    assert planned("kling-v2.5-turbo", scene(id="b", target_duration=4)).requests[0].key == key


def test_the_bytes_of_a_picture_are_in_the_key_and_not_its_address() -> None:
    """The same picture from elsewhere is the same clip; another one under the same address is not."""
    job = Job.model_validate({"scenes": [scene(scene_reference_url="x")]})
    moved = Job.model_validate({"scenes": [scene(scene_reference_url="y")]})
    key = build_plan(job, REGISTRY, digests={"x": "1"}).requests[0].key
    assert build_plan(moved, REGISTRY, digests={"y": "1"}).requests[0].key == key
    assert build_plan(job, REGISTRY, digests={"x": "2"}).requests[0].key != key


def test_a_timeout_below_the_typical_run_is_warned_of() -> None:
    """The description's 120 s is too short for Kling."""
    plan_ = planned("kling-v2.5-turbo", timeout_seconds=120)
    assert plan_.warnings == ("the timeout of 120 s is below the 150 s that kling-v2.5-turbo typically needs",)


def test_the_minimum_is_capped_at_the_number_of_scenes() -> None:
    """Three by default, two of two scenes."""
    assert planned("kling-v2.5-turbo", *(scene(id=f"s{n}") for n in range(8))).min_clips == 3
    assert planned("kling-v2.5-turbo", scene(), scene(id="b")).min_clips == 2


def test_the_summary_is_what_a_dry_run_prints() -> None:
    """Names are a public face."""
    summary = planned("kling-v2.5-turbo", scene(scene_reference_url="bg.jpg")).summary()
    assert set(summary) >= {"model", "aspect_ratio", "total_cost", "worst_case_cost", "buffer_cost_impact", "warnings"}
    row = summary["scenes"][0]
    assert row["references"] == {"used": [], "composed": ["bg.jpg"], "dropped": []}
    assert (row["scene_id"], row["original_target_duration"], row["cost"], row["reused"]) == ("a", 5, "0.350", False)


def test_clips_that_take_longest_are_begun_first() -> None:
    """The plan itself, and what comes of it, stay in scene order."""
    targets = (5, 10, 4, 8)
    made = planned("kling-v2.5-turbo", *(scene(id=f"s{t}", prompt=f"{t}", target_duration=t) for t in targets))
    assert [request.scene.id for request in made.start_order] == ["s10", "s8", "s5", "s4"]
    assert [request.scene.id for request in made.requests] == ["s5", "s10", "s4", "s8"]


def test_the_plan_says_how_long_a_run_takes() -> None:
    """Seven clips of 150 s in three slots are three rounds; what is reused takes no time."""
    made = planned("kling-v2.5-turbo", *(scene(id=f"s{n}", take=n) for n in range(1, 8)), concurrency=3)
    assert made.expected_s == 450
    assert made.with_reuse({request.key for request in made.requests[1:]}).expected_s == 150


def test_an_old_price_is_warned_of() -> None:
    """After 90 days."""
    job = Job.model_validate({"model": "kling-v2.5-turbo", "scenes": [scene()]})
    as_of = REGISTRY.models["kling-v2.5-turbo"].price.as_of
    assert build_plan(job, REGISTRY, today=as_of + timedelta(days=90)).warnings == ()
    (warning,) = build_plan(job, REGISTRY, today=as_of + timedelta(days=91)).warnings
    assert warning.startswith("kling-v2.5-turbo: its price of 2026-11-01 is 91 days old, look it up at https://")


def test_an_estimated_price_is_told_from_a_published_one() -> None:
    """For each scene and for the whole."""
    assert planned("kling-v2.5-turbo").summary()["cost_is_exact"] is True
    guessed = planned("cogvideox").summary()
    assert (guessed["cost_is_exact"], guessed["scenes"][0]["cost_is_exact"]) == (False, False)


def compared(*scenes: dict[str, Any], **fields: Any) -> Plan:
    models = ["kling-v2.5-turbo", "hailuo-2.3"]
    return build_plan(Job.model_validate({"models": models, "scenes": scenes or [scene()], **fields}), REGISTRY)


def test_compared_models_make_every_scene_side_by_side() -> None:
    """Each cell is a clip of its own with its own key, and the budget is for all of them."""
    made = compared(scene(id="a"), scene(id="b", prompt="q"), takes=2)
    assert [request.scene.id for request in made.requests[:4]] == [
        "a.kling-v2.5-turbo.take-1",
        "a.kling-v2.5-turbo.take-2",
        "a.hailuo-2.3.take-1",
        "a.hailuo-2.3.take-2",
    ]
    assert [request.clip_index for request in made.requests] == list(range(8))
    assert len({request.key for request in made.requests}) == 8
    assert (made.variants_per_scene, made.model) == (4, "kling-v2.5-turbo, hailuo-2.3")
    assert made.total_cost == 4 * Decimal("0.35") + 4 * Decimal("0.28")
    with pytest.raises(ValidationError, match=r"\$1.52 above the cap of \$1.00"):
        validate_budget(compared(scene(), max_cost="1", takes=4))


def test_a_clip_of_a_comparison_is_the_same_as_without_one() -> None:
    """So it is reused by a later job, and a single run's clip by the comparison."""
    alone = planned("hailuo-2.3", scene(id="a"))
    assert compared(scene(id="a")).requests[1].key == alone.requests[0].key


def test_takes_of_one_model_are_named_by_take() -> None:
    """The model is not in the name where there is only one."""
    made = planned("kling-v2.5-turbo", scene(id="a", take=3), takes=2)
    assert [(request.scene.id, request.scene.take) for request in made.requests] == [("a.take-1", 3), ("a.take-2", 4)]


def test_every_compared_model_is_checked() -> None:
    """What one of them cannot do is said, with its name; so is one that is not there."""
    fields = {"models": ["kling-v2.5-turbo", "kling-v2.1", "nobody"], "scenes": [scene()]}
    with pytest.raises(ValidationError) as caught:
        build_plan(Job.model_validate(fields), REGISTRY)
    assert [problem.where for problem in caught.value.problems] == ["scenes.0.scene_reference_url", "models.2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"models": ["a", "a"]}, "a is compared already", id="twice"),
        pytest.param({"models": ["a", "b"], "fallback_models": ["c"]}, "leave it out", id="fallback"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    """Before anything is planned."""
    with pytest.raises(ValueError, match=message):
        Job.model_validate({"scenes": [scene()], **fields})


# -- every field of a request, on a registry of its own ---------------------------------------------------------------


def requested(spec: dict[str, Any], *, defaults: dict[str, Any] | None = None, **fields: Any) -> ClipRequest:
    """The only request of a job on a model that differs so from the usual one of `small_registry`."""
    registry = small_registry(defaults=defaults, mine=spec, other={})
    job = Job.model_validate({"model": "mine", "scenes": [scene()], **fields})
    return build_plan(job, registry, digests=DIGESTS, cut_outs={DIGESTS["ben.png"], DIGESTS["bg.jpg"]}).requests[0]


def sent_frame(request: ClipRequest, name: str = "start") -> ImageInput:
    return request.prediction.images[request.prediction.inputs[name]]


def test_a_request_has_all_that_its_model_and_its_job_say() -> None:
    spec = {
        "version": "1" * 64,
        "timeout_seconds": 300,
        "fixed": {"steps": 30, "ratio": "any"},
        "delivery": {"fps": 24, "sizes": {"16:9": [640, 360]}},
        "price": {"per_second": "0.10", "as_of": date(2026, 11, 1), "basis": "estimated"},
    }
    request = requested(spec, scenes=[scene(target_duration=8)], strict_quality=True, audio=True)
    prediction = request.prediction
    assert (prediction.endpoint, prediction.version, prediction.timeout_s) == ("me/mine", "1" * 64, 300)
    assert prediction.inputs == {"steps": 30, "ratio": "wide", "seconds": 10, "text": "p"}
    assert (prediction.images, request.references) == ({}, ReferenceUse())
    assert (prediction.cost, prediction.cost_is_exact, prediction.gpu_cost_per_s) == (Decimal("1.00"), False, None)
    assert (request.model, request.clip_index, request.aspect_ratio) == ("mine", 0, "16:9")
    assert request.ratio_inputs == {"ratio": "wide"}
    assert (request.buffered_duration, request.requested_duration, request.buffer_cost_impact) == (10, 10, 25.0)
    assert (request.tolerance_s, request.typical_run_s, request.attempts) == (2, 60, 3)
    assert (request.audio, request.strict_quality) == (True, True)
    assert (request.deliver_fps, request.deliver_size) == (24, (640, 360))
    plain = requested({})
    assert (plain.audio, plain.strict_quality, plain.deliver_fps, plain.deliver_size) == (False, False, None, None)


@pytest.mark.parametrize(
    ("of_job", "of_model", "timeout_s"), [(7, 300, 7), (None, 300, 300), (None, None, 90), (7, None, 7)]
)
def test_the_timeout_is_the_jobs_or_the_models_or_the_usual_one(
    of_job: float | None, of_model: float | None, timeout_s: float
) -> None:
    spec = {"timeout_seconds": of_model}
    request = requested(spec, defaults={"timeout_seconds": 90}, timeout_seconds=of_job)
    assert request.prediction.timeout_s == timeout_s


def test_what_a_job_does_not_say_is_as_the_registry_has_it() -> None:
    defaults = {"attempts": 7, "concurrency": 8, "min_clips": 2, "duration_tolerance": 0.5}
    registry = small_registry(defaults=defaults, mine={})
    wanted = {"model": "mine", "scenes": [scene(id=f"s{n}", take=n) for n in (1, 2, 3)]}
    usual = build_plan(Job.model_validate(wanted), registry)
    assert (usual.concurrency, usual.min_clips, usual.max_cost) == (8, 2, None)
    assert {(request.attempts, request.tolerance_s) for request in usual.requests} == {(7, 0.5)}
    own = {"attempts": 1, "concurrency": 2, "min_clips": "100%", "duration_tolerance": 0, "max_cost": 5}
    said = build_plan(Job.model_validate(wanted | own), registry)
    assert (said.concurrency, said.min_clips, said.max_cost) == (2, 3, Decimal(5))
    assert {(request.attempts, request.tolerance_s) for request in said.requests} == {(1, 0)}


def test_a_share_of_the_clips_counts_takes_and_not_models() -> None:
    """Each compared model has to bring that many."""
    registry = small_registry(mine={}, other={})
    fields = {"models": ["mine", "other"], "takes": 3, "min_clips": "100%", "scenes": [scene(), scene(id="b")]}
    made = build_plan(Job.model_validate(fields), registry)
    assert (made.job_id, made.min_clips, made.aspect_ratio) == ("job", 6, "16:9")


def test_the_clip_index_of_the_job_file_is_kept() -> None:
    scenes = [scene(clip_index=5), scene(id="b", take=2)]
    assert [request.clip_index for request in planned("kling-v2.5-turbo", *scenes).requests] == [5, 1]
    job = Job.model_validate({"model": "kling-v2.5-turbo", "scenes": scenes})
    bare = tuple(each.model_copy(update={"clip_index": None}) for each in job.scenes)
    made = build_plan(job.model_copy(update={"scenes": bare}), REGISTRY)
    assert [request.clip_index for request in made.requests] == [0, 1]


def test_gpu_time_is_priced_by_the_usual_run() -> None:
    """The buffer does not make it dearer."""
    price = {"per_gpu_second": "0.0014", "as_of": date(2026, 11, 1), "basis": "estimated"}
    request = requested({"price": price}, scenes=[scene(target_duration=8)])
    assert (request.cost, request.prediction.gpu_cost_per_s) == (Decimal("0.084000"), Decimal("0.0014"))
    assert request.buffer_cost_impact == 0.0


def test_the_buffer_of_the_registry_applies_unless_another_is_given() -> None:
    smooth = {"duration": {"mode": "continuous", "max": 20, "input": "seconds"}}
    registry = small_registry(defaults={"duration_buffer": 2}, mine=smooth)
    job = Job.model_validate({"model": "mine", "scenes": [scene()]})
    assert build_plan(job, registry).requests[0].requested_duration == 10
    assert build_plan(job, registry, buffer=1.5).requests[0].requested_duration == 7.5


def test_sound_overrides_the_inputs_of_a_silent_clip() -> None:
    price = {"per_clip": "3", "as_of": date(2026, 11, 1), "basis": "exact"}
    spec = {"fixed": {"sound": False}, "audio": {"inputs": {"sound": True}, "price": price}}
    heard, silent = requested(spec, audio=True), requested(spec)
    assert (heard.prediction.inputs["sound"], heard.cost) == (True, Decimal(3))
    assert (silent.prediction.inputs["sound"], silent.cost) == (False, Decimal("0.50"))


def test_the_fields_of_a_scene_are_sent_as_the_model_names_them() -> None:
    """A seed of 0 and an empty negative prompt are values; without a name nothing is sent."""
    wanted = scene(seed=0, negative_prompt="")
    named = requested({"parameters": {"prompt": "text", "negative_prompt": "not", "seed": "dice"}}, scenes=[wanted])
    assert named.prediction.inputs == {"ratio": "wide", "seconds": 5, "text": "p", "not": "", "dice": 0}
    assert requested({"parameters": {}}, scenes=[wanted]).prediction.inputs == {"ratio": "wide", "seconds": 5}


def test_fallbacks_are_planned_in_their_order_and_as_the_model_they_are_of() -> None:
    registry = small_registry(
        mine={},
        slow={"typical_run_seconds": 90},
        last={"duration": {"mode": "discrete", "sizes": [6], "input": "seconds"}},
    )
    fields = {"model": "mine", "fallback_models": ["slow", "last"], "scenes": [scene(scene_reference_url="bg.jpg")]}
    request = build_plan(Job.model_validate(fields), registry, digests=DIGESTS, buffer=1.5).requests[0]
    assert [(each.model, each.requested_duration, each.typical_run_s) for each in request.alternatives] == [
        ("mine", 5, 60),
        ("slow", 5, 90),
        ("last", 6, 60),
    ]
    assert [[each.model for each in after.fallbacks] for after in request.alternatives] == [
        ["slow", "last"],
        ["last"],
        [],
    ]
    assert {(each.clip_index, each.scene.id) for each in request.alternatives} == {(0, "a")}


# -- reference pictures -----------------------------------------------------------------------------------------------

PICTURED = {"parameters": {"prompt": "text", "image": "start"}}
LISTED = {**PICTURED, "references": {"input": "pictures", "max": 2, "requires": {"seconds": 10}}}


def test_a_start_frame_is_composed_of_all_references() -> None:
    """The background, the characters in their order, and those of them that are cut out, each once and sorted."""
    characters = ["ben.png", "anna.png", "ben.png"]
    request = requested(PICTURED, scenes=[scene(scene_reference_url="bg.jpg", character_reference_urls=characters)])
    assert sent_frame(request) == ImageInput(
        size=(1280, 720),
        background=DIGESTS["bg.jpg"],
        characters=tuple(DIGESTS[name] for name in characters),
        cut_outs=(DIGESTS["ben.png"],),
    )
    assert request.references == ReferenceUse(composed=("bg.jpg", *characters))
    assert list(request.prediction.images) == [request.prediction.inputs["start"]]


@pytest.mark.parametrize(
    ("fields", "cut_outs"),
    [
        pytest.param({"character_reference_urls": ["ben.png"]}, (), id="alone"),
        pytest.param({"character_reference_urls": ["ben.png", "anna.png"]}, ("e" * 64,), id="two"),
        pytest.param(
            {"scene_reference_url": "anna.png", "character_reference_urls": ["ben.png"]}, ("e" * 64,), id="on-a-scene"
        ),
        pytest.param({"scene_reference_url": "bg.jpg"}, (), id="background"),
    ],
)
def test_a_picture_that_covers_the_frame_is_not_cut_out(fields: dict[str, Any], cut_outs: tuple[str, ...]) -> None:
    """A single character fills the frame, and its plain background is all that there is behind it."""
    assert sent_frame(requested(PICTURED, scenes=[scene(**fields)])).cut_outs == cut_outs


def test_references_are_listed_up_to_the_models_maximum_and_where_it_takes_them() -> None:
    two = {"scene_reference_url": "bg.jpg", "character_reference_urls": ["ben.png"]}
    listed = requested(LISTED, scenes=[scene(target_duration=10, **two)])
    pictures = {f"sha256:{DIGESTS[name]}": ImageInput(background=DIGESTS[name]) for name in ("bg.jpg", "ben.png")}
    assert listed.prediction.inputs["pictures"] == list(pictures)
    assert listed.prediction.images == pictures
    assert listed.references == ReferenceUse(used=("bg.jpg", "ben.png"))
    short = requested(LISTED, scenes=[scene(target_duration=5, **two)])
    assert short.references == ReferenceUse(composed=("bg.jpg", "ben.png"))
    none = requested(LISTED, scenes=[scene(target_duration=10)])
    assert (none.references, "pictures" in none.prediction.inputs) == (ReferenceUse(), False)


def test_references_without_an_input_for_them_are_dropped() -> None:
    request = requested({}, scenes=[scene(scene_reference_url="bg.jpg", character_reference_urls=["ben.png"])])
    assert (request.references, request.prediction.images) == (ReferenceUse(dropped=("bg.jpg", "ben.png")), {})
    assert request.prediction.inputs == {"ratio": "wide", "seconds": 5, "text": "p"}


@pytest.mark.parametrize(
    ("resolution", "size", "pixels"),
    [
        pytest.param("1080p", None, (1920, 1080), id="wide"),
        pytest.param("2160p", None, (3840, 2160), id="four-digits"),
        pytest.param("1080p", (720, 1280), (1080, 1920), id="upright"),
        pytest.param("800p", None, (1422, 800), id="rounded-to-even"),
        pytest.param("721p", (64, 64), (720, 720), id="half-rounds-to-even"),
        pytest.param("720p", None, None, id="the-same"),
        pytest.param("480p", None, None, id="coarser"),
        pytest.param("1080", None, None, id="no-lines"),
        pytest.param("1080P", None, None, id="capital"),
        pytest.param("about 1080p", None, None, id="text-before"),
        pytest.param("10800p", None, None, id="five-digits"),
        pytest.param("١٠٨٠p", None, None, id="other-digits"),
        pytest.param(1080, None, None, id="number"),
        pytest.param(None, (64, 64), None, id="not-named"),
    ],
)
def test_a_start_frame_is_sent_in_the_resolution_that_is_asked_for(
    resolution: str | int | None, size: tuple[int, int] | None, pixels: tuple[int, int] | None
) -> None:
    """In the same shape, with even sides, and never smaller than composed."""
    spec = {**PICTURED, "fixed": {} if resolution is None else {"resolution": resolution}}
    spec |= {"frame_sizes": {"16:9": size}} if size else {}
    frame = sent_frame(requested(spec, scenes=[scene(scene_reference_url="bg.jpg")]))
    assert (frame.size, frame.pixels) == (size or (1280, 720), pixels)
