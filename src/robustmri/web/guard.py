"""Who may ask: a session that began with the printed address, from a known host, and nobody
else.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from html import escape
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CLOSED = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Workbench</title></head><body>
<h1>This workbench is closed to you, so far</h1>
<p>Open the address that <code>robustmri serve</code> printed last: it can be used once.</p>
<p>If this browser has opened it before: <a href="{address}">go on</a>.</p>
</body></html>
"""


class Keys:
    """A token for the address, good for one use, and the secret of the session that it opens.

    Args:
        announce: told each new token; the first one at once, the next when one was used.
        cookie: name of the session's cookie.
    """

    def __init__(self, announce: Callable[[str], None], cookie: str = "workbench") -> None:
        self.cookie = cookie
        self._announce = announce
        self._session = secrets.token_urlsafe(32)
        self._renew()

    def _renew(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._announce(self._token)

    def spend(self, token: str) -> bool:
        """Whether that is the token; it is another one from then on."""
        right = hmac.compare_digest(token.encode(), self._token.encode())
        if right:
            self._renew()
        return right

    def admit(self, response: Response) -> Response:
        """Give the session's cookie along."""
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="strict", path="/")
        return response

    def knows(self, request: Request) -> bool:
        """Whether the request comes from a session that was opened."""
        given = request.cookies.get(self.cookie, "")
        return hmac.compare_digest(given.encode(), self._session.encode())


class SafeHeaders:
    """Every response says what a browser may do with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers that the response has not set itself."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class Guard:
    """Nothing behind it is reached without the session's cookie; with `read_only` nothing can be
    changed.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys, read_only: bool) -> None:
        self.app, self.keys, self.read_only = app, keys, read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer in its place."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._refuse(Request(scope)) or self.app
            await answer(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        token = request.query_params.get("token")
        if token is not None and request.url.path == "/" and self.keys.spend(token):
            return self.keys.admit(RedirectResponse("/", status_code=303))
        if not self.keys.knows(request):
            if request.url.path.startswith("/api/"):
                return refusal(401, "Open the address that `robustmri serve` printed last.")
            return HTMLResponse(CLOSED.format(address=escape(request.url.path)), 401)
        if request.method in ("GET", "HEAD"):
            return None
        if self.read_only:
            return refusal(403, "This workbench was started with --read-only.")
        if not _same_origin(request.headers):
            return refusal(403, "This request comes from another page.")
        return None


def _same_origin(headers: Headers) -> bool:
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    same = origin is None or urlsplit(origin).netloc == headers.get("host")
    return same and site in ("same-origin", "none")


def refusal(status: int, sentence: str) -> Response:
    """An answer that says why there is none."""
    return JSONResponse({"error": sentence}, status)
