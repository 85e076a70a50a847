"""Fault injection: chooses the rule of the plan for a call and applies it to the answer."""

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

from videogen.emulator.api_errors import (
    ApiError,
    make_not_found_error,
    make_throttled_error,
    make_unauthenticated_error,
)
from videogen.emulator.faults import plan
from videogen.emulator.faults import transport as wire

if TYPE_CHECKING:
    from videogen.emulator.predictions import EmulatedPrediction

_REPLACING_RULES = (plan.Refuse, plan.Hang, plan.Status, plan.Html, plan.AcceptLate)
_OUTPUT_RULES = (plan.NullOutput, plan.ListOutput, plan.DictOutput, plan.Expire)
_OUTCOME_RULES = (plan.Fail, plan.Abort, plan.Cancel, plan.Stick, plan.WrongDuration, plan.WrongPicture, plan.Expire)
_APPEARANCE_RULES = (plan.Show, plan.LateOutput, plan.HideFromList, plan.Bill)
_STATUSES_WITHOUT_BODY = (204, 304)
_CREDIT_DETAIL = (
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase "
    "credit. Once you purchase credit, please wait a few minutes before trying again."
)


class FaultEngine:
    """The fault plan of one server with a use count for each rule."""

    def __init__(self, rules: list[plan.FaultRule]) -> None:
        self._rules = rules
        self._used: Counter[int] = Counter()

    @property
    def used(self) -> list[int]:
        """The number of times that each rule has applied, in the order of the plan."""
        return [self._used[index] for index in range(len(self._rules))]

    def take_outcome_rule(self, model: str, prompt: str, nth: int) -> plan.OutcomeRule | None:
        """Use and return the rule for the outcome of the prediction that is about to be created, or None."""
        rule = self._take_first(lambda rule: _is_outcome_rule(rule) and _is_match(rule, model, prompt, nth))
        return rule if isinstance(rule, _OUTCOME_RULES) else None

    def take_appearance_rules(self, model: str, prompt: str, nth: int) -> list[plan.AppearanceRule]:
        """Use and return all rules for the appearance of the prediction that is about to be created."""
        return [
            rule
            for index, rule in enumerate(self._rules)
            if isinstance(rule, _APPEARANCE_RULES)
            and _is_appearance_rule(rule)
            and _is_match(rule, model, prompt, nth)
            and self._count_use(index)
        ]

    def take_create_rule(self, model: str, prompt: str, nth: int) -> plan.FaultRule | None:
        """Use and return the rule for this create's answer, or None; `nth` is its number if it is accepted."""

        def is_wanted(rule: plan.FaultRule) -> bool:
            about_the_answer = rule.on == "create" and not _is_outcome_rule(rule) and not _is_appearance_rule(rule)
            return about_the_answer and _is_match(rule, model, prompt, nth)

        return self._take_first(is_wanted)

    def on(self, call: plan.ApiCall) -> plan.FaultRule | None:
        """Use and return the rule for a call that is not about one prediction, or None."""
        return self._take_first(lambda rule: rule.on == call)

    def take_prediction_rule(self, call: plan.ApiCall, prediction: "EmulatedPrediction") -> plan.FaultRule | None:
        """Use and return the rule for this poll, cancel or download of a prediction, or None."""
        model, prompt = prediction.model.full_name, get_prompt(prediction.effective_input)

        def is_wanted(rule: plan.FaultRule) -> bool:
            if rule.on != call or (isinstance(rule, _OUTPUT_RULES) and prediction.output is None):
                return False
            if isinstance(rule, plan.Show) and not rule.is_shown(ended=prediction.terminal):
                return False
            at = rule.nth_poll is None or prediction.polls in rule.nth_poll
            return at and _is_match(rule, model, prompt, prediction.nth)

        return self._take_first(is_wanted)

    def _take_first(self, is_wanted: Callable[[plan.FaultRule], bool]) -> plan.FaultRule | None:
        """Use and return the first wanted rule that is not used up, or None."""
        return next(
            (rule for index, rule in enumerate(self._rules) if is_wanted(rule) and self._count_use(index)), None
        )

    def _count_use(self, index: int) -> bool:
        """Count one use of a rule and return True, or return False if the rule is used up."""
        times = self._rules[index].times
        if times != "always" and self._used[index] >= times:
            return False
        self._used[index] += 1
        return True


def _is_appearance_rule(rule: plan.FaultRule) -> bool:
    return isinstance(rule, _APPEARANCE_RULES) and rule.on == "create"


def _is_outcome_rule(rule: plan.FaultRule) -> bool:
    return isinstance(rule, _OUTCOME_RULES) and rule.on == "create"


def get_prompt(inputs: Mapping[str, Any]) -> str:
    """Return the prompt of an input, or an empty string if it has none."""
    return str(inputs.get("prompt", ""))


def is_call_prevented(rule: plan.FaultRule | None) -> bool:
    """Return whether the rule keeps the call from taking effect."""
    return isinstance(rule, _REPLACING_RULES) and not getattr(rule, "accepted", False)


def apply_fault(rule: plan.FaultRule | None, answer: Response | None) -> Response:
    """Return the answer to send in place of `answer`, which is None if the call was prevented."""
    if isinstance(rule, _REPLACING_RULES):
        return _make_replacement(rule)
    assert answer is not None
    return _apply_transport_fault(rule, answer) or _rewrite_body(rule, answer) or answer


def _apply_transport_fault(rule: plan.FaultRule | None, answer: Response) -> Response | None:
    match rule:
        case plan.LoseAnswer():
            return wire.ResetResponse(answer)
        case plan.Reset():
            return wire.CutResponse(answer, rule.part, stall=False)
        case plan.Stall():
            return wire.CutResponse(answer, rule.part, stall=True)
        case plan.SlowLoris():
            return wire.DripResponse(answer, rule.every_s)
        case plan.GzipBomb():
            return wire.GzipBombResponse(answer, rule.size_mb)
        case plan.Endless():
            return wire.EndlessResponse(answer)
    return None


def _rewrite_body(rule: plan.FaultRule | None, answer: Response) -> Response | None:
    match rule:
        case plan.MalformedJson():
            return wire.truncate_json(answer)
        case plan.UnknownStatus(status=status):
            return wire.rewrite_json(answer, lambda body: body | {"status": status})
        case plan.NullOutput():
            return wire.rewrite_json(answer, lambda body: body | {"output": None})
        case plan.ListOutput():
            return wire.rewrite_json(answer, lambda body: body | {"output": [body["output"]]})
        case plan.DictOutput():
            return wire.rewrite_json(answer, lambda body: body | {"output": {"video": body["output"]}})
        case plan.ShuffleList():
            return wire.rewrite_json(answer, lambda body: body | {"results": _shuffle(body["results"])})
    return None


def _shuffle(rows: list[Any]) -> list[Any]:
    """Return the rows in another order, the same one each time."""
    return random.Random(len(rows)).sample(rows, len(rows))


def _make_replacement(rule: plan.Refuse | plan.Hang | plan.Status | plan.Html | plan.AcceptLate) -> Response:
    """Return an answer, or a silence, that does not depend on the request."""
    match rule:
        case plan.Refuse() | plan.AcceptLate(answer="reset"):
            return wire.ResetResponse(None)
        case plan.Hang() | plan.AcceptLate(answer="hang"):
            return wire.SilentResponse(None)
        case plan.AcceptLate():
            return make_refusal(rule.status, rule.body)
        case plan.Html():
            page = f"<!DOCTYPE html><html><title>{rule.status}</title><body><h1>Server Error</h1></body></html>"
            return Response(page, rule.status, media_type="text/html")
        case plan.Status():
            return make_refusal(rule.status, rule.body, location=rule.location, problem=_make_error(rule))


def make_refusal(
    status: int, body: plan.Body, *, location: str = plan.LOGIN_PATH, problem: ApiError | None = None
) -> Response:
    """Return an answer with this status, either from Replicate (`problem`) or from a gateway in front of it."""
    problem = problem or ApiError(status, f"Fault on purpose: status {status}")
    headers = dict(problem.headers or {}) | ({"Location": location} if 300 <= status < 400 else {})
    if body == "empty" or status in _STATUSES_WITHOUT_BODY:
        return Response(status_code=status, headers=headers)
    if body == "problem":
        problem.headers = headers
        return problem.make_response()
    if body == "json":
        return JSONResponse({"message": f"status {status} of a gateway", "requestId": "b1946ac9"}, status, headers)
    page = f"<!DOCTYPE html><html><title>{status}</title><body><h1>Sign in to continue</h1></body></html>"
    return Response(page, status, headers, "text/html")


def _make_error(rule: plan.Status) -> ApiError:
    if rule.detail is not None:
        return ApiError(rule.status, rule.detail, retry_after=rule.retry_after)
    if rule.retry_after is not None or rule.status == 429:
        return _make_throttled_error(rule, rule.retry_after or 5)
    known = {
        401: make_unauthenticated_error(),
        402: ApiError(402, _CREDIT_DETAIL, title="Insufficient credit"),
        404: make_not_found_error(),
    }
    return known.get(rule.status) or ApiError(rule.status, f"Fault on purpose: status {rule.status}")


def _make_throttled_error(rule: plan.Status, wait_s: int) -> ApiError:
    full = make_throttled_error(6, 1, wait_s)
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


def make_download(rule: plan.FaultRule | None, output: Path) -> Response:
    """Return the response to a download: the whole output, a damaged one, or other content."""
    match rule:
        case plan.WrongContent():
            return Response(_make_wrong_content(rule.content), media_type=rule.content_type)
        case plan.Truncate():
            whole = output.read_bytes()
            return _make_mp4_response(whole[: int(len(whole) * rule.part)])
        case plan.ZeroTail():
            return _make_mp4_response(_zero_tail(output.read_bytes(), rule.part))
        case plan.FlipBytes():
            return _make_mp4_response(_flip_bytes(output.read_bytes(), rule.count))
    return FileResponse(output, media_type="video/mp4")


def _make_mp4_response(content: bytes) -> Response:
    return Response(content, media_type="video/mp4")


def _zero_tail(whole: bytes, part: float) -> bytes:
    kept = int(len(whole) * (1 - part))
    return whole[:kept] + bytes(len(whole) - kept)


def _flip_bytes(whole: bytes, count: int) -> bytes:
    """Return the file with bytes inverted in its second half, where a faststart file has only picture data."""
    content, rng = bytearray(whole), random.Random(len(whole))
    half = range(len(content) // 2, len(content))
    for at in rng.sample(half, min(count, len(half))):
        content[at] ^= 0xFF
    return bytes(content)


def _make_wrong_content(content: str) -> bytes:
    if content == "html":
        return b"<!DOCTYPE html><html><body><h1>Sign in to continue</h1></body></html>"
    if content == "json":
        return json.dumps({"detail": "Not ready yet."}).encode()
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def _is_match(rule: plan.BaseRule, model: str, prompt: str, nth: int) -> bool:
    return (
        (rule.model is None or rule.model == model)
        and (rule.prompt is None or rule.prompt in prompt)
        and (rule.prompt_regex is None or re.search(rule.prompt_regex, prompt) is not None)
        and (rule.nth_create is None or nth in rule.nth_create)
    )
