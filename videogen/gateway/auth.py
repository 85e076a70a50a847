"""Admit requests with the token, or from this machine alone, and prevent cross-site requests and DNS rebinding."""

import hashlib
import hmac
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videogen.addresses import is_loopback
from videogen.gateway.connections import MAX_HEAD_BYTES, admit_request

COOKIE = "videogen_gateway"
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
    """Middleware that admits requests with the token: as bearer, or as the cookie that `/?token=` sets.

    Without a token it admits only requests to a loopback name, so that a foreign page whose name was made to point
    here (DNS rebinding) reads nothing.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = token
        self._cookie = hmac.new(token.encode(), b"videogen gateway", hashlib.sha256).hexdigest() if token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = _find_fault(scope)
        if fault is not None:
            await fault(scope, receive, send)
            return
        has_token_in_address = self._token is not None and self._is_token(_read_token_in_address(scope))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if has_token_in_address:
                    headers.append("Set-Cookie", self._set_cookie(scope))
            await send(message)

        refusal = None if has_token_in_address else self._find_refusal(Headers(scope=scope))
        if refusal is None:
            admit_request(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _find_refusal(self, headers: Headers) -> Response | None:
        if self._token is None:
            if is_loopback(_read_host(headers)):
                return None
            return PlainTextResponse("this gateway answers to localhost only\n", 421)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if hmac.compare_digest(_read_cookie(headers).encode(), self._cookie.encode()):
            return None
        text = "a token is required: open /?token=… in a browser, or send Authorization: Bearer …\n"
        return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    def _set_cookie(self, scope: Scope) -> str:
        secure = "; Secure" if scope["scheme"] == "https" else ""
        return f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict{secure}"


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
