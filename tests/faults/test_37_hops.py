"""Row 37 (and 39): status codes of whoever stands between us and the provider are not the provider's word."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.servers import Answer, Loopback, answer
from tests.support.tokens import TOKEN
from videogen.errors import (
    AuthenticationError,
    BillingError,
    GoneError,
    InputRejectedError,
    ModerationError,
    OutcomeUnknownError,
    RateLimitedError,
    TransientError,
    VideogenError,
    is_retryable,
)
from videogen.providers.replicate import ReplicateProvider

MODEL = "kwaivgi/kling-v2.5-turbo-pro"
HTML = "<html><body><h1>Sign in to the network</h1></body></html>"
PROBLEM = {"title": "Refused", "detail": "The provider says no."}

Call = Callable[[ReplicateProvider], Awaitable[Any]]


async def list_all(provider: ReplicateProvider) -> None:
    async for _ in provider.list_since(datetime.now(UTC)):
        pass


def create(provider: ReplicateProvider) -> Awaitable[Any]:
    return provider.create(MODEL, None, {"prompt": "A pier"}, cancel_after_s=60)


CALLS: dict[str, Call] = {
    "get": lambda provider: provider.get("p1"),
    "cancel": lambda provider: provider.cancel("p1"),
    "list": list_all,
    "account": lambda provider: provider.check_account(),
    "upload": lambda provider: provider.upload(b"x", name="x.png", media_type="image/png"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)

HOPS = {
    "301": answer(301, "", location="/elsewhere"),
    "302-to-a-portal": answer(302, HTML, location="http://portal.example/sign-in"),
    "303": answer(303, "", location="/"),
    "307": answer(307, "", location="/v1/predictions/p2"),
    "308": answer(308, "", location="/"),
    "304": answer(304, ""),
    "400-page": answer(400, HTML),
    "400-empty": answer(400, ""),
    "402-page": answer(402, HTML),
    "403-page": answer(403, HTML),
    "403-empty": answer(403, ""),
    "403-object": answer(403, {"message": "Forbidden"}),
    "405": answer(405, "Method not allowed"),
    "407": answer(407, ""),
    "409": answer(409, "conflict"),
    "411": answer(411, ""),
    "413": answer(413, HTML),
    "418": answer(418, "[]"),
    "421": answer(421, '"Misdirected"'),
    "422-page": answer(422, HTML),
    "425": answer(425, ""),
    "451": answer(451, HTML),
    "200-page": answer(200, HTML, content_type="text/html"),
    "204": answer(204, ""),
}
each_hop = pytest.mark.parametrize("hop", HOPS.values(), ids=HOPS)


async def outcome(call: Call, *answers: Answer) -> tuple[VideogenError, int]:
    """What a call raises that is answered so, and how many requests were sent."""
    async with Loopback(*answers) as server, aclosing(ReplicateProvider(TOKEN, base_url=server.url)) as provider:
        with pytest.raises(VideogenError) as caught:
            await call(provider)
    return caught.value, len(server.asked)


@each_call
@each_hop
async def test_37_what_a_hop_answers_passes(call: Call, hop: Answer) -> None:
    """A prediction is not given up for it, the list is read again, and no job is stopped."""
    error, requests = await outcome(call, hop)
    assert isinstance(error, TransientError)
    assert is_retryable(error)
    assert requests == 1


@pytest.mark.parametrize("status", [400, 405, 409, 422])
@pytest.mark.parametrize("name", ["get", "cancel", "list", "account"])
async def test_37_even_in_the_providers_words_a_refused_look_passes(name: str, status: int) -> None:
    """Looking, and cancelling what has ended meanwhile, costs nothing: the caller looks again."""
    error, _ = await outcome(CALLS[name], answer(status, PROBLEM))
    assert isinstance(error, TransientError)


@pytest.mark.parametrize("body", [PROBLEM, HTML, ""], ids=["problem", "page", "empty"])
@pytest.mark.parametrize("status", [404, 410])
async def test_37_what_is_not_found_by_its_id_is_gone_for_now(status: int, body: Any) -> None:
    """With an error of its own: who asks knows how young the prediction is. A list or an account is always there."""
    for name, kind in {
        "get": GoneError,
        "cancel": GoneError,
        "list": TransientError,
        "account": TransientError,
    }.items():
        error, _ = await outcome(CALLS[name], answer(status, body))
        assert type(error) is kind, name


@each_hop
async def test_39_a_create_that_a_hop_refuses_may_have_been_accepted(hop: Answer) -> None:
    """Only the list of predictions can tell."""
    error, requests = await outcome(create, hop)
    assert isinstance(error, OutcomeUnknownError)
    assert requests == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(400, PROBLEM, InputRejectedError, id="400"),
        pytest.param(401, PROBLEM, AuthenticationError, id="401"),
        pytest.param(402, PROBLEM, BillingError, id="402"),
        pytest.param(403, {"detail": "You may not."}, AuthenticationError, id="403"),
        pytest.param(404, PROBLEM, InputRejectedError, id="404"),
        pytest.param(409, PROBLEM, InputRejectedError, id="409"),
        pytest.param(413, PROBLEM, InputRejectedError, id="413"),
        pytest.param(422, {"title": "Input validation failed"}, InputRejectedError, id="422-title"),
        pytest.param(422, {"invalid_fields": [{"field": "input"}]}, InputRejectedError, id="422-fields"),
        pytest.param(422, {"detail": "NSFW content detected in the prompt."}, ModerationError, id="422-moderation"),
        pytest.param(429, PROBLEM, RateLimitedError, id="429"),
        pytest.param(429, HTML, RateLimitedError, id="429-of-a-hop"),
    ],
)
async def test_39_a_create_that_the_provider_refuses_was_not_accepted(
    status: int, body: Any, kind: type[VideogenError]
) -> None:
    """Told by the body of the answer it is final, and nothing is searched for. What a limit stops is not handed on."""
    error, _ = await outcome(create, answer(status, body))
    assert type(error) is kind


@pytest.mark.parametrize("body", [PROBLEM, HTML, ""], ids=["problem", "page", "empty"])
@each_call
async def test_05_a_refused_token_needs_no_words(call: Call, body: Any) -> None:
    """401 stops the job, however it is told."""
    error, _ = await outcome(call, answer(401, body))
    assert isinstance(error, AuthenticationError)


@pytest.mark.parametrize("call", [*CALLS.values(), create], ids=[*CALLS, "create"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_37_no_call_follows_a_redirect(call: Call, status: int) -> None:
    """Neither the token nor a create goes to another host."""
    async with Loopback(answer(200, {"id": "p1"})) as canary:
        await outcome(call, answer(status, "", location=f"{canary.url}/v1/predictions"))
    assert canary.asked == []


@pytest.mark.parametrize("name", ["get", "cancel"])
async def test_37_an_answer_about_another_prediction_is_asked_for_again(name: str) -> None:
    """A cache on the way, or a hop that mixes up its answers, ends no prediction."""
    error, _ = await outcome(CALLS[name], answer(200, {"id": "p2", "status": "failed", "error": "out of memory"}))
    assert isinstance(error, TransientError)
    assert "another prediction" in str(error)


async def test_37_a_refused_upload_is_final_when_the_provider_says_so() -> None:
    """The same picture would be refused again."""
    error, _ = await outcome(CALLS["upload"], answer(413, {"detail": "The file is too large.", "status": 413}))
    assert isinstance(error, InputRejectedError)
