"""Show the models of the registry."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen.cli.exit_codes import FAILED, OK
from videogen.registry.endpoint_schema import Snapshots
from videogen.registry.load import read_registry
from videogen.registry.model_info import (
    Durations,
    ModelInfo,
    PriceRowInfo,
    Prices,
    describe_model,
    describe_models,
)
from videogen.settings import read_settings
from videogen.text import escape_json, escape_unprintable

if TYPE_CHECKING:
    from videogen.model_check import ModelCheck
from videogen.cli.console import make_console, make_table, print_line

# -- models -----------------------------------------------------------------------------------------------------------


def show_models(extension: Path | None, *, as_json: bool) -> None:
    """Print the models of the registry."""
    listed = describe_models(read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(listed.model_dump_json(indent=2)))
        return
    table = make_table("model", "seconds", "price $", "as of", "refs", "run s", "ratios")
    table.padding = 0  # columns are separated by spaces, so that the table just fits into 80
    for column, width in zip(table.columns[1:], (7, 13, 10, 8, 5, 11), strict=True):
        column.width, column.no_wrap = width, False
    for model in listed.models:
        table.add_row(
            escape_unprintable(model.id),
            _format_lengths(model.durations),
            "\n".join(_format_price_range(model.price) or _format_prices(model.price)),
            str(model.price.as_of),
            "\n".join(_list_reference_uses(model)),
            f"{model.typical_run_seconds:g}",
            ", ".join(model.aspect_ratios),
        )
    console = make_console(stderr=False)
    console.print(table)
    print_line(
        console,
        "≈ estimated, ? unknown; references are taken as they are (native), as one start frame (composed), or dropped",
    )


def show_model(name: str, extension: Path | None, *, as_json: bool) -> None:
    """Print all properties of one model."""
    model = describe_model(name, read_registry(extension or read_settings().registry))
    if as_json:
        print(escape_json(model.model_dump_json(indent=2)))
        return
    console = make_console(stderr=False)
    for title, text in _list_model_facts(model):
        print_line(console, f"{title:<13} {text}")


def _list_model_facts(model: ModelInfo) -> Iterator[tuple[str, str]]:
    yield "model", model.id
    yield "replicate", model.replicate + (f":{model.version}" if model.version else "")
    yield "source", model.source
    yield "seconds", _describe_durations(model.durations)
    yield "price", f"{', '.join(_format_prices(model.price))} USD, {_format_price_basis(model.price)}"
    yield "sound", _describe_sound(model)
    yield "typically", f"{model.typical_run_seconds:g} s, given up after {model.timeout_seconds:g} s"
    inputs = {
        "prompt": model.takes_prompt,
        "negative_prompt": model.takes_negative_prompt,
        "seed": model.takes_seed,
        "start image (required)": model.image_required,
        "start image": model.composes_references and not model.image_required,
        "end image (with a start image)": model.takes_end_image and model.end_image_needs_start,
        "end image": model.takes_end_image and not model.end_image_needs_start,
    }
    yield "takes", ", ".join(name for name, is_taken in inputs.items() if is_taken)
    first, *otherwise = _list_reference_uses(model)
    yield "references", ", else ".join([" ".join([first, *_list_reference_needs(model)]), *otherwise])
    if model.fixed_inputs:
        yield "always sent", format_inputs(model.fixed_inputs)
    for ratio, ratio_inputs in model.ratio_inputs.items():
        yield f"sent for {ratio}", format_inputs(ratio_inputs) or "nothing more"
    for tier, tier_inputs in model.tiers.items():
        by_default = " (default)" if tier == model.default_tier else ""
        yield f"tier {tier}", f"{format_inputs(tier_inputs)}{by_default}"
    for condition in model.conditions:
        yield "when", describe_condition(condition)
    if model.longest_prompt:
        yield "prompt", f"at most {model.longest_prompt:,} characters"
    if model.refused_pictures:
        yield "refuses in pictures", model.refused_pictures
    if model.retires:
        yield "retires", f"{model.retires}" + (f"; use {model.successor}" if model.successor else "")
    if model.ignored_inputs:
        yield "ignored", f"{', '.join(model.ignored_inputs)} (by the endpoint)"


def _describe_sound(model: ModelInfo) -> str:
    if model.audio == "none":
        return "none"
    if model.audio == "always":
        return "always; removed unless the job asks for it"
    price = f": {', '.join(_format_prices(model.audio_price))} USD" if model.audio_price else ""
    basis = f", {_format_price_basis(model.audio_price)}" if model.audio_price else ""
    return f"when asked for, with {format_inputs(model.audio_inputs)}{price}{basis}"


def _list_reference_needs(model: ModelInfo) -> Iterator[str]:
    """Yield what a list of references needs, and what it excludes."""
    references = model.references
    if references and references.required:
        yield "(required)"
    if references and references.requires:
        yield f"with {format_inputs(references.requires)}"
    if references and references.excludes:
        yield f"without {' and '.join(name.replace('_', ' ') for name in references.excludes)}"


_EFFECTS = ("send", "lengths", "longest_prompt", "refuse")


def describe_condition(condition: Mapping[str, Any]) -> str:
    """Return a condition of the registry as a phrase, such as `end_image: sends mode=pro; lengths 5, 10`."""
    asked = {**condition, **condition.get("inputs", {})}
    facts = [
        name if value is True else f"no {name}" if value is False else f"{name} {_format_choice(value)}"
        for name, value in asked.items()
        if name not in (*_EFFECTS, "inputs")
    ]
    effects = {
        "send": lambda value: f"sends {format_inputs(value)}",
        "lengths": lambda value: f"lengths {_format_choice(value)}",
        "longest_prompt": lambda value: f"prompts of at most {value:,} characters",
        "refuse": lambda value: f"cannot be made: {value}",
    }
    changes = [effects[name](condition[name]) for name in _EFFECTS if name in condition]
    return f"{' and '.join(facts)}: {'; '.join(changes)}"


def _format_choice(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return " or ".join(f"{each:g}" if isinstance(each, int | float) else str(each) for each in values)


def _describe_durations(durations: Durations) -> str:
    automatic = f", or the model's choice with {format_inputs(durations.automatic)}" if durations.automatic else ""
    return f"{_format_lengths(durations)} ({durations.mode}){automatic}"


def _format_lengths(durations: Durations) -> str:
    if not durations.lengths:
        return f"{durations.min:g} to {durations.max:g}"
    whole = range(round(durations.min), round(durations.max) + 1)
    if len(whole) > 3 and durations.lengths == tuple(map(float, whole)):
        return f"{durations.min:g}, {durations.min + 1:g} … {durations.max:g}"
    return ", ".join(f"{seconds:g}" for seconds in durations.lengths)


_BASIS_MARKS = {"exact": "", "estimated": "≈", "unknown": "? "}


def _format_prices(price: Prices) -> list[str]:
    """Return each price with its unit; one for each length if the price depends on it."""
    about = _BASIS_MARKS[price.basis]
    if price.rows:
        return [f"{about}{' or '.join(_format_amounts(row))} ({format_inputs(row.when)})" for row in price.rows]
    if price.per_gpu_second is not None:
        return [f"{about}{_format_usd(price.per_gpu_second)}/GPU s"]
    return [f"{about}{amount}" for amount in _format_amounts(price)]


def _format_amounts(price: Prices | PriceRowInfo) -> list[str]:
    """Return the price of a second or of a clip with its unit; one for each length if the price depends on it."""
    if isinstance(price.per_clip, dict):
        return [f"{_format_usd(cost)} for {seconds:g} s" for seconds, cost in price.per_clip.items()]
    units = ((price.per_second, "s"), (price.per_clip, "clip"))
    return [f"{_format_usd(cost)}/{unit}" for cost, unit in units if cost is not None]


def _format_price_range(price: Prices) -> list[str]:
    """Return the lowest and the highest price of the rows, or nothing if there are none."""
    found: list[str] = []
    for unit, amounts in (
        ("s", [row.per_second for row in price.rows if row.per_second is not None]),
        ("clip", [row.per_clip for row in price.rows if isinstance(row.per_clip, Decimal)]),
    ):
        if amounts:
            usd = f"{_format_usd(min(amounts))} to {_format_usd(max(amounts))}"
            found.append(f"{_BASIS_MARKS[price.basis]}{usd}/{unit}")
    return found


def _format_usd(cost: Decimal) -> str:
    """Format USD with at least two decimals, and no trailing zeros beyond."""
    short = cost.normalize()
    return f"{max(short, short.quantize(Decimal('0.01')), key=lambda each: -int(each.as_tuple().exponent)):f}"


def _format_price_basis(price: Prices) -> str:
    return ", ".join(filter(None, [f"{price.basis}, as of {price.as_of}", price.note]))


def _list_reference_uses(model: ModelInfo) -> list[str]:
    """Return how many references are used and in which way, the preferred way first."""
    native = [f"{model.references.max} native"] if model.references else []
    return [*native, *(["composed"] if model.composes_references else [])] or ["dropped"]


def format_inputs(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in inputs.items())


def show_model_checks(
    names: Sequence[str],
    extension: Path | None,
    snapshots: Snapshots,
    *,
    offline: bool,
    snapshot: bool,
    as_json: bool,
) -> int:
    """Print the differences between the registry and Replicate. Return the exit code."""
    from videogen import model_check as conformance

    settings = read_settings()
    settings = settings.model_copy(update={"registry": extension or settings.registry})
    checked = asyncio.run(
        conformance.compare_with_endpoints(names, settings, snapshots, offline=offline, keep=snapshot)
    )
    drifted = [model for model in checked if model.drift]
    not_compared = [model for model in checked if model.not_compared]
    exit_code = FAILED if drifted or not_compared else OK
    if as_json:
        shown = {"drift": bool(drifted), "models": [model.summary() for model in checked]}
        print(escape_json(json.dumps(shown, indent=2)))
        return exit_code
    console = make_console(stderr=False)
    for model in checked:
        print_line(console, f"{model.id}: {describe_check(model)}")
        for problem in model.drift:
            print_line(console, f"  {problem}")
    place = f"the snapshots in {snapshots.folder}" if offline else "Replicate"
    compared = len(checked) - len(not_compared)
    counts = [f"{len(drifted)} drifted"] if drifted else ["all agree"] if compared else []
    counts += [f"{len(not_compared)} without a snapshot"] if not_compared else []
    print_line(console, f"{compared} model{'s' * (compared != 1)} compared with {place}: {', '.join(counts)}")
    return exit_code


def describe_check(model: "ModelCheck") -> str:
    """Return the result of a check in one line."""
    if model.not_compared:
        return f"not compared: {model.not_compared}"
    found = len(model.drift)
    verdict = f"drifted from {model.replicate} in {found} place{'s' * (found > 1)}" if found else "agrees"
    return verdict + (f"; ignored by the endpoint: {', '.join(model.ignored_inputs)}" if model.ignored else "")


def show_model_news(extension: Path | None, *, as_json: bool) -> None:
    """Print the video models on Replicate that the registry lacks, and the registered ones that are gone or retire."""
    from videogen import model_check as conformance

    settings = read_settings()
    settings = settings.model_copy(update={"registry": extension or settings.registry})
    news = asyncio.run(conformance.find_news(settings))
    if as_json:
        print(escape_json(json.dumps(news.summary(), indent=2)))
        return
    console = make_console(stderr=False)
    for listed in news.new:
        print_line(console, f"new: {listed.name}: {listed.description}")
    for name, replicate in news.gone.items():
        print_line(console, f"gone: {name}: {replicate} is not on Replicate any more")
    for name, spec in news.retiring.items():
        print_line(console, f"retires: {name}: {spec.retires}" + (f"; use {spec.successor}" if spec.successor else ""))
    counts = f"{len(news.new)} new, {len(news.gone)} gone, {len(news.retiring)} retiring"
    advice = ". Add a new one with `videogen models add OWNER/NAME`" if news.new else ""
    print_line(console, f"{counts}{advice}")
