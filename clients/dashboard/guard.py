"""The first to see a request: judges it, and sets the security headers of what is answered."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clients.dashboard.access import COOKIE, Access, Visit

POLICY = 1008
"""The websocket's close code for what is not allowed."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; worker-src 'self'; media-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cache-control": "no-cache",
}
REFUSALS = {
    "wrong_host": (403, "This address is not one of the dashboard's own names."),
    "wrong_origin": (403, "Websockets and commands are for the dashboard's own page only."),
    "no_token": (401, "Open the address that the dashboard printed when it was started."),
}


class Guard:
    """ASGI middleware: judges every request and sets the security headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        visit = _visit(scope)
        verdict = self._access.judge(visit, _acts(scope))
        if verdict == "allowed":
            if scope["type"] == "http":
                send = _with_headers(send)
                if self._access.brings_token(visit):
                    await self._remember(scope, receive, send)
                    return
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY})
        else:
            status, text = REFUSALS[verdict]
            await PlainTextResponse(text, status)(scope, receive, _with_headers(send))

    async def _remember(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Move the token from the address, where histories keep it, into a cookie."""
        response = RedirectResponse(scope["path"], 303)
        assert self._access.token is not None
        # Where a proxy says that the browser came by TLS, the cookie stays with TLS.
        secure = scope["scheme"] == "https"
        response.set_cookie(
            COOKIE, self._access.token, secure=secure, httponly=True, samesite="lax"
        )
        await response(scope, receive, send)


def _acts(scope: Scope) -> bool:
    """Whether a request does more than read: only this server's own page may."""
    return scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")


def _visit(scope: Scope) -> Visit:
    headers = Headers(scope=scope)
    token = Request({**scope, "type": "http"}).query_params.get("token")
    return Visit(headers.get("host"), headers.get("origin"), headers.get("cookie"), token)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
