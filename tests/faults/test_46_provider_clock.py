"""Row 46: times are compared with the clock that the provider's answers tell, not with a local one that is wrong."""

import email.utils
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.servers import Answer, Loopback, answer
from videogen.errors import RateLimitedError, VideogenError
from videogen.providers.provider_clock import ProviderClock, read_date
from videogen.providers.replicate import ReplicateProvider

TRUE = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
PREDICTION = {"id": "p1", "status": "starting"}


class Machine:
    """A machine whose clock is `wrong` by so much. Its seconds go on by themselves, whatever is set."""

    def __init__(self, wrong: timedelta) -> None:
        self.wrong, self.seconds = wrong, 1000.0
        self.clock = ProviderClock(count_seconds=lambda: self.seconds, local=self.tell)

    def tell(self) -> datetime:
        return TRUE + self.wrong + timedelta(seconds=self.seconds - 1000)


def http_date(time: datetime) -> str:
    return email.utils.format_datetime(time, usegmt=True)


@asynccontextmanager
async def provider_of(machine: Machine, *answers: Answer) -> AsyncIterator[ReplicateProvider]:
    async with (
        Loopback(*answers) as server,
        aclosing(ReplicateProvider("local", base_url=server.url, clock=machine.clock)) as provider,
    ):
        yield provider


WRONG = [timedelta(minutes=5), timedelta(hours=1), timedelta(minutes=-7), timedelta(days=-9_000), timedelta(0)]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_46_the_time_is_the_providers(wrong: timedelta) -> None:
    """The local clock is asked until the first answer, and never again."""
    machine = Machine(wrong)
    async with provider_of(machine, answer(200, PREDICTION, date=http_date(TRUE))) as provider:
        assert provider.now() == TRUE + wrong
        await provider.get("p1")
        assert provider.now() == TRUE
        machine.seconds += 90
        assert provider.now() == TRUE + timedelta(seconds=90)


async def test_46_a_clock_that_is_set_meanwhile_does_not_matter() -> None:
    machine = Machine(timedelta(0))
    async with provider_of(machine, answer(200, PREDICTION, date=http_date(TRUE))) as provider:
        await provider.get("p1")
        machine.wrong = timedelta(hours=1)
        machine.seconds += 1
        assert provider.now() == TRUE + timedelta(seconds=1)


PROBLEM = {"detail": "The requested resource could not be found.", "status": 404}
NOT_THE_PROVIDERS = {
    "page": answer(200, "<html></html>", date=http_date(TRUE)),
    "page-502": answer(502, "<html></html>", date=http_date(TRUE)),
    "redirect": answer(302, "", date=http_date(TRUE), location="/"),
    "refusal-of-a-hop": answer(403, {"message": "Forbidden"}, date=http_date(TRUE)),
    "list": answer(200, "[]", date=http_date(TRUE)),
    "kept-by-a-cache": answer(200, PREDICTION, date=http_date(TRUE), age="3600"),
    "no-date": answer(200, PREDICTION),
    "nonsense": answer(200, PREDICTION, date="yesterday"),
    "another-age": answer(200, PREDICTION, date="Thu, 01 Jan 1970 00:00:00 GMT"),
    "year-one": answer(200, PREDICTION, date="Mon, 01 Jan 0001 00:00:00 +2359"),
    "too-many-digits": answer(200, PREDICTION, date="Sat, 28 Nov " + "9" * 400 + " 00:00:00 GMT"),
}


@pytest.mark.parametrize("other", NOT_THE_PROVIDERS.values(), ids=NOT_THE_PROVIDERS)
async def test_46_only_the_provider_tells_the_time(other: Answer) -> None:
    """Neither a portal on the way nor a cache does."""
    machine = Machine(timedelta(minutes=5))
    async with provider_of(machine, other) as provider:
        with suppress(VideogenError):
            await provider.get("p1")
        assert provider.now() == TRUE + timedelta(minutes=5)


async def test_46_a_refusal_in_the_providers_words_tells_the_time() -> None:
    machine = Machine(timedelta(minutes=5))
    async with provider_of(machine, answer(404, PROBLEM, date=http_date(TRUE))) as provider:
        with pytest.raises(VideogenError):
            await provider.get("p1")
        assert provider.now() == TRUE


async def test_46_a_download_does_not_tell_the_time(tmp_path: Path) -> None:
    """Whoever keeps the outputs may have another clock."""
    machine = Machine(timedelta(minutes=5))
    async with (
        Loopback(answer(200, b"clip", date=http_date(TRUE))) as server,
        aclosing(ReplicateProvider("local", base_url=server.url, clock=machine.clock)) as provider,
    ):
        await provider.download(server.url, tmp_path / "part")
        assert provider.now() == TRUE + timedelta(minutes=5)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_46_a_date_to_retry_after_is_compared_with_the_answers_own(wrong: timedelta) -> None:
    """With a clock that is an hour fast nobody would wait at all, with one that is slow for ten minutes."""
    later = http_date(TRUE + timedelta(seconds=42))
    machine = Machine(wrong)
    async with provider_of(machine, answer(429, "", date=http_date(TRUE), retry_after=later)) as provider:
        with pytest.raises(RateLimitedError) as caught:
            await provider.get("p1")
    assert caught.value.retry_after_s == 42


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Sat, 28 Nov 2026 12:00:00 GMT", TRUE),
        ("Sat, 28 Nov 2026 13:00:00 +0100", TRUE),
        ("Sat, 28 Nov 2026 12:00:00 -0000", TRUE),
        ("Sat, 28 Nov 2026 12:00:00", TRUE),
        ("28 Nov 2026 12:00:00 GMT", TRUE),
        ("", None),
        ("42", None),
        ("Sat, 99 Nov 2026 12:00:00 GMT", None),
        ("Sat, 28 Nov 2026 99:00:00 GMT", None),
        ("\0", None),
    ],
)
def test_46_an_http_date_is_a_time_or_none(text: str, read: datetime | None) -> None:
    assert read_date(text) == read


def test_46_seconds_go_on_by_themselves() -> None:
    """By the real counter: what is read later is later."""
    clock = ProviderClock()
    clock.observe({"date": http_date(TRUE)})
    first, second = clock.now(), clock.now()
    assert TRUE <= first <= second


async def test_46_what_one_provider_has_heard_the_next_one_knows() -> None:
    """The command checks the account before the run opens a provider of its own, whose first call is a create."""
    hour_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    async with Loopback(answer(200, {"type": "user"}, date=http_date(hour_ago))) as server:
        async with aclosing(ReplicateProvider("local", base_url=server.url)) as first:
            await first.check_account()
        async with aclosing(ReplicateProvider("local", base_url=server.url)) as second:
            assert second.now() - hour_ago < timedelta(minutes=30)
        async with aclosing(ReplicateProvider("local", base_url="http://127.0.0.1:1")) as elsewhere:
            assert elsewhere.now() - hour_ago > timedelta(minutes=30)


async def test_46_how_long_outputs_are_kept_can_be_said() -> None:
    """An hour at Replicate; nothing at an emulator that ends with its run."""
    async with aclosing(ReplicateProvider("local")) as provider:
        assert provider.capabilities.outputs_kept == timedelta(hours=1)
    async with aclosing(ReplicateProvider("local", outputs_kept=timedelta(0))) as provider:
        assert provider.capabilities.outputs_kept == timedelta(0)
