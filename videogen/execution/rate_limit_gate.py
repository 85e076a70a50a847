"""The gate for all calls to the provider. It retries transient faults and obeys rate limits for all clips at once."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)

from videogen.errors import (
    AccountError,
    CallError,
    NotSentError,
    OutcomeUnknownError,
    PausedError,
    RateLimitedError,
    RunInterruptedError,
    TransientError,
    VideogenError,
)
from videogen.text import make_loggable

T = TypeVar("T")

logger = logging.getLogger(__name__)

DEFAULT_TRIES = 8
"""With full jitter over 0.5, 1, 2 … 20 s, this takes half a minute on average."""


class ProviderGate:
    """A gate for the calls of all clips. It closes while the provider limits the rate, holds creates back while the run
    is paused, and stops creates for good once nothing more may be created."""

    def __init__(self, *, backoff_s: float = 0.5) -> None:
        """Create an open gate.

        Args:
            backoff_s: the longest first pause after a fault. Each next one may be twice as long, up to 20 s.
        """
        self._backoff_s = backoff_s
        self._opens_at = 0.0
        self._refusal: VideogenError | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()

    @property
    def refusal(self) -> VideogenError | None:
        """The reason for which nothing is created any more, or None."""
        return self._refusal

    @property
    def is_paused(self) -> bool:
        return not self._resumed.is_set()

    def pause(self) -> None:
        """Let no create through until `resume`."""
        if self._refusal is None:
            self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    async def wait_until_resumed(self) -> None:
        """Wait until the run is not paused, or nothing may be created any more."""
        await self._resumed.wait()

    def stop_creates(self, reason: VideogenError | None = None) -> None:
        """Let no create through from now on: `wait_for_create` raises the first reason given. None means that the
        run was interrupted."""
        if self._refusal:
            return
        if reason:
            logger.warning("no more predictions are created: %s", make_loggable(reason))
        self._refusal = reason or RunInterruptedError("the run was interrupted: nothing is created any more")
        self.resume()  # those that wait learn the reason

    async def wait_for_create(self) -> None:
        """Wait until the rate limit allows to create a prediction.

        Raises:
            PausedError: the run is paused. Return the slot, and come back after `wait_until_resumed`.
            VideogenError: the reason why nothing may be created any more: the account was refused, the disk is full, or
                the run was interrupted.
        """
        await self._wait_until_open()
        self.require_create()

    def require_create(self) -> None:
        """Raise the errors of `wait_for_create` without waiting, as right before a create is sent."""
        if self._refusal:
            raise self._refusal
        if self.is_paused:
            raise PausedError("the run is paused")

    async def call_with_retries(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        tries: int | None = DEFAULT_TRIES,
        timer: asyncio.Timeout | None = None,
        also: tuple[type[CallError], ...] = (),
    ) -> T:
        """Return the result of `call`, retried with full jitter after transient faults.

        Args:
            tries: None retries until the caller's deadline.
            timer: a deadline that is moved by the time that a rate limit takes. A 429 uses up no try.
            also: errors that are retried here although they need not be transient.

        Raises:
            CallError: the last one, after `tries`, or one that a retry cannot mend.
            AccountError: at once. No prediction is created after it.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((NotSentError, TransientError, OutcomeUnknownError, *also)),
            wait=wait_random_exponential(multiplier=self._backoff_s, max=20),
            stop=stop_after_attempt(tries) if tries else stop_never,
            before_sleep=_log_retry,
            reraise=True,
        )
        result: T = await retrying(self._call_when_open, call, timer)
        return result

    async def _call_when_open(self, call: Callable[[], Awaitable[T]], timer: asyncio.Timeout | None) -> T:
        while True:
            await self._wait_until_open(timer)
            try:
                return await call()
            except RateLimitedError as exc:
                self._close(exc)
            except AccountError as exc:
                self.stop_creates(exc)
                raise

    def _close(self, limited: RateLimitedError) -> None:
        now = time.monotonic()
        if self._opens_at <= now:  # the calls that were under way are usually refused, too
            logger.info("the provider limits the rate: waiting %.1f s before the next call", limited.retry_after_s)
            logger.debug("the provider says: %s", make_loggable(limited))
        self._opens_at = max(self._opens_at, now + limited.retry_after_s)

    async def _wait_until_open(self, timer: asyncio.Timeout | None = None) -> None:
        """Wait until the rate limit has passed, with jitter."""
        while (wait_s := self._opens_at - time.monotonic()) > 0:
            if timer and (when := timer.when()):  # moved before the wait, which may be longer than what is left
                timer.reschedule(when + 1.1 * wait_s)
            await asyncio.sleep(wait_s + random.uniform(0, 0.1 * wait_s))


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.info("a call failed, the next try is in %.1f s: %s", state.upcoming_sleep, make_loggable(error))
