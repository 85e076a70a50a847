"""What becomes of each answer that Replicate, or whoever stands in between, may give; and what is sent."""

import asyncio
import email.utils
import gzip
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.providers.conftest import MakeProvider
from tests.support.servers import Answer, Loopback, answer, cut, drip, reset, stall, unused_url
from tests.support.tokens import TOKEN
from videogen.emulator import Emulator, EmulatorSettings, run_emulator
from videogen.errors import (
    AuthenticationError,
    BillingError,
    GoneError,
    InputRejectedError,
    NotSentError,
    OutcomeUnknownError,
    RateLimitedError,
    TransientError,
    VideogenError,
)
from videogen.providers.base import Prediction
from videogen.providers.replicate import MAX_PAGES, Limits, ReplicateProvider

pytestmark = pytest.mark.integration

MODEL = "kwaivgi/kling-v2.5-turbo-pro"
VERSION = "5b14e2c2c648efecc8d36c6353576552f8a124e690587212f8e8bb17ecda3d8c"
INPUT = {"prompt": "A lighthouse", "duration": 5}
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
PREDICTION = {"id": "p1", "status": "starting", "output": None}
IMPATIENT = Limits(stalled_s=0.3, call_s=0.6, answer_bytes=100_000)

Call = Callable[[ReplicateProvider], Awaitable[Any]]


async def listed(provider: ReplicateProvider, since: datetime | None = None) -> list[Prediction]:
    return [found async for found in provider.list_since(since or datetime.now(UTC))]


CREATES = [
    pytest.param(lambda provider: provider.create(MODEL, None, INPUT, cancel_after_s=150), id="create-by-name"),
    pytest.param(lambda provider: provider.create("", VERSION, INPUT, cancel_after_s=150), id="create-by-version"),
]
OTHERS = [
    pytest.param(lambda provider: provider.get("p1"), id="get"),
    pytest.param(lambda provider: provider.cancel("p1"), id="cancel"),
    pytest.param(listed, id="list"),
    pytest.param(lambda provider: provider.upload(b"x", name="x.png", media_type="image/png"), id="upload"),
    pytest.param(lambda provider: provider.check_account(), id="account"),
    pytest.param(lambda provider: provider.describe(MODEL), id="model"),
    pytest.param(lambda provider: provider.list_collection("text-to-video"), id="collection"),
]


# -- sent -------------------------------------------------------------------------------------------------------------


async def test_an_official_model_is_created_by_its_name(make_provider: MakeProvider) -> None:
    """The input travels alone; no `Prefer: wait` keeps the id back, which a crash would then lose."""
    async with Loopback(answer(201, PREDICTION)) as server:
        prediction = await make_provider(server.url, TOKEN).create(MODEL, None, INPUT, cancel_after_s=150)
    asked = server.asked[0]
    assert (asked.method, asked.target) == ("POST", f"/v1/models/{MODEL}/predictions")
    assert asked.json == {"input": INPUT}
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert "prefer" not in asked.headers
    assert prediction.id == "p1"


async def test_a_community_model_is_created_by_its_version(make_provider: MakeProvider) -> None:
    """The models' path answers 404 for community models, so their version goes to `/v1/predictions`."""
    async with Loopback(answer(201, PREDICTION)) as server:
        await make_provider(server.url).create("cuuupid/cogvideox-5b", VERSION, INPUT, cancel_after_s=150)
    assert (server.asked[0].method, server.asked[0].target) == ("POST", "/v1/predictions")
    assert server.asked[0].json == {"version": VERSION, "input": INPUT}


@pytest.mark.parametrize(
    ("cancel_after_s", "header"),
    [
        pytest.param(150, "150s", id="seconds"),
        pytest.param(149.6, "150s", id="rounded"),
        pytest.param(0.2, "5s", id="never-under-5-s"),
        pytest.param(10**6, "86400s", id="never-over-24-h"),
    ],
)
async def test_every_prediction_carries_its_own_end(
    make_provider: MakeProvider, cancel_after_s: float, header: str
) -> None:
    """Nothing runs past its Cancel-After, also when we are gone."""
    async with Loopback(answer(201, PREDICTION)) as server:
        await make_provider(server.url).create(MODEL, None, INPUT, cancel_after_s=cancel_after_s)
    assert server.asked[0].headers["cancel-after"] == header


async def test_a_prediction_is_got_and_cancelled_by_its_id(make_provider: MakeProvider) -> None:
    """A cancel has no body, and neither call a Cancel-After."""
    async with Loopback(answer(200, PREDICTION), answer(200, {**PREDICTION, "status": "canceled"})) as server:
        provider = make_provider(server.url)
        await provider.get("p1")
        canceled = await provider.cancel("p1")
    assert [(asked.method, asked.target, asked.body) for asked in server.asked] == [
        ("GET", "/v1/predictions/p1", b""),
        ("POST", "/v1/predictions/p1/cancel", b""),
    ]
    assert all("cancel-after" not in asked.headers for asked in server.asked)
    assert canceled.status == "canceled"
    assert canceled.ended


async def test_an_upload_carries_bytes_name_and_type(make_provider: MakeProvider) -> None:
    """One multipart part named `content`; what comes back is the address for the model."""
    async with Loopback(answer(201, {"id": "f1", "urls": {"get": "https://api.example/v1/files/f1"}})) as server:
        url = await make_provider(server.url).upload(b"\x89PNG\0\xff", name="frame.png", media_type="image/png")
    asked = server.asked[0]
    assert (asked.method, asked.target) == ("POST", "/v1/files")
    assert b'name="content"; filename="frame.png"' in asked.body
    assert b"Content-Type: image/png\r\n\r\n\x89PNG\0\xff\r\n" in asked.body
    assert url == "https://api.example/v1/files/f1"


async def test_a_model_is_described_by_its_latest_version_and_those_asked_for(make_provider: MakeProvider) -> None:
    """A version that is not there is left out."""
    latest, older = ({"id": name, "openapi_schema": {"of": name}} for name in ("latest", "older"))
    described = {"owner": "kwaivgi", "is_official": True, "latest_version": latest, "run_count": 7}
    gone = answer(404, {"detail": "The requested resource could not be found.", "status": 404})
    async with Loopback(answer(200, described), answer(200, older), gone) as server:
        endpoint = await make_provider(server.url).describe(MODEL, ["older", "gone"])
    paths = [f"/v1/models/{MODEL}{rest}" for rest in ("", "/versions/older", "/versions/gone")]
    assert [(asked.method, asked.target) for asked in server.asked] == [("GET", path) for path in paths]
    assert (endpoint.name, endpoint.is_official, endpoint.latest_version) == (MODEL, True, "latest")
    assert endpoint.openapi_schemas == {"latest": {"of": "latest"}, "older": {"of": "older"}}


@pytest.mark.parametrize(
    "version", [{}, {"id": "1"}, {"id": [], "openapi_schema": {}}, {"id": "1", "openapi_schema": 0}], ids=str
)
async def test_an_answer_that_describes_no_model_may_be_asked_for_again(
    make_provider: MakeProvider, version: Any
) -> None:
    """It is taken for a fault of the moment, not for a model without inputs."""
    async with Loopback(answer(200, {"latest_version": version})) as server:
        with pytest.raises(TransientError, match="describes no model"):
            await make_provider(server.url).describe(MODEL)


async def test_a_collection_lists_its_models(make_provider: MakeProvider) -> None:
    """Without those whose name cannot be one, and official only if Replicate says so."""
    models = [
        {"owner": "maker", "name": "film", "description": "Makes\x1b films", "is_official": True},
        {"owner": "maker", "name": "older", "description": None},
        {"owner": "../..", "name": "odd", "is_official": True},
        {"owner": "maker"},
        None,
    ]
    async with Loopback(answer(200, {"slug": "text-to-video", "models": models})) as server:
        film, older = await make_provider(server.url).list_collection("text-to-video")
    assert [asked.target for asked in server.asked] == ["/v1/collections/text-to-video"]
    assert (film.name, film.is_official, older.name, older.is_official) == ("maker/film", True, "maker/older", False)
    assert "\x1b" not in film.description


async def test_an_answer_that_lists_no_models_may_be_asked_for_again(make_provider: MakeProvider) -> None:
    async with Loopback(answer(200, {"models": None})) as server:
        with pytest.raises(TransientError, match="lists no models"):
            await make_provider(server.url).list_collection("text-to-video")


@pytest.mark.parametrize("body", [{}, {"urls": None}, {"urls": {}}], ids=["no-urls", "null", "empty"])
async def test_an_upload_without_an_address_may_be_repeated(make_provider: MakeProvider, body: Any) -> None:
    """A picture that nobody can find is as good as not uploaded."""
    async with Loopback(answer(201, body)) as server:
        with pytest.raises(TransientError, match="names no URL"):
            await make_provider(server.url).upload(b"x", name="x.png", media_type="image/png")


# -- lost -------------------------------------------------------------------------------------------------------------

LOST = [
    pytest.param(reset, id="reset"),
    pytest.param(stall(), id="read-timeout"),
    pytest.param(drip(b" " * 100, every_s=0.05), id="slow-loris"),
    pytest.param(answer(500, HTML, content_type="text/html"), id="500-html"),
    pytest.param(answer(502, HTML, content_type="text/html"), id="502-html"),
    pytest.param(answer(503, HTML, retry_after="30"), id="503-retry-after"),
    pytest.param(answer(504, ""), id="504-empty"),
    pytest.param(answer(408, ""), id="408"),
    pytest.param(answer(200, ""), id="empty"),
    pytest.param(answer(200, '{"id": "p1", "sta'), id="malformed-json"),
    pytest.param(answer(200, b'\xff\xfe{"id": "p1"}'), id="not-utf-8"),
    pytest.param(answer(200, [PREDICTION]), id="json-list"),
    pytest.param(cut(json.dumps(PREDICTION).encode(), after=20), id="cut"),
    pytest.param(answer(200, '{"id": "' + "p" * 100_000 + '"}'), id="huge"),
    pytest.param(answer(200, gzip.compress(b" " * 10**7 + b"{}"), content_encoding="gzip"), id="gzip-bomb"),
    pytest.param(answer(200, b"not gzip", content_encoding="gzip"), id="broken-gzip"),
]


@pytest.mark.parametrize("call", CREATES)
@pytest.mark.parametrize("lost", LOST)
async def test_a_create_whose_answer_is_lost_may_have_been_accepted(
    make_provider: MakeProvider, lost: Answer, call: Call
) -> None:
    """It is reported as unknown after one request: only the list of predictions can tell."""
    async with Loopback(lost) as server:
        with pytest.raises(OutcomeUnknownError):
            async with asyncio.timeout(250):
                await call(make_provider(server.url, limits=IMPATIENT))
    assert len(server.asked) == 1


@pytest.mark.parametrize("lost", LOST)
async def test_a_poll_whose_answer_is_lost_may_be_repeated(make_provider: MakeProvider, lost: Answer) -> None:
    """It is reported as passing after one request: the official client would repeat it for up to ten waits."""
    async with Loopback(lost) as server:
        with pytest.raises(TransientError):
            async with asyncio.timeout(250):
                await make_provider(server.url, limits=IMPATIENT).get("p1")
    assert len(server.asked) == 1


@pytest.mark.parametrize("call", OTHERS)
async def test_any_call_but_a_create_may_be_repeated(make_provider: MakeProvider, call: Call) -> None:
    """Getting, listing, cancelling and uploading cost nothing twice."""
    async with Loopback(reset) as server:
        with pytest.raises(TransientError):
            await call(make_provider(server.url))


@pytest.mark.parametrize("call", CREATES + OTHERS)
async def test_a_refused_connection_means_that_nothing_was_sent(make_provider: MakeProvider, call: Call) -> None:
    """Certain, so that a create may be repeated at once."""
    with pytest.raises(NotSentError, match=r"127\.0\.0\.1"):
        await call(make_provider(unused_url()))


@pytest.mark.parametrize("call", CREATES)
@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": ""}], ids=["absent", "null", "empty"])
async def test_a_create_that_names_no_prediction_may_have_been_accepted(
    make_provider: MakeProvider, body: Any, call: Call
) -> None:
    """Without an id it cannot be polled, but it may be running."""
    async with Loopback(answer(201, body)) as server:
        with pytest.raises(OutcomeUnknownError, match="names no prediction"):
            await call(make_provider(server.url))


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CREATES + OTHERS)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_not_shown(make_provider: MakeProvider, status: int, call: Call) -> None:
    """Every call says so in one way, and neither its message nor its traceback has the token."""
    body = {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token", "status": status}
    async with Loopback(answer(status, body)) as server:
        with pytest.raises(AuthenticationError, match="valid authentication token") as caught:
            await call(make_provider(server.url, TOKEN))
    assert TOKEN in server.asked[0].headers["authorization"]
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("call", CREATES)
async def test_an_account_without_credit_is_a_billing_error(make_provider: MakeProvider, call: Call) -> None:
    """402 stops the job, not the clip."""
    body = {"title": "Insufficient credit", "detail": "You have insufficient credit to run this model.", "status": 402}
    async with Loopback(answer(402, body)) as server:
        with pytest.raises(BillingError, match="insufficient credit"):
            await call(make_provider(server.url))


LEAKY = (
    f"upstream refused {{token}} and r8_{'s3cr3t' * 5}, see https://me:s3cr3t@cdn.example/a?sig=s3cr3t "
    "(password=s3cr3t, 'api_key': 's3cr3t')"
)
"""A provider's text with secrets. Its words are shown."""


def is_shown_without_secrets(text: str) -> bool:
    return "upstream refused *** and ***" in text and "s3cr3t" not in text and "private-token" not in text


@pytest.mark.parametrize("status", [401, 402, 422, 429])
@pytest.mark.parametrize("call", [*CREATES[:1], OTHERS[0]])
async def test_secrets_in_the_words_of_a_refusal_are_not_shown(
    make_provider: MakeProvider, status: int, call: Call
) -> None:
    """Whatever the provider, or a server behind it, quotes."""
    body = {"detail": LEAKY.format(token="private-token"), "status": status}
    async with Loopback(answer(status, body)) as server:
        with pytest.raises(VideogenError) as caught:
            await call(make_provider(server.url, "private-token"))
    assert is_shown_without_secrets(str(caught.value))


async def test_secrets_in_the_words_of_a_refused_field_are_not_shown(make_provider: MakeProvider) -> None:
    fields = [{"field": "input.image", "description": LEAKY.format(token="private-token")}]
    async with Loopback(answer(422, {"invalid_fields": fields})) as server:
        with pytest.raises(InputRejectedError) as caught:
            await CREATES[0].values[0](make_provider(server.url, "private-token"))  # type: ignore[operator]
    assert is_shown_without_secrets(str(caught.value))


@pytest.mark.parametrize("flagged", ["", "NSFW content detected: "])
async def test_secrets_in_the_error_of_a_prediction_are_not_kept(make_provider: MakeProvider, flagged: str) -> None:
    """It is in the journal, the events and the manifest. The kind of the failure is known all the same."""
    error = flagged + LEAKY.format(token="private-token")
    body = {"id": "p1", "status": "failed", "error": error}
    async with Loopback(answer(200, body)) as server:
        prediction = await make_provider(server.url, "private-token").get("p1")
    assert prediction.error
    assert is_shown_without_secrets(prediction.error)
    assert (prediction.failure == "moderation") is bool(flagged)


THROTTLED = "Request was throttled. Your rate limit resets in ~30s."


def in_a_minute() -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)


@pytest.mark.parametrize(
    ("refusal", "low_s", "high_s"),
    [
        pytest.param(lambda: answer(429, "", retry_after="7"), 7, 7, id="header-only"),
        pytest.param(lambda: answer(429, {"detail": THROTTLED}), 30, 30, id="text-only"),
        pytest.param(lambda: answer(429, {"detail": "Throttled.", "retry_after": 5}), 5, 5, id="field-only"),
        pytest.param(
            lambda: answer(429, {"detail": THROTTLED, "retry_after": 5}, retry_after="3"), 30, 30, id="text-max"
        ),
        pytest.param(lambda: answer(429, {"detail": THROTTLED, "retry_after": 40}), 40, 40, id="field-max"),
        pytest.param(
            lambda: answer(429, {"detail": THROTTLED, "retry_after": 5}, retry_after="50"), 50, 50, id="header-max"
        ),
        pytest.param(lambda: answer(429, "", retry_after=in_a_minute()), 55, 60, id="http-date"),
        pytest.param(
            lambda: answer(429, "", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), 1, 60, id="date-in-the-past"
        ),
        pytest.param(lambda: answer(429, {"detail": THROTTLED}, retry_after="soon"), 30, 30, id="header-nonsense"),
        pytest.param(lambda: answer(429, HTML), 1, 60, id="nothing-said"),
        pytest.param(lambda: answer(429, {"retry_after": None}, retry_after="nan"), 1, 60, id="no-number"),
        pytest.param(lambda: answer(429, "", retry_after="999999"), 60, 3600, id="not-for-ever"),
    ],
)
@pytest.mark.parametrize("call", [CREATES[0], OTHERS[0]])
async def test_a_rate_limit_tells_how_long_to_wait(
    make_provider: MakeProvider, call: Call, refusal: Callable[[], Answer], low_s: float, high_s: float
) -> None:
    """The longest of header, field and text; a few seconds where nothing is said; asked once, never waited inside."""
    async with Loopback(refusal()) as server:
        with pytest.raises(RateLimitedError) as caught:
            await call(make_provider(server.url))
    assert low_s <= caught.value.retry_after_s <= high_s
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(
            {
                "detail": "- input.duration: duration must be one of the following: 5, 10\n",
                "status": 422,
                "title": "Input validation failed",
                "invalid_fields": [
                    {
                        "type": "enum",
                        "field": "input.duration",
                        "description": "duration must be one of the following: 5, 10",
                    }
                ],
            },
            ["input.duration: duration must be one of the following: 5, 10"],
            id="enum",
        ),
        pytest.param(
            {
                "invalid_fields": [
                    {"type": "required", "field": "input", "description": "prompt is required"},
                    {"type": "number_lte", "field": "input.seed", "description": "Must be less than or equal to 4"},
                ]
            },
            ["input: prompt is required", "input.seed: Must be less than or equal to 4"],
            id="two-fields",
        ),
        pytest.param(
            {"invalid_fields": [{"field": "", "description": "Additional property model is not allowed"}]},
            ["body: Additional property model is not allowed"],
            id="top-level",
        ),
        pytest.param(
            {
                "title": "Invalid version or not permitted",
                "detail": "The specified version does not exist",
                "status": 422,
            },
            ["The specified version does not exist"],
            id="version",
        ),
        pytest.param({"detail": "No.", "invalid_fields": "all of them"}, ["No."], id="fields-of-another-type"),
        pytest.param(
            {"title": "Input validation failed", "status": 422}, ["422", "Input validation failed"], id="title"
        ),
    ],
)
async def test_a_rejected_input_names_every_field(make_provider: MakeProvider, body: Any, told: list[str]) -> None:
    """The same call would be refused again, so the message says what to mend."""
    async with Loopback(answer(422, body)) as server:
        with pytest.raises(InputRejectedError) as caught:
            await make_provider(server.url).create(MODEL, None, INPUT, cancel_after_s=150)
    assert all(part in str(caught.value) for part in told)


NOT_FOUND = answer(404, {"detail": "The requested resource could not be found.", "status": 404})


@pytest.mark.parametrize("call", CREATES)
async def test_a_model_that_is_not_there_is_a_rejected_input(make_provider: MakeProvider, call: Call) -> None:
    """404 on create is permanent for the clip."""
    async with Loopback(NOT_FOUND) as server:
        with pytest.raises(InputRejectedError, match="404"):
            await call(make_provider(server.url))


@pytest.mark.parametrize("call", OTHERS[:2])
async def test_a_prediction_that_is_not_there_is_gone(make_provider: MakeProvider, call: Call) -> None:
    """404 on get or cancel is about the prediction."""
    async with Loopback(NOT_FOUND) as server:
        with pytest.raises(GoneError):
            await call(make_provider(server.url))


# -- read -------------------------------------------------------------------------------------------------------------


async def told(make_provider: MakeProvider, **fields: Any) -> Prediction:
    """The prediction as read from an answer with these fields."""
    async with Loopback(answer(200, {"id": "p1", "status": "succeeded", **fields})) as server:
        return await make_provider(server.url).get("p1")


@pytest.mark.parametrize(
    ("output", "url"),
    [
        pytest.param("https://replicate.delivery/a.mp4", "https://replicate.delivery/a.mp4", id="string"),
        pytest.param(
            ["https://replicate.delivery/a.mp4", "https://x/b"], "https://replicate.delivery/a.mp4", id="list"
        ),
        pytest.param(
            [None, 3, "logs", "https://replicate.delivery/a.mp4"], "https://replicate.delivery/a.mp4", id="mixed"
        ),
        pytest.param(
            {"fps": 24, "video": "https://replicate.delivery/a.mp4"}, "https://replicate.delivery/a.mp4", id="dict"
        ),
        pytest.param(None, None, id="null"),
        pytest.param("", None, id="empty-string"),
        pytest.param([], None, id="empty-list"),
        pytest.param({}, None, id="empty-dict"),
        pytest.param(42, None, id="number"),
    ],
)
async def test_an_output_of_any_shape_is_one_address_or_none(
    make_provider: MakeProvider, output: Any, url: str | None
) -> None:
    """Video models give a string, older ones a list, some an object."""
    assert (await told(make_provider, output=output)).output_url == url


@pytest.mark.parametrize("status", ["queued", "", None, 7, ["succeeded"]], ids=repr)
async def test_a_status_that_nobody_knows_is_still_running(make_provider: MakeProvider, status: Any) -> None:
    """The deadline ends what never ends."""
    prediction = await told(make_provider, status=status)
    assert prediction.status == "processing"
    assert not prediction.ended


@pytest.mark.parametrize(
    ("fields", "started"),
    [
        pytest.param({"status": "aborted"}, False, id="aborted"),
        pytest.param({"status": "canceled"}, False, id="canceled-before-it-began"),
        pytest.param({"status": "canceled", "started_at": "2026-11-22T10:00:00Z"}, True, id="canceled-while-running"),
        pytest.param({"status": "starting"}, False, id="starting"),
        pytest.param({"status": "processing"}, True, id="processing"),
        pytest.param({"status": "failed"}, True, id="failed"),
        pytest.param({"status": "succeeded"}, True, id="succeeded"),
    ],
)
async def test_what_never_started_is_known_to_be_free(
    make_provider: MakeProvider, fields: dict[str, Any], started: bool
) -> None:
    """`aborted`, which the official client cannot even read, is an end like others."""
    prediction = await told(make_provider, **fields)
    assert prediction.status == fields["status"]
    assert prediction.started is started


async def test_a_prediction_keeps_what_is_told_of_it(make_provider: MakeProvider) -> None:
    """Down to the microsecond, of which Replicate gives a thousand more."""
    prediction = await told(
        make_provider,
        model=MODEL,
        version="hidden",
        input={"prompt": "A lighthouse"},
        error=" out of memory\n",
        created_at="2026-11-22T10:00:00.123Z",
        metrics={"predict_time": 187.6},
        data_removed=True,
    )
    assert (prediction.model, prediction.version, prediction.error) == (MODEL, "hidden", "out of memory")
    assert prediction.input == {"prompt": "A lighthouse"}
    assert prediction.created_at == datetime(2026, 11, 22, 10, 0, 0, 123_000, tzinfo=UTC)
    assert prediction.predict_time_s == 187.6
    assert prediction.data_removed


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param("2026-11-22T10:00:00.123456789Z", datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC), id="ns"),
        pytest.param("2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC), id="whole"),
        pytest.param(
            "2026-11-22T10:00:00+02:00", datetime(2026, 11, 22, 10, tzinfo=timezone(timedelta(hours=2))), id="zone"
        ),
        pytest.param("2026-11-22T10:00:00", datetime(2026, 11, 22, 10, tzinfo=UTC), id="no-zone"),
        pytest.param("yesterday", None, id="nonsense"),
        pytest.param(1_790_000_000, None, id="number"),
    ],
)
async def test_a_time_is_read_in_every_form_it_comes_in(
    make_provider: MakeProvider, text: Any, read: datetime | None
) -> None:
    """What is no time is none, not an error; one without a zone is UTC."""
    assert (await told(make_provider, created_at=text)).created_at == read


async def test_fields_of_an_unexpected_type_do_not_matter(make_provider: MakeProvider) -> None:
    """One odd field of a paid prediction must not lose it."""
    prediction = await told(
        make_provider, error={"code": "E1"}, version=None, input=[1], metrics="fast", model=None, created_at=[], logs=7
    )
    assert (prediction.status, prediction.error, prediction.version) == ("succeeded", "{'code': 'E1'}", None)
    assert (prediction.input, prediction.predict_time_s, prediction.model) == ({}, None, "")


# -- listed -----------------------------------------------------------------------------------------------------------


def page(*ids: str, next: str | None = None) -> Answer:
    return answer(200, {"next": next, "previous": None, "results": [{**PREDICTION, "id": name} for name in ids]})


async def test_a_list_is_followed_to_its_last_page(make_provider: MakeProvider) -> None:
    """The search for a lost create sees every prediction since then, newest first; the time is asked for in UTC."""
    async with Loopback() as server:
        server.then(page("c", "b", next=f"{server.url}/v1/predictions?cursor=2"), page("a"))
        since = datetime(2026, 11, 22, 12, 30, tzinfo=timezone(timedelta(hours=2)))
        found = await listed(make_provider(server.url), since)
    assert [prediction.id for prediction in found] == ["c", "b", "a"]
    assert [asked.target for asked in server.asked] == [
        "/v1/predictions?created_after=2026-11-22T10%3A30%3A00Z",
        "/v1/predictions?cursor=2",
    ]


async def test_the_token_goes_to_no_other_host_by_way_of_a_list(make_provider: MakeProvider) -> None:
    """Of the next page's address only the path is used, so that neither a proxy is left nor the token given away."""
    async with Loopback(page("stolen")) as canary, Loopback() as server:
        server.then(page("b", next=f"{canary.url}/v1/predictions?cursor=2"), page("a"))
        found = await listed(make_provider(server.url, TOKEN))
    assert canary.asked == []
    assert [prediction.id for prediction in found] == ["b", "a"]
    assert server.asked[1].target == "/v1/predictions?cursor=2"


async def test_a_list_that_never_ends_is_left(make_provider: MakeProvider) -> None:
    """A list without an end is not taken for one that ended without it."""
    async with Loopback() as server:
        server.then(*[page("a", next=f"{server.url}/v1/predictions?cursor=again")] * (MAX_PAGES + 10))
        with pytest.raises(TransientError, match="more than 100 pages"):
            await listed(make_provider(server.url))
    assert len(server.asked) == MAX_PAGES


@pytest.mark.parametrize("results", [None, [None, 3, "p2"], [{}], {}], ids=["null", "junk", "nameless", "object"])
async def test_what_a_list_holds_beside_predictions_is_passed_over(make_provider: MakeProvider, results: Any) -> None:
    """Junk in a list hides no prediction behind it."""
    async with Loopback() as server:
        server.then(answer(200, {"results": results, "next": f"{server.url}/v1/predictions?cursor=2"}), page("a"))
        found = await listed(make_provider(server.url))
    assert [prediction.id for prediction in found] == ["a"]


# -- against the emulator ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Everything takes a minute: nothing ends by itself."""
    with run_emulator(EmulatorSettings(latency_s=(60, 60))) as emulator:
        yield emulator


async def test_every_prediction_since_then_is_found_over_pages(emulator: Emulator, make_provider: MakeProvider) -> None:
    """A hundred to a page: the hundred and first is found too, and what was created before is not."""
    provider = make_provider(emulator.url)
    old = await provider.create(MODEL, None, INPUT, cancel_after_s=600)
    time.sleep(0.01)
    since = datetime.now(UTC)
    created = [await provider.create(MODEL, None, INPUT, cancel_after_s=600) for _ in range(101)]
    found = [prediction.id for prediction in await listed(provider, since)]
    assert found == [prediction.id for prediction in reversed(created)]
    assert old.id not in found


async def test_an_uploaded_picture_can_be_used_as_an_input(emulator: Emulator, make_provider: MakeProvider) -> None:
    """The address that an upload gives is taken by a model, and the prediction is ours to cancel."""
    provider = make_provider(emulator.url)
    url = await provider.upload(b"picture", name="frame.png", media_type="image/png")
    created = await provider.create(MODEL, None, {**INPUT, "start_image": url}, cancel_after_s=600)
    assert (await provider.cancel(created.id)).status == "canceled"
    row = next(row for row in emulator.ledger()["predictions"] if row["id"] == created.id)
    assert row["input"] == {**INPUT, "start_image": url}
