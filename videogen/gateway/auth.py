"""Admit requests with a token, or from this machine alone, and prevent cross-site requests and DNS rebinding."""

import hashlib
import hmac
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videogen.addresses import is_loopback
from videogen.gateway.actions import SAFE_METHODS, ActionGuard
from videogen.gateway.connections import MAX_HEAD_BYTES, admit_request

COOKIE = "videogen_gateway"
REVIEWER_KEY = "videogen.is_reviewer"
"""Key in a request's state that says whether its visitor may act."""
MAX_ADDRESS_BYTES = 8 * 1024
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Middleware that admits requests with a token: as bearer, or as the cookie that `/?token=` sets.

    Without a token it admits only requests to a loopback name, so that a foreign page whose name was made to point
    here (DNS rebinding) reads nothing.

    Args:
        token: visitors with this token may watch, and act if there are actions.
        watch_token: visitors with this token may only watch.
        actions: admits the requests that change something; None if there are none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        watch_token: str | None = None,
        actions: ActionGuard | None = None,
    ) -> None:
        self._app = app
        self._token = token
        self._tokens = [each for each in (token, watch_token) if each]
        self._actions = actions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = _find_fault(scope)
        if fault is not None:
            await fault(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token_in_address = self._find_token(_read_token_in_address(scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.update(HEADERS)
                if token_in_address:
                    answered.append("Set-Cookie", _set_cookie(token_in_address, scope))
            await send(message)

        token = token_in_address or self._find_bearer(headers) or self._find_cookie(headers)
        refusal = self._find_refusal(token, headers)
        if refusal is None:
            admit_request(scope)
            is_reviewer = self._actions is not None and token is not None and token == self._token
            scope.setdefault("state", {})[REVIEWER_KEY] = is_reviewer
            if scope["method"] not in SAFE_METHODS:
                refusal = self._find_refusal_of_action(headers, is_reviewer=is_reviewer)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _find_refusal(self, token: str | None, headers: Headers) -> Response | None:
        if token is not None or (not self._tokens and is_loopback(_read_host(headers))):
            return None
        if not self._tokens:
            return PlainTextResponse("this gateway answers to localhost only\n", 421)
        text = "a token is required: open /?token=… in a browser, or send Authorization: Bearer …\n"
        return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})

    def _find_refusal_of_action(self, headers: Headers, *, is_reviewer: bool) -> Response | None:
        if self._actions is None:
            return JSONResponse({"detail": "this gateway only shows runs: start it with --review to act"}, 403)
        if not is_reviewer:
            return JSONResponse({"detail": "your token is for watching only"}, 403)
        refused = self._actions.find_refusal(headers)
        return JSONResponse({"detail": refused[1]}, refused[0]) if refused else None

    def _find_bearer(self, headers: Headers) -> str | None:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        return self._find_token(bearer.strip()) if scheme.lower() == "bearer" else None

    def _find_token(self, given: str) -> str | None:
        """Return the token that was given, or None if it is none of ours."""
        return next((each for each in self._tokens if hmac.compare_digest(given.encode(), each.encode())), None)

    def _find_cookie(self, headers: Headers) -> str | None:
        """Return the token that the visitor's cookie stands for."""
        given = _read_cookie(headers).encode()
        return next((each for each in self._tokens if hmac.compare_digest(given, _make_cookie(each).encode())), None)


def _make_cookie(token: str) -> str:
    """Return the value of the cookie for a token, from which the token cannot be found."""
    return hmac.new(token.encode(), b"videogen gateway", hashlib.sha256).hexdigest()


def _set_cookie(token: str, scope: Scope) -> str:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    return f"{COOKIE}={_make_cookie(token)}; Path=/; HttpOnly; SameSite=Strict{secure}"


def _find_fault(scope: Scope) -> Response | None:
    """Return the error response to a malformed or oversized request; None for a proper one."""
    query: bytes = scope["query_string"]
    if len(scope.get("raw_path") or b"") + len(query) > MAX_ADDRESS_BYTES:
        return PlainTextResponse("this address is too long\n", 414)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
        return PlainTextResponse("these headers are too long\n", 431)
    if re.search(r"[\x00-\x1f\x7f]", scope["path"] + unquote(query.decode("latin-1"))):  # no database takes a NUL
        return PlainTextResponse("this address has a control character in it\n", 400)
    return None


def _read_token_in_address(scope: Scope) -> str:
    """Return the token in the page's address, else an empty string. Only the page takes it; its script removes it."""
    if scope["path"] != "/":
        return ""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _read_cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _read_host(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
