"""The fault plan: a TOML file of rules that say which call goes wrong, and how. README.md beside this is its manual."""

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
    """A fault plan that cannot be used; the message names the file and every problem in it."""


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
    """Which calls a rule is for. Every key that is given must match; a rule without keys matches every call."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    on: ApiCall
    model: str | None = None
    """`owner/name` of the prediction's model."""
    prompt: str | None = None
    """A part of the prompt, letter for letter."""
    prompt_regex: Annotated[str, AfterValidator(_check_regex)] | None = None
    """A regular expression found somewhere in the prompt."""
    nth_create: OrdinalSet | None = None
    """Number of the prediction among the accepted creates, from 1."""
    nth_poll: OrdinalSet | None = None
    """Number of the poll of that prediction, from 1."""
    times: PositiveInt | Literal["always"] = 1
    """How often the rule applies."""

    @model_validator(mode="after")
    def _check_keys(self) -> "BaseRule":
        if self.nth_poll is not None and self.on != "poll":
            raise ValueError('nth_poll needs on = "poll"')
        named = (self.model, self.prompt, self.prompt_regex, self.nth_create)
        if self.on in ("list", "upload", "account") and any(key is not None for key in named):
            raise ValueError(f'on = "{self.on}" is not about one prediction: only times can be given')
        return self


# What becomes of a prediction


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
    """Somebody else cancels the prediction while it runs."""

    do: Literal["cancel"]
    on: Literal["create"] = "create"


class Stick(BaseRule):
    """The prediction runs until it is canceled or its deadline passes."""

    do: Literal["stick"]
    on: Literal["create"] = "create"


class WrongDuration(BaseRule):
    """The clip is `seconds` long, whatever was asked."""

    do: Literal["wrong_duration"]
    on: Literal["create"] = "create"
    seconds: Annotated[float, Field(gt=0, le=60)]


class WrongPicture(BaseRule):
    """The clip shows nothing but black, or one frame from start to end; it is whole and as long as asked."""

    do: Literal["wrong_picture"]
    on: Literal["create"] = "create"
    picture: Literal["black", "frozen"]


class Expire(BaseRule):
    """A succeeded prediction's data is removed: as soon as it has succeeded, or before this poll or download."""

    do: Literal["expire"]
    on: Literal["create", "poll", "download"] = "create"


OutcomeRule = Fail | Abort | Cancel | Stick | WrongDuration | WrongPicture | Expire

# How a prediction is seen from outside


class Show(BaseRule):
    """The prediction is shown with other members than it has; `{url}`, `{data}` and `{fill:N}` in texts are filled in.

    With `on = "create"` it is shown so wherever it is shown, else in this one answer.
    """

    do: Literal["show"]
    on: Literal["create", "poll", "cancel"] = "create"
    fields: dict[str, Any] = Field(default_factory=dict)
    """Members of the prediction object, as TOML; `inf` and `nan` are numbers."""
    json_text: str = "{}"
    """The same as a JSON object, for what TOML cannot say: null, lone surrogates, NUL."""
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
        """Return whether a prediction that has ended, or has not, is shown so."""
        return self.when == "always" or (self.when == "ended") == ended


class LateOutput(BaseRule):
    """The delivery host does not have the file yet, `seconds` after success and for the first `looks` downloads."""

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


AppearanceRule = Show | LateOutput | HideFromList

# What becomes of a call


class Refuse(BaseRule):
    """The connection is reset without an answer; nothing was accepted."""

    do: Literal["refuse"]


class LoseAnswer(BaseRule):
    """The call takes effect, then the connection is reset without an answer."""

    do: Literal["lose_answer"]


class Reset(BaseRule):
    """The call takes effect, `part` of the answer is sent, then the connection is reset."""

    do: Literal["reset"]
    part: OpenFraction = 0.5


class Stall(BaseRule):
    """The call takes effect, `part` of the answer is sent, then nothing more comes and the connection stays."""

    do: Literal["stall"]
    part: OpenFraction = 0.5


class Hang(BaseRule):
    """No answer comes; the call takes effect only with `accepted`."""

    do: Literal["hang"]
    accepted: bool = False


class Status(BaseRule):
    """Another answer, whoever gives it; the call takes effect only with `accepted`."""

    do: Literal["status"]
    status: Annotated[int, Field(ge=200, le=599)]
    body: Body = "problem"
    """Replicate's own problem+json, a page, JSON of somebody else, or nothing."""
    detail: str | None = None
    """The text of `body = "problem"`; None: the live API's words, where they are known."""
    location: str = LOGIN_PATH
    """Where a redirect leads."""
    retry_after: PositiveInt | None = None
    """Seconds that a 429 or 503 asks to wait."""
    hint: Literal["both", "header", "body", "text", "date"] = "both"
    """Where `retry_after` is told: header, body, only in words (the older form), or as a date in the header."""
    accepted: bool = False


class Html(BaseRule):
    """An error page in HTML; the call takes effect only with `accepted`."""

    do: Literal["html_500"]
    status: Annotated[int, Field(ge=500, le=599)] = 500
    accepted: bool = False


class AcceptLate(BaseRule):
    """The create is answered with a gateway's error or not at all, and accepted `seconds` later."""

    do: Literal["accept_late"]
    on: Literal["create"] = "create"
    seconds: NonNegativeFloat
    answer: Literal["status", "reset", "hang"] = "status"
    status: Annotated[int, Field(ge=300, le=599)] = 504
    body: Body = "html"


class StaleList(BaseRule):
    """The list shows what was there, and how it stood, `seconds` ago."""

    do: Literal["stale_list"]
    on: Literal["list"] = "list"
    seconds: PositiveFloat


class ShuffleList(BaseRule):
    """The rows of the page are in no order."""

    do: Literal["shuffle_list"]
    on: Literal["list"] = "list"


class MalformedJson(BaseRule):
    """The answer's JSON ends in the middle, with a correct length."""

    do: Literal["malformed_json"]
    on: Literal["create", "poll", "list", "cancel"]


class UnknownStatus(BaseRule):
    """The prediction in the answer has a status that nobody documented."""

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
    """The answer followed by `size_mb` of blanks, as a small gzip."""

    do: Literal["gzip_bomb"]
    size_mb: Annotated[int, Field(ge=1, le=4096)] = 256


class SlowLoris(BaseRule):
    """The answer, one byte every `every_s` seconds."""

    do: Literal["slow_loris"]
    every_s: PositiveFloat = 1.0


# What becomes of a download


class Truncate(BaseRule):
    """The file ends after `part` of it; the length in the header is that of what is left."""

    do: Literal["truncate"]
    on: Literal["download"] = "download"
    part: OpenFraction = 0.5


class WrongContent(BaseRule):
    """Something else than a video, with status 200."""

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
    """The last `part` of the file is zeros."""

    do: Literal["zero_tail"]
    on: Literal["download"] = "download"
    part: OpenFraction = 0.3


class Endless(BaseRule):
    """The file over and over, without a length, until the caller hangs up."""

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
    """The rules of a plan; for each call the first one that matches and is not used up applies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rules: list[FaultRule] = Field(default_factory=list)


def load_fault_plan(path: Path) -> FaultPlan:
    """Read a fault plan.

    Raises:
        FaultPlanError: it cannot be read, is no TOML, or has wrong rules; all of them are named.
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
    """One line for each problem: `rule 2 (fail): error: Field required`."""
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
