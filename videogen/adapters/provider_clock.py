"""The provider's clock, as the `Date` headers of its answers tell it."""

import email.utils
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

_YEARS = range(2020, 2200)


def _count_seconds() -> float:
    """Return seconds that go on while the machine sleeps, where the system counts them, and that nobody can set."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class ProviderClock:
    """Tells the provider's time in UTC: what it last said, and the seconds since then.

    The local clock is asked only until the provider has said something. It may be wrong by an hour, or be set while a
    run goes on.
    """

    def __init__(
        self,
        *,
        count_seconds: Callable[[], float] = _count_seconds,
        local: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._count_seconds, self._local = count_seconds, local
        self._heard: tuple[datetime, float] | None = None

    def hear(self, headers: Mapping[str, str]) -> None:
        """Takes the time from the headers of an answer that is certainly the provider's own, and fresh."""
        if (date := read_date(headers.get("date", ""))) and "age" not in headers:
            self._heard = date, self._count_seconds()

    def now(self) -> datetime:
        if self._heard is None:
            return self._local()
        date, heard_at = self._heard
        return date + timedelta(seconds=self._count_seconds() - heard_at)


def read_date(text: str) -> datetime | None:
    """Return the time of an HTTP date, in UTC; None where it is none, or is none of this age."""
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.year not in _YEARS:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
