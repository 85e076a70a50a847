"""The fault plan, a TOML file of rules that make calls and predictions fail. README.md beside this is its manual."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from videogen.errors import InvalidError

ApiCall = Literal["create", "poll", "list", "cancel", "download", "upload", "account"]
MAX_PLAN_BYTES = 1024 * 1024


class FaultPlanError(InvalidError):
    """A fault plan is invalid or cannot be read; the message names the file and every problem in it."""


def _check_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ValueError(f"not a regular expression: {exc}") from exc
    return text


def _check_ordinals(given: Any) -> frozenset[int]:
    numbers = given if isinstance(given, list) else [given]
    if not numbers or not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError("not a number or a list of numbers, counted from 1")
    return frozenset(numbers)


Body = Literal["problem", "html", "json", "empty"]
LOGIN_PATH = "/login"
OrdinalSet = Annotated[frozenset[int], BeforeValidator(_check_ordinals)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


class BaseRule(BaseModel):
    """The conditions of a rule. All given keys must match, so a rule without keys matches every call."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    on: ApiCall
    model: str | None = None
    """`owner/name` of the prediction's model."""
    prompt: str | None = None
    """A part of the prompt, matched literally."""
    prompt_regex: Annotated[str, AfterValidator(_check_regex)] | None = None
    """A regular expression that is searched for in the prompt."""
    nth_create: OrdinalSet | None = None
    """Number of the prediction among the accepted creates, from 1."""
    nth_poll: OrdinalSet | None = None
    """Number of the poll of that prediction, from 1."""
    times: PositiveInt | Literal["always"] = 1
    """How many times the rule applies."""

    @model_validator(mode="after")
    def _check_keys(self) -> "BaseRule":
        if self.nth_poll is not None and self.on != "poll":
            raise ValueError('nth_poll needs on = "poll"')
        named = (self.model, self.prompt, self.prompt_regex, self.nth_create)
        if self.on in ("list", "upload", "account") and any(key is not None for key in named):
            raise ValueError(f'on = "{self.on}" is not about one prediction: only times can be given')
        return self


# Outcomes of a prediction


class Fail(BaseRule):
    """The prediction starts and then fails with `error`."""

    do: Literal["fail"]
    on: Literal["create"] = "create"
    error: str


class Abort(BaseRule):
    """The prediction is aborted before it starts."""

    do: Literal["abort"]
    on: Literal["create"] = "create"


class Cancel(BaseRule):
    """The prediction is canceled by another caller while it runs."""

    do: Literal["cancel"]
    on: Literal["create"] = "create"


class Stick(BaseRule):
    """The prediction runs until it is canceled or its deadline passes."""

    do: Literal["stick"]
    on: Literal["create"] = "create"


class WrongDuration(BaseRule):
    """The clip is `seconds` long instead of the requested duration."""

    do: Literal["wrong_duration"]
    on: Literal["create"] = "create"
    seconds: Annotated[float, Field(gt=0, le=60)]


class WrongPicture(BaseRule):
    """The clip is all black, or one frame from start to end, but it is complete and has the requested duration."""

    do: Literal["wrong_picture"]
    on: Literal["create"] = "create"
    picture: Literal["black", "frozen"]


class Expire(BaseRule):
    """The data of a succeeded prediction is removed at once, or before this poll or download."""

    do: Literal["expire"]
    on: Literal["create", "poll", "download"] = "create"


OutcomeRule = Fail | Abort | Cancel | Stick | WrongDuration | WrongPicture | Expire

# Appearance of a prediction


class Show(BaseRule):
    """The prediction is shown with other members than its own; `{url}`, `{data}` and `{fill:N}` in texts are replaced.

    With `on = "create"` this applies to every answer and the list, else to this one answer.
    """

    do: Literal["show"]
    on: Literal["create", "poll", "cancel"] = "create"
    fields: dict[str, Any] = Field(default_factory=dict)
    """Members of the prediction object, as TOML; `inf` and `nan` are numbers."""
    json_text: str = "{}"
    """Members as a JSON object, for values that TOML does not have: null, lone surrogates, NUL."""
    when: Literal["ended", "running", "always"] = "ended"

    @model_validator(mode="after")
    def _check_members(self) -> "Show":
        try:
            members = json.loads(self.json_text)
            json.dumps(self.fields)
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"json_text: not JSON: {exc}") from exc
        except TypeError as exc:
            raise ValueError(f"fields: {exc}") from exc
        if not isinstance(members, dict):
            raise ValueError("json_text: not a JSON object")
        if not members and not self.fields:
            raise ValueError("nothing to show: give fields or json_text")
        return self

    @property
    def members(self) -> dict[str, Any]:
        """The members with their placeholders."""
        return {**self.fields, **json.loads(self.json_text)}

    def is_shown(self, *, ended: bool) -> bool:
        """Return whether the rule applies to a prediction that has ended or has not."""
        return self.when == "always" or (self.when == "ended") == ended


class LateOutput(BaseRule):
    """The output file is missing for `seconds` after success and for the first `looks` downloads."""

    do: Literal["late_output"]
    on: Literal["create"] = "create"
    seconds: NonNegativeFloat = 0
    looks: NonNegativeInt = 0
    status: Annotated[int, Field(ge=300, le=599)] = 404
    body: Body = "problem"
    location: str = LOGIN_PATH


class HideFromList(BaseRule):
    """The list does not show the prediction until `seconds` after its creation."""

    do: Literal["hide_from_list"]
    on: Literal["create"] = "create"
    seconds: PositiveFloat


class Bill(BaseRule):
    """The prediction is billed, and its `metrics` are, as if its input had these values. The clip stays as it is."""

    do: Literal["bill"]
    on: Literal["create"] = "create"
    inputs: Annotated[dict[str, Any], Field(min_length=1)]
    """Inputs of the model, such as `duration`."""


AppearanceRule = Show | LateOutput | HideFromList | Bill

# Faults of a call


class Refuse(BaseRule):
    """The connection is reset without an answer and the call has no effect."""

    do: Literal["refuse"]


class LoseAnswer(BaseRule):
    """The call takes effect, then the connection is reset without an answer."""

    do: Literal["lose_answer"]


class Reset(BaseRule):
    """The call takes effect, `part` of the answer is sent, then the connection is reset."""

    do: Literal["reset"]
    part: OpenFraction = 0.5


class Stall(BaseRule):
    """The call takes effect, `part` of the answer is sent, then the connection stays open without more data."""

    do: Literal["stall"]
    part: OpenFraction = 0.5


class Hang(BaseRule):
    """No answer is sent; the call takes effect only with `accepted`."""

    do: Literal["hang"]
    accepted: bool = False


class Status(BaseRule):
    """The answer is replaced by one of Replicate or a gateway; the call takes effect only with `accepted`."""

    do: Literal["status"]
    status: Annotated[int, Field(ge=200, le=599)]
    body: Body = "problem"
    """Replicate's problem+json, an HTML page, the JSON of a gateway, or nothing."""
    detail: str | None = None
    """The text of `body = "problem"`. None means the live API's text where it is known."""
    location: str = LOGIN_PATH
    """The target of a redirect."""
    retry_after: PositiveInt | None = None
    """Seconds that a 429 or 503 asks the caller to wait."""
    hint: Literal["both", "header", "body", "text", "date"] = "both"
    """Place of `retry_after`: header, body, only in the text (the older form), or as a date in the header."""
    accepted: bool = False


class Html(BaseRule):
    """The answer is an error page in HTML; the call takes effect only with `accepted`."""

    do: Literal["html_500"]
    status: Annotated[int, Field(ge=500, le=599)] = 500
    accepted: bool = False


class AcceptLate(BaseRule):
    """The create gets a gateway's error or no answer, and is accepted `seconds` later."""

    do: Literal["accept_late"]
    on: Literal["create"] = "create"
    seconds: NonNegativeFloat
    answer: Literal["status", "reset", "hang"] = "status"
    status: Annotated[int, Field(ge=300, le=599)] = 504
    body: Body = "html"


class StaleList(BaseRule):
    """The list shows the predictions and their states of `seconds` ago."""

    do: Literal["stale_list"]
    on: Literal["list"] = "list"
    seconds: PositiveFloat


class ShuffleList(BaseRule):
    """The rows of the page are shuffled."""

    do: Literal["shuffle_list"]
    on: Literal["list"] = "list"


class MalformedJson(BaseRule):
    """The answer's JSON ends in the middle, with a correct length."""

    do: Literal["malformed_json"]
    on: Literal["create", "poll", "list", "cancel"]


class UnknownStatus(BaseRule):
    """The prediction in the answer has an undocumented status."""

    do: Literal["unknown_status"]
    on: Literal["create", "poll", "cancel"] = "poll"
    status: str = "queued"


class NullOutput(BaseRule):
    """A succeeded prediction is shown with output null."""

    do: Literal["null_output"]
    on: Literal["poll"] = "poll"


class ListOutput(BaseRule):
    """A succeeded prediction is shown with a list of one URL."""

    do: Literal["list_output"]
    on: Literal["poll"] = "poll"


class DictOutput(BaseRule):
    """A succeeded prediction is shown with an object that has the URL under `video`."""

    do: Literal["dict_output"]
    on: Literal["poll"] = "poll"


class GzipBomb(BaseRule):
    """The answer is followed by `size_mb` of blanks, compressed into a small gzip."""

    do: Literal["gzip_bomb"]
    size_mb: Annotated[int, Field(ge=1, le=4096)] = 256


class SlowLoris(BaseRule):
    """The answer is sent one byte every `every_s` seconds."""

    do: Literal["slow_loris"]
    every_s: PositiveFloat = 1.0


# Faults of a download


class Truncate(BaseRule):
    """The file is cut after `part` of it; the length in the header is that of the cut file."""

    do: Literal["truncate"]
    on: Literal["download"] = "download"
    part: OpenFraction = 0.5


class WrongContent(BaseRule):
    """Content other than a video is sent with status 200."""

    do: Literal["wrong_content"]
    on: Literal["download"] = "download"
    content: Literal["html", "json", "png"]
    content_type: str = "video/mp4"


class FlipBytes(BaseRule):
    """`count` bytes in the file's second half are inverted."""

    do: Literal["flip_bytes"]
    on: Literal["download"] = "download"
    count: PositiveInt = 64


class ZeroTail(BaseRule):
    """The last `part` of the file is replaced by zeros."""

    do: Literal["zero_tail"]
    on: Literal["download"] = "download"
    part: OpenFraction = 0.3


class Endless(BaseRule):
    """The file is sent repeatedly, without a length, until the caller disconnects."""

    do: Literal["endless"]
    on: Literal["download"] = "download"


FaultRule = Annotated[
    OutcomeRule
    | AppearanceRule
    | AcceptLate
    | StaleList
    | ShuffleList
    | Refuse
    | LoseAnswer
    | Reset
    | Stall
    | Hang
    | Status
    | Html
    | MalformedJson
    | UnknownStatus
    | NullOutput
    | ListOutput
    | DictOutput
    | GzipBomb
    | SlowLoris
    | Truncate
    | WrongContent
    | FlipBytes
    | ZeroTail
    | Endless,
    Field(discriminator="do"),
]


class FaultPlan(BaseModel):
    """The rules of a plan. For each call the first rule applies that matches and is not used up."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rules: list[FaultRule] = Field(default_factory=list)


def load_fault_plan(path: Path) -> FaultPlan:
    """Read a fault plan.

    Raises:
        FaultPlanError: the file cannot be read, is not TOML, or has invalid rules; the message names all of them.
    """
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise FaultPlanError(f"{path}: larger than {MAX_PLAN_BYTES} bytes")
        return FaultPlan.model_validate(tomli.loads(path.read_text("utf-8")))
    except OSError as exc:
        raise FaultPlanError(f"{path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise FaultPlanError("\n".join(f"{path}: {line}" for line in _describe_problems(exc))) from exc
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise FaultPlanError(f"{path}: not TOML: {exc}") from exc


def _describe_problems(exc: ValidationError) -> list[str]:
    """Return one line for each problem: `rule 2 (fail): error: Field required`."""
    lines = []
    for error in exc.errors(include_url=False, include_context=False):
        where = list(error["loc"])
        place = ""
        if where[:1] == ["rules"] and len(where) > 1:
            action = f" ({where[2]})" if len(where) > 2 else ""
            place, where = f"rule {int(where[1]) + 1}{action}: ", where[3:]
        key = ".".join(str(part) for part in where if isinstance(part, str) and part.isidentifier())
        lines.append(f"{place}{key + ': ' if key else ''}{error['msg']}")
    return list(dict.fromkeys(lines))
