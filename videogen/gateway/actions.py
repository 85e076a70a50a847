"""Refuse actions that the person at the page did not ask for: of other sites, of watchers, and repeated ones."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that change nothing."""
ACTION_TOKEN_HEADER = "X-Action-Token"  # noqa: S105 - its name
MAX_ACTION_BYTES = 64 * 1024
"""Largest size of the body of an action: a prompt and a note fit into it."""
LIFETIME_S = 3600.0
MOST_TOKENS = 1000


T = TypeVar("T")


class OneTimeTokens(Generic[T]):
    """Secrets that are good for one use within an hour. Each stands for a value."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._issued: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def issue(self, value: T) -> str:
        """Return a new token. The oldest one is forgotten if there are too many."""
        token = secrets.token_urlsafe(24)
        self._issued[token] = (self._now() + LIFETIME_S, value)
        while len(self._issued) > MOST_TOKENS:
            self._issued.popitem(last=False)
        return token

    def redeem(self, token: str) -> T | None:
        """Return the value of a token, which is good for nothing after that. None if it is unknown, used or too old."""
        until, value = self._issued.pop(token, (0.0, None))
        return value if self._now() < until else None


class ActionGuard:
    """Admits an action of the gateway's own page, once for each token that the page has asked for.

    The page of another site can send a request in the visitor's name. It can neither send our origin nor read a token.
    """

    def __init__(self) -> None:
        self._tokens = OneTimeTokens[bool]()

    def issue_token(self) -> str:
        """Return a token for one action."""
        return self._tokens.issue(True)

    def find_refusal(self, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the reason with which a request to act is refused; None if it is admitted.

        An admitted request uses up its token.
        """
        if not _is_same_origin(headers):
            return 403, "only the gateway's own page may do this: its requests come from another origin, or from none"
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_ACTION_BYTES:
            return 422, f"the request has no length, or is longer than {MAX_ACTION_BYTES:,} bytes"
        if not self._tokens.redeem(headers.get(ACTION_TOKEN_HEADER, "")):
            return 403, f"{ACTION_TOKEN_HEADER} is missing, used or too old: GET /review/token returns a new one"
        return None


def _is_same_origin(headers: Headers) -> bool:
    """Return whether the page that sends a request has the address that the request goes to.

    A proxy may have taken TLS away. So the scheme is not compared here: `Sec-Fetch-Site` includes it where the browser
    sends that.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin, host = headers.get("origin", ""), headers.get("host", "")
    try:
        place = urlsplit(origin)
    except ValueError:
        return False
    is_origin = place.scheme in ("http", "https") and origin == f"{place.scheme}://{place.netloc}"
    return bool(host) and is_origin and _strip_port(place.netloc, place.scheme) == _strip_port(host, place.scheme)


def _strip_port(host: str, scheme: str) -> str:
    """Return the host without the default port, which browsers leave out."""
    return host.lower().removesuffix(":443" if scheme == "https" else ":80")
