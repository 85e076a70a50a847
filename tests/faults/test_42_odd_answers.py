"""Row 42: whatever the provider says is made safe once, so that no later run is wedged by it."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.servers import Answer, Loopback, answer
from videogen.errors import GoneError, OutcomeUnknownError, TransientError
from videogen.providers.base import BilledOutput, Prediction
from videogen.providers.replicate import ReplicateProvider

NOW = datetime.now(UTC)


@asynccontextmanager
async def provider_of(*answers: Answer) -> AsyncIterator[tuple[ReplicateProvider, Loopback]]:
    async with Loopback(*answers) as server, aclosing(ReplicateProvider("local", base_url=server.url)) as provider:
        yield provider, server


async def told(body: bytes | str | dict[str, Any]) -> Prediction:
    """The prediction `p1` as it is read from this body, or from a failed one with these fields."""
    fields = {"id": "p1", "status": "failed", **body} if isinstance(body, dict) else body
    async with provider_of(answer(200, fields)) as (provider, _):
        return await provider.get("p1")


def assert_is_safe(text: str, most: int = 2_000) -> None:
    """A database takes it, a terminal shows it, and it is not longer than a person reads."""
    text.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert len(text) <= most


ODD_TEXTS = {
    "nul": "out of\0memory",
    "half-an-emoji": "out of memory \ud83d",
    "other-half": "\ude00 out of memory",
    "escape-sequence": "\x1b[2J\x1b]0;owned\x07",
    "c1": "\x9b31mred",
    "del": "a\x7fb",
    "backspaces": "paid\b\b\b\bfree",
    "carriage-return": "first\rsecond",
    "5-mb": "x" * 5_000_000,
    "much-nul": "\0" * 500_000,
    "emoji-at-the-cut": "x" * 1_998 + "😀😀😀",
    "lines": "a\r\nb\n\tc",
    "object": {"code": "E1", "detail": "\0" * 10},
    "list": [["\ud83d"] * 3],
    "deep": json.loads("[" * 200 + "]" * 200),
    "wide": list(range(100_000)),
    "number": 7,
    "true": True,
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
async def test_42_texts_are_made_safe(text: Any) -> None:
    """Error, model, version and all of the answer that is kept."""
    prediction = await told({"error": text, "model": text, "version": text, "logs": text, "urls": {"web": text}})
    assert prediction.error
    assert_is_safe(prediction.error)
    assert_is_safe(prediction.model, most=200)
    assert_is_safe(prediction.version or "", most=200)
    kept = json.dumps(prediction.raw, indent=2, ensure_ascii=False, allow_nan=False)
    assert_is_safe(kept, most=1_000_000)


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
async def test_42_what_a_refusal_says_is_made_safe(text: Any) -> None:
    """The message is written down, too."""
    body = {"detail": text, "title": "No", "invalid_fields": [{"field": text, "description": text}]}
    async with provider_of(answer(422, body)) as (provider, _):
        with pytest.raises(Exception, match="422") as caught:
            await provider.create("a/b", None, {}, cancel_after_s=60)
    assert_is_safe(str(caught.value), most=2_100)


async def test_42_half_an_emoji_in_an_input_is_no_text_but_the_rest_of_it_stays() -> None:
    """Inputs are compared with what was sent, so nothing else of them is changed."""
    prompt = "A family 👨‍👩‍👧\r\n\tat dusk \x0b"
    prediction = await told({"input": {"prompt": prompt, "negative_prompt": "\ud83d", "seed": 7}})
    assert prediction.input == {"prompt": prompt, "negative_prompt": "\N{REPLACEMENT CHARACTER}", "seed": 7}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("187.6", 187.6, id="plain"),
        pytest.param('"187.6"', 187.6, id="text"),
        pytest.param("Infinity", None, id="infinity"),
        pytest.param("-Infinity", None, id="minus-infinity"),
        pytest.param("NaN", None, id="nan"),
        pytest.param('"nan"', None, id="nan-as-text"),
        pytest.param('"inf"', None, id="inf-as-text"),
        pytest.param("1e999", None, id="1e999"),
        pytest.param("-1", None, id="negative"),
        pytest.param("86401", None, id="more-than-a-day"),
        pytest.param("1e300", None, id="huge"),
        pytest.param("9" * 5_000, None, id="5000-digits"),
        pytest.param("9" * 400, None, id="400-digits"),
        pytest.param("true", None, id="true"),
        pytest.param("[1]", None, id="list"),
        pytest.param("null", None, id="null"),
        pytest.param("0", None, id="nothing-measured"),
    ],
)
async def test_42_numbers_are_numbers_or_none(written: str, read: float | None) -> None:
    """Of seconds there are at most a day's; the rest of the answer is read all the same."""
    metrics = f'{{"predict_time": {written}, "video_output_duration_seconds": {written}}}'
    prediction = await told(f'{{"id": "p1", "status": "succeeded", "output": "https://x/a.mp4", "metrics": {metrics}}}')
    assert (prediction.predict_time_s, prediction.billed.seconds) == (read, read)
    assert prediction.output_url == "https://x/a.mp4"
    json.dumps(prediction.raw, allow_nan=False)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("cancelled", "canceled"),
        ("CANCELED", "canceled"),
        (" Succeeded ", "succeeded"),
        ("success", "succeeded"),
        ("completed", "succeeded"),
        ("error", "failed"),
        ("errored", "failed"),
        ("failure", "failed"),
        ("expired", "canceled"),
        ("timeout", "canceled"),
        ("timed_out", "canceled"),
        ("booting", "processing"),
        ("on-hold", "processing"),
        ("\0", "processing"),
        ("x" * 5_000, "processing"),
    ],
)
async def test_42_a_status_in_other_words_is_understood_or_still_running(word: str, status: str) -> None:
    """Known words for an end are ends; of what nobody knows, it is known that nobody knows it, and it may be billed."""
    prediction = await told({"status": word})
    assert prediction.status == status
    assert prediction.has_known_status == (status != "processing")
    assert prediction.started == (word != "CANCELED")  # of those, only the provider's own word says when it began


ODD_IDS = {
    "65-characters": "p" * 65,
    "path": "../../../etc/cron.d/x",
    "slash": "a/b",
    "blank": "p 1",
    "percent": "p%2f1",
    "question-mark": "p?x=1#y",
    "nul": "p\0",
    "half-an-emoji": "p\ud83d",
    "letters": "prédiction",
    "dots": "..",
    "colon": "CON:",
    "escape": "\x1b[2J",
    "kilobyte": "p" * 400 + "/" * 100,
    "posing-as-ours": "odd-id-0000",
}


@pytest.mark.parametrize("their_id", ODD_IDS.values(), ids=ODD_IDS)
async def test_42_an_id_of_any_shape_is_a_prediction_with_a_usable_name(their_id: str) -> None:
    """A create that is answered with it is created. It is asked for under its own id, and keeps its name."""
    row = {"id": their_id, "status": "starting"}
    async with provider_of(answer(201, row), answer(200, row), answer(200, row)) as (provider, server):
        created = await provider.create("a/b", None, {}, cancel_after_s=60)
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", created.id)
        assert (await provider.get(created.id)).id == created.id
        assert (await provider.cancel(created.id)).id == created.id
    assert all(asked.target.startswith("/v1/predictions/") for asked in server.asked[1:] if their_id != "..")
    assert all(asked.target.isascii() and "?" not in asked.target for asked in server.asked)


async def test_42_an_odd_id_of_an_earlier_run_is_found_in_the_list() -> None:
    """The journal has the name only, and a name does not tell its id."""
    row = {"id": "p/1", "status": "processing"}
    async with provider_of(answer(201, row)) as (provider, _):
        name = (await provider.create("a/b", None, {}, cancel_after_s=60)).id
    page = answer(200, {"results": [{"id": "p/2"}, row], "next": None})
    async with provider_of(page, answer(200, row), answer(200, row)) as (provider, server):
        assert (await provider.get(name)).id == name
        assert (await provider.get(name)).id == name
    assert [asked.target.partition("?")[0] for asked in server.asked] == [
        "/v1/predictions",
        "/v1/predictions/p%2F1",
        "/v1/predictions/p%2F1",
    ]
    async with provider_of(answer(200, {"results": [], "next": None})) as (provider, _):
        with pytest.raises(GoneError, match="list"):
            await provider.get(name)


async def test_42_two_odd_ids_have_two_names() -> None:
    """They are neither cut nor cleaned, else one clip could be taken for another."""
    rows = [{"id": "p" * 70}, {"id": "p" * 71}, {"id": "p/1"}, {"id": "p-1"}, {"id": "p 1"}, {"id": 71}]
    async with provider_of(answer(200, {"results": rows, "next": None})) as (provider, _):
        names = [found.id async for found in provider.list_since(NOW)]
    assert len(set(names)) == len(rows)
    assert names[3] == "p-1"
    assert names[5] == "71"


async def test_42_an_id_that_fits_into_no_address_is_not_found_rather_than_an_error_of_ours() -> None:
    row = {"id": "p" * 5_000_000, "status": "starting"}
    async with provider_of(answer(201, row)) as (provider, server):
        created = await provider.create("a/b", None, {}, cancel_after_s=60)
        with pytest.raises(GoneError, match="5,000,000 characters"):
            await provider.get(created.id)
    assert len(server.asked) == 1


@pytest.mark.parametrize("their_id", [True, {}, [], ["p1"], {"id": "p1"}, 1.5], ids=repr)
async def test_42_what_is_no_id_names_no_prediction(their_id: Any) -> None:
    async with provider_of(answer(201, {"id": their_id})) as (provider, _):
        with pytest.raises(OutcomeUnknownError, match="names no prediction"):
            await provider.create("a/b", None, {}, cancel_after_s=60)


ODD_BODIES = {
    "nested-50000-deep": '{"id": "p1", "output": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "objects-50000-deep": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "never-closed": "[" * 100_000,
    "half": '{"id": "p1", "status": "succ',
    "nothing": "",
    "null": "null",
    "number": "1e999",
    "text": '"p1"',
    "list": "[]",
    "page": "<html></html>",
    "bytes": b"\xff\xfe\x00\x80",
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
async def test_42_a_body_that_cannot_be_read_is_an_error_of_ours(body: bytes | str) -> None:
    """Of an answer and of a refusal, for a look and for a create."""
    for status in (200, 400, 404, 422):
        async with provider_of(*[answer(status, body)] * 3) as (provider, _):
            with pytest.raises(GoneError if status == 404 else TransientError):
                await provider.get("p1")
            with pytest.raises(OutcomeUnknownError):
                await provider.create("a/b", None, {}, cancel_after_s=60)
            with pytest.raises(TransientError):
                [_ async for _ in provider.list_since(NOW)]


READABLE = {
    "byte-order-mark": b'\xef\xbb\xbf{"id": "p1", "status": "failed"}',
    "bytes-in-a-text": b'{"id": "p1", "status": "failed", "error": "out of memory \xff\xfe"}',
    "said-twice": b'{"id": "p0", "id": "p1", "status": "processing", "status": "failed"}',
    "40-deep": b'{"id": "p1", "status": "failed", "output": ' + b"[" * 400 + b"]" * 400 + b"}",
    "huge-number": b'{"id": "p1", "status": "failed", "n": ' + b"9" * 10_000 + b"}",
    "nan": b'{"id": "p1", "status": "failed", "n": [NaN, Infinity, -Infinity]}',
    "trailing-lines": b'{"id": "p1", "status": "failed"}\n\n',
}


@pytest.mark.parametrize("body", READABLE.values(), ids=READABLE)
async def test_42_a_body_that_can_be_read_with_care_is_read(body: bytes) -> None:
    """An answer that is odd in one place must not hide for ever what became of the prediction."""
    prediction = await told(body)
    assert (prediction.id, prediction.status, prediction.output_url) == ("p1", "failed", None)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "1970-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-28T00:00:00.123456789012345678Z" + "0" * 100,
        "20261128",
        "2026-W48",
        "\ud83d",
        "",
        "1" * 1_000_000,
    ],
    ids=lambda text: text[:20],
)
async def test_42_times_of_another_age_are_none(text: str) -> None:
    """Nothing is computed with what no calendar holds."""
    created_at = (await told({"created_at": text, "completed_at": text})).created_at
    assert created_at is None or abs(created_at - NOW) < timedelta(days=365)


async def test_42_an_end_before_the_beginning_is_no_time_to_learn_from() -> None:
    prediction = await told({"created_at": "2026-11-28T01:00:00Z", "completed_at": "2026-11-28T00:00:00Z"})
    assert prediction.run_s is None


@pytest.mark.parametrize(
    "next_page", ["http://[", "http://x/y", "https://x:port/", 7, ["p"], {"a": 1}, "\0", "http://x/\ud83d"], ids=repr
)
async def test_42_a_next_page_that_is_no_address_is_an_error_of_ours(next_page: Any) -> None:
    async with provider_of(answer(200, {"results": [], "next": next_page})) as (provider, _):
        with pytest.raises(TransientError, match="next page"):
            [_ async for _ in provider.list_since(NOW)]


@pytest.mark.parametrize(
    "url", ["", "file:///etc/passwd", "https://x/\0", "https://x/ y", 7, None, "x" * 10_000], ids=repr
)
async def test_42_an_upload_at_no_address_may_be_repeated(url: Any) -> None:
    async with provider_of(answer(201, {"urls": {"get": url}})) as (provider, _):
        with pytest.raises(TransientError, match="no URL"):
            await provider.upload(b"x", name="x.png", media_type="image/png")


@pytest.mark.parametrize("value", ["false", 0, None, "no", [], {}], ids=repr)
async def test_42_only_true_says_that_the_data_is_removed(value: Any) -> None:
    """What is removed is paid for again."""
    assert not (await told({"data_removed": value})).data_removed


@pytest.mark.parametrize(
    ("status", "error", "failure"),
    [
        ("failed", "NSFW content detected.", "moderation"),
        ("failed", "This combination is not possible. (E006)", "input"),
        ("failed", "CUDA out of memory", "passing"),
        ("failed", None, "passing"),
        ("errored", "Content policy violation", "moderation"),
        ("canceled", "NSFW content detected.", None),
        ("succeeded", "NSFW content detected.", None),
        ("processing", None, None),
    ],
)
async def test_08_a_failure_is_told_with_its_kind(status: str, error: str | None, failure: str | None) -> None:
    """The rules are the provider's: the core only asks which of three it is."""
    assert (await told({"status": status, "error": error})).failure == failure


async def test_42_what_is_billed_is_told() -> None:
    """As in the published metrics of a finished prediction, and what the providers' tables of prices depend on."""
    metrics = {
        "predict_time": 72.5,
        "video_output_count": 1,
        "video_output_duration_seconds": 5.875,
        "resolution_target": "1080p",
        "with_audio": True,
        "model_variant": "pro",
    }
    prediction = await told({"metrics": metrics})
    assert prediction.billed == BilledOutput(5.875, 1, "1080p", with_audio=True, variant="pro")
    assert (await told({"metrics": {}})).billed == (await told({"metrics": "none"})).billed == BilledOutput()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("video_output_duration_seconds", -5),
        ("video_output_duration_seconds", 1e9),
        ("video_output_duration_seconds", 3601),
        ("video_output_duration_seconds", 0.001),
        ("video_output_duration_seconds", "five"),
        ("video_output_duration_seconds", [5]),
        ("video_output_count", 0),
        ("video_output_count", -1),
        ("video_output_count", 1.5),
        ("video_output_count", 1e9),
        ("video_output_count", True),
        ("resolution_target", 1080),
        ("resolution_target", "1080p\x1b[2J"),
        ("resolution_target", "1080p\n"),
        ("resolution_target", "p" * 41),
        ("resolution_target", ""),
        ("with_audio", 1),
        ("with_audio", "yes"),
        ("model_variant", {"name": "pro"}),
        ("model_variant", "\ud83d"),
    ],
)
async def test_42_what_cannot_be_billed_is_left_out(name: str, value: object) -> None:
    """The plan's price is booked then."""
    assert (await told({"metrics": {name: value}})).billed == BilledOutput()
