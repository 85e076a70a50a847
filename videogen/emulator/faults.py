"""Faults on purpose: which rule of the plan a call falls under, and what it makes of the answer."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from email.utils import formatdate
from io import BytesIO
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from PIL import Image
from starlette.responses import FileResponse, JSONResponse, Response

from videogen.emulator import plan, wire
from videogen.emulator.problems import ApiError, not_found, throttled, unauthenticated

if TYPE_CHECKING:
    from videogen.emulator.predictions import Prediction

_BEFORE = (plan.Refuse, plan.Hang, plan.Status, plan.Html, plan.AcceptLate)
_NEEDS_OUTPUT = (plan.NullOutput, plan.ListOutput, plan.DictOutput, plan.Expire)
_FATES = (plan.Fail, plan.Abort, plan.Cancel, plan.Stick, plan.WrongDuration, plan.WrongPicture, plan.Expire)
_TRAITS = (plan.Show, plan.LateOutput, plan.HideFromList)
_BODILESS = (204, 304)
_CREDIT = (
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase "
    "credit. Once you purchase credit, please wait a few minutes before trying again."
)


class Faults:
    """The plan of one server and how often each of its rules was used."""

    def __init__(self, rules: list[plan.AnyRule]) -> None:
        self._rules = rules
        self._used: Counter[int] = Counter()

    @property
    def used(self) -> list[int]:
        """How often each rule applied, in the order of the plan."""
        return [self._used[index] for index in range(len(self._rules))]

    def fate(self, model: str, prompt: str, nth: int) -> plan.Fate | None:
        """What shall become of the prediction that is about to be created."""
        rule = self._take(lambda rule: _is_fate(rule) and _matches(rule, model, prompt, nth))
        return rule if isinstance(rule, _FATES) else None

    def traits(self, model: str, prompt: str, nth: int) -> list[plan.Trait]:
        """Return how the prediction that is about to be created is to be seen from outside; many rules may meet."""
        return [
            rule
            for index, rule in enumerate(self._rules)
            if isinstance(rule, _TRAITS) and _is_trait(rule) and _matches(rule, model, prompt, nth) and self._use(index)
        ]

    def on_create(self, model: str, prompt: str, nth: int) -> plan.AnyRule | None:
        """The rule for this create's answer; `nth` is its number if it is accepted."""

        def wanted(rule: plan.AnyRule) -> bool:
            about_the_answer = rule.on == "create" and not _is_fate(rule) and not _is_trait(rule)
            return about_the_answer and _matches(rule, model, prompt, nth)

        return self._take(wanted)

    def on(self, call: plan.Call) -> plan.AnyRule | None:
        """Return the rule for a call that is not about one prediction."""
        return self._take(lambda rule: rule.on == call)

    def on_call(self, call: plan.Call, prediction: "Prediction") -> plan.AnyRule | None:
        """The rule for this poll, cancel or download of a prediction."""
        model, prompt = prediction.model.full_name, prompt_of(prediction.effective_input)

        def wanted(rule: plan.AnyRule) -> bool:
            if rule.on != call or (isinstance(rule, _NEEDS_OUTPUT) and prediction.output is None):
                return False
            if isinstance(rule, plan.Show) and not rule.fits(ended=prediction.terminal):
                return False
            at = rule.nth_poll is None or prediction.polls in rule.nth_poll
            return at and _matches(rule, model, prompt, prediction.nth)

        return self._take(wanted)

    def _take(self, wanted: Callable[[plan.AnyRule], bool]) -> plan.AnyRule | None:
        """The first wanted rule that is not used up."""
        return next((rule for index, rule in enumerate(self._rules) if wanted(rule) and self._use(index)), None)

    def _use(self, index: int) -> bool:
        """Count one more use of a rule, unless it is used up; return whether it may apply."""
        times = self._rules[index].times
        if times != "always" and self._used[index] >= times:
            return False
        self._used[index] += 1
        return True


def _is_trait(rule: plan.AnyRule) -> bool:
    return isinstance(rule, _TRAITS) and rule.on == "create"


def _is_fate(rule: plan.AnyRule) -> bool:
    return isinstance(rule, _FATES) and rule.on == "create"


def prompt_of(inputs: Mapping[str, Any]) -> str:
    """The prompt of an input, empty if there is none."""
    return str(inputs.get("prompt", ""))


def prevents(rule: plan.AnyRule | None) -> bool:
    """Whether the call must not take effect."""
    return isinstance(rule, _BEFORE) and not getattr(rule, "accepted", False)


def spoil(rule: plan.AnyRule | None, answer: Response | None) -> Response:
    """What is sent in place of `answer`, which is None if the call was prevented."""
    if isinstance(rule, _BEFORE):
        return _instead(rule)
    assert answer is not None
    return _on_the_wire(rule, answer) or _rewritten(rule, answer) or answer


def _on_the_wire(rule: plan.AnyRule | None, answer: Response) -> Response | None:
    match rule:
        case plan.LoseAnswer():
            return wire.Lost(answer)
        case plan.Reset():
            return wire.Cut(answer, rule.part, stall=False)
        case plan.Stall():
            return wire.Cut(answer, rule.part, stall=True)
        case plan.SlowLoris():
            return wire.Drip(answer, rule.every_s)
        case plan.GzipBomb():
            return wire.Bomb(answer, rule.size_mb)
        case plan.Endless():
            return wire.Unending(answer)
    return None


def _rewritten(rule: plan.AnyRule | None, answer: Response) -> Response | None:
    match rule:
        case plan.MalformedJson():
            return wire.cut_json(answer)
        case plan.UnknownStatus(status=status):
            return wire.rewritten(answer, lambda body: body | {"status": status})
        case plan.NullOutput():
            return wire.rewritten(answer, lambda body: body | {"output": None})
        case plan.ListOutput():
            return wire.rewritten(answer, lambda body: body | {"output": [body["output"]]})
        case plan.DictOutput():
            return wire.rewritten(answer, lambda body: body | {"output": {"video": body["output"]}})
        case plan.ShuffleList():
            return wire.rewritten(answer, lambda body: body | {"results": _shuffled(body["results"])})
    return None


def _shuffled(rows: list[Any]) -> list[Any]:
    """Return the rows in another order, the same one each time."""
    return random.Random(len(rows)).sample(rows, len(rows))


def _instead(rule: plan.Refuse | plan.Hang | plan.Status | plan.Html | plan.AcceptLate) -> Response:
    """Answers (or silences) that have nothing to do with what was asked."""
    match rule:
        case plan.Refuse() | plan.AcceptLate(answer="reset"):
            return wire.Lost(None)
        case plan.Hang() | plan.AcceptLate(answer="hang"):
            return wire.Silent(None)
        case plan.AcceptLate():
            return refuse(rule.status, rule.body)
        case plan.Html():
            page = f"<!DOCTYPE html><html><title>{rule.status}</title><body><h1>Server Error</h1></body></html>"
            return Response(page, rule.status, media_type="text/html")
        case plan.Status():
            return refuse(rule.status, rule.body, location=rule.location, problem=_error(rule))


def refuse(status: int, body: plan.Body, *, location: str = plan.LOGIN, problem: ApiError | None = None) -> Response:
    """Return an answer with this status, by Replicate itself (`problem`) or by whatever stands before it."""
    problem = problem or ApiError(status, f"Fault on purpose: status {status}")
    headers = dict(problem.headers or {}) | ({"Location": location} if 300 <= status < 400 else {})
    if body == "empty" or status in _BODILESS:
        return Response(status_code=status, headers=headers)
    if body == "problem":
        problem.headers = headers
        return problem.response()
    if body == "json":
        return JSONResponse({"message": f"status {status} of a gateway", "requestId": "b1946ac9"}, status, headers)
    page = f"<!DOCTYPE html><html><title>{status}</title><body><h1>Sign in to continue</h1></body></html>"
    return Response(page, status, headers, "text/html")


def _error(rule: plan.Status) -> ApiError:
    if rule.detail is not None:
        return ApiError(rule.status, rule.detail, retry_after=rule.retry_after)
    if rule.retry_after is not None or rule.status == 429:
        return _wait(rule, rule.retry_after or 5)
    known = {
        401: unauthenticated(),
        402: ApiError(402, _CREDIT, title="Insufficient credit"),
        404: not_found(),
    }
    return known.get(rule.status) or ApiError(rule.status, f"Fault on purpose: status {rule.status}")


def _wait(rule: plan.Status, wait_s: int) -> ApiError:
    full = throttled(6, 1, wait_s)
    detail, header = str(full), {"Retry-After": str(wait_s)}
    match rule.hint:
        case "both":
            return ApiError(rule.status, detail, headers=full.headers, retry_after=wait_s)
        case "header":
            return ApiError(rule.status, "Request was throttled.", headers=header)
        case "body":
            return ApiError(rule.status, detail, retry_after=wait_s)
        case "text":
            return ApiError(rule.status, f"Request was throttled. Your rate limit resets in ~{wait_s}s.")
        case "date":
            later = formatdate(time() + wait_s, usegmt=True)
            return ApiError(rule.status, "Request was throttled.", headers={"Retry-After": later})


def damaged(rule: plan.AnyRule | None, output: Path) -> Response:
    """The file of an output as this download gets it: whole, damaged, or another one."""
    match rule:
        case plan.WrongContent():
            return Response(_other(rule.content), media_type=rule.content_type)
        case plan.Truncate():
            whole = output.read_bytes()
            return _film(whole[: int(len(whole) * rule.part)])
        case plan.ZeroTail():
            return _film(_zeroed(output.read_bytes(), rule.part))
        case plan.FlipBytes():
            return _film(_flipped(output.read_bytes(), rule.count))
    return FileResponse(output, media_type="video/mp4")


def _film(content: bytes) -> Response:
    return Response(content, media_type="video/mp4")


def _zeroed(whole: bytes, part: float) -> bytes:
    kept = int(len(whole) * (1 - part))
    return whole[:kept] + bytes(len(whole) - kept)


def _flipped(whole: bytes, count: int) -> bytes:
    """Inverted bytes in the second half, where a faststart file has only picture data."""
    content, rng = bytearray(whole), random.Random(len(whole))
    half = range(len(content) // 2, len(content))
    for at in rng.sample(half, min(count, len(half))):
        content[at] ^= 0xFF
    return bytes(content)


def _other(content: str) -> bytes:
    if content == "html":
        return b"<!DOCTYPE html><html><body><h1>Sign in to continue</h1></body></html>"
    if content == "json":
        return json.dumps({"detail": "Not ready yet."}).encode()
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def _matches(rule: plan.Rule, model: str, prompt: str, nth: int) -> bool:
    return (
        (rule.model is None or rule.model == model)
        and (rule.prompt is None or rule.prompt in prompt)
        and (rule.prompt_regex is None or re.search(rule.prompt_regex, prompt) is not None)
        and (rule.nth_create is None or nth in rule.nth_create)
    )
