"""The provider's clock, read from the `Date` headers of its answers."""

import email.utils
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

_YEARS = range(2020, 2200)


def _count_seconds() -> float:
    """Return seconds of a clock that cannot be set, and that goes on during sleep if the system has such a clock."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class ProviderClock:
    """Returns the provider's time in UTC: the last one it sent, plus the seconds since then.

    The local clock is used only until the provider has sent a time. It may be wrong by an hour, or be set during a run.
    """

    def __init__(
        self,
        *,
        count_seconds: Callable[[], float] = _count_seconds,
        local: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._count_seconds, self._local = count_seconds, local
        self._heard: tuple[datetime, float] | None = None

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the time from the headers of an answer that is certainly the provider's own, and fresh."""
        if (date := read_date(headers.get("date", ""))) and "age" not in headers:
            self._heard = date, self._count_seconds()

    def now(self) -> datetime:
        if self._heard is None:
            return self._local()
        date, heard_at = self._heard
        return date + timedelta(seconds=self._count_seconds() - heard_at)


def read_date(text: str) -> datetime | None:
    """Return the time of an HTTP date, in UTC; None if it is invalid or implausible."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.year not in _YEARS:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
