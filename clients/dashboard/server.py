"""The server: pages, the websocket of scores, the websocket of a browser's own capture."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from clients.dashboard import DashboardError
from clients.dashboard.access import COOKIE, Access, Visit
from clients.dashboard.bridge import Bridge
from clients.dashboard.commands import Commands
from clients.dashboard.limits import BACKLOG, Limits
from engine.wire.clock import now_ns
from engine.wire.fields import WireError
from engine.wire.notices import LimitedLog

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
BATCH_S = 0.05
"""Shortest time between two messages to a browser."""
SEND_TIMEOUT_S = 30.0
SEND_BUFFER = 128 * 1024
"""Of the kernel, per browser: what waits there is old by the time that it is read."""
HELLO_TIMEOUT_S = 10.0
REPORT_PERIOD_S = 1.0
SHUTDOWN_S = 2
MAX_TEXT = 4096
"""Bytes that a browser may send where it may not capture."""
POLICY, OUR_FAULT, TRY_LATER = 1008, 1011, 1013
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


class CaptureSession(Protocol):
    """One browser's capture, as the server drives it."""

    @property
    def stream(self) -> str:
        """Name of the stream that it sends."""
        ...

    def start(self) -> None:
        """Begin; WireError refuses the capture."""
        ...

    def push(self, data: bytes, now: int) -> None:
        """Take in a packet; WireError ends the capture."""
        ...

    def fault(self, reason: str) -> None:
        """Count something malformed; WireError where it was one too many."""
        ...

    async def watch(self) -> None:
        """Wait until the capture ends by itself; WireError says why."""
        ...

    def report(self) -> Mapping[str, int | bool]:
        """What the browser's page shows."""
        ...

    def close(self) -> None:
        """End the capture."""
        ...


class CaptureDesk(Protocol):
    """Where browsers' captures begin; the engine's, given by who starts the dashboard."""

    @property
    def max_packet(self) -> int:
        """Bytes of the largest packet that a session takes."""
        ...

    def open(self, greeting: object, running: Callable[[], frozenset[str]]) -> CaptureSession:
        """Make a capture; WireError, for the person before the browser, refuses it."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """How a dashboard is run."""

    scores: str
    host: str
    port: int
    """0 takes one that is free."""
    token: str | None
    names: frozenset[str] = frozenset()
    keys_dir: Path | None = None
    control: str | None = None
    """The engine's control endpoint; None where no browser may mark or pause."""


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
        response.set_cookie(COOKIE, self._access.token, httponly=True, samesite="lax")
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


class LeftError(Exception):
    """The browser has left."""


class Browser:
    """A websocket whose other end may be gone at any time, which is ``LeftError`` and no fault.

    Starlette says so in three ways, one of them RuntimeError; every other RuntimeError is ours.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def accept(self) -> None:
        """Answer the handshake."""
        with _leaving():
            await self._websocket.accept()

    async def send(self, data: str | bytes) -> None:
        """Send a message; a browser that takes nothing for ``SEND_TIMEOUT_S`` has left.

        Only the sending of what was said before is waited for.
        """
        kind = "text" if isinstance(data, str) else "bytes"
        with _leaving():
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._websocket.send({"type": "websocket.send", kind: data})

    async def receive(self) -> str | bytes:
        """Wait for a message."""
        with _leaving():
            message: MutableMapping[str, Any] = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise LeftError
        text: str | None = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def close(self, code: int) -> None:
        """Close, unless it is closed."""
        with contextlib.suppress(LeftError), _leaving():
            await self._websocket.close(code)


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    try:
        yield
    except (WebSocketDisconnect, RuntimeError, TimeoutError, OSError):
        raise LeftError from None


def make_app(
    bridge: Bridge,
    access: Access,
    desk: CaptureDesk | None,
    failed: Callable[[BaseException], None],
    commands: Commands | None = None,
    limits: Limits | None = None,
) -> Starlette:
    """Build the application; ``failed`` hears of an end of the bridge.

    No desk: no capture. No commands: browsers neither mark nor pause.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(bridge.run())
        task.add_done_callback(lambda t: None if t.cancelled() else _pass_on(t, failed))
        tasks = [task]
        if limits is not None:
            tasks.append(asyncio.create_task(limits.run(time.monotonic)))
        try:
            yield
        finally:
            for running in tasks:
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def page(request: Request) -> FileResponse:
        name = "about.html" if request.url.path == "/about" else "index.html"
        return FileResponse(STATIC / name)

    async def options(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "capture": desk is not None,
                "commands": commands is not None,
                "scores": bridge.board.endpoint,
            }
        )

    async def command(request: Request) -> JSONResponse:
        if commands is None:
            return JSONResponse({"error": "commands are switched off on this dashboard"}, 403)
        return await commands.answer(request)

    async def scores(websocket: WebSocket) -> None:
        await _survive(Browser(websocket), bridge, lambda b: serve_scores(b, bridge))

    async def capture(websocket: WebSocket) -> None:
        await _survive(Browser(websocket), bridge, lambda b: serve_capture(b, bridge, desk))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/about", page),
            Route("/options", options),
            Route("/command", command, methods=["POST"]),
            WebSocketRoute("/scores", scores),
            WebSocketRoute("/capture", capture),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, access=access)],
        lifespan=lifespan,
    )


async def _survive(
    browser: Browser, bridge: Bridge, serve_one: Callable[[Browser], Awaitable[None]]
) -> None:
    """Serve a browser; an exception of ours ends its connection, is logged and counted."""
    try:
        await serve_one(browser)
    except LeftError:
        pass
    except Exception:
        bridge.count_fault()
        log.exception("a browser's connection ended with a fault of the dashboard")
        await browser.close(OUR_FAULT)


async def serve_scores(browser: Browser, bridge: Bridge) -> None:
    """Send a browser the history, then whatever comes, at its own pace."""
    with bridge.place() as there_is_one:
        await browser.accept()
        if not there_is_one:
            await browser.close(TRY_LATER)
            return

        async def sending() -> None:
            while True:  # from the beginning whenever the clock was set
                with bridge.viewer() as (frames, mailbox):
                    for frame in frames:
                        await browser.send(frame)
                    del frames
                    while not mailbox.is_outdated:
                        await browser.send(await mailbox.take())
                        await asyncio.sleep(BATCH_S)

        await _first_of(sending(), _until_gone(browser))


async def serve_capture(browser: Browser, bridge: Bridge, desk: CaptureDesk | None) -> None:
    """Take a browser's sound and pictures until it leaves or is refused."""
    await browser.accept()
    session: CaptureSession | None = None
    try:
        if desk is None:
            raise WireError("capture from browsers is switched off on this dashboard")
        session = desk.open(await _greeting(browser), lambda: bridge.board.running(now_ns()))
        session.start()
        await browser.send(json.dumps({"kind": "accepted", "stream": session.stream}))
        await _first_of(_take_packets(browser, session), session.watch(), _report(browser, session))
    except WireError as refusal:
        await browser.send(json.dumps({"kind": "refused", "reason": str(refusal)}))
        await browser.close(POLICY)
    finally:
        if session is not None:
            session.close()


async def _greeting(browser: Browser) -> object:
    """Read what a browser asks for, in JSON.

    Raises:
        WireError: nothing came in time, or no JSON.
    """
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            said = await browser.receive()
        return json.loads(said)
    except TimeoutError:
        raise WireError(f"expected a greeting within {HELLO_TIMEOUT_S:g} s") from None
    except (ValueError, RecursionError):
        raise WireError("expected a greeting in JSON") from None


async def _take_packets(browser: Browser, session: CaptureSession) -> None:
    while True:
        data = await browser.receive()
        if isinstance(data, str):
            session.fault("text where a binary packet was expected")
        else:
            session.push(data, now_ns())


async def _report(browser: Browser, session: CaptureSession) -> None:
    while True:
        await asyncio.sleep(REPORT_PERIOD_S)
        await browser.send(json.dumps({"kind": "report", **session.report()}))


async def _until_gone(browser: Browser) -> None:
    """Read and drop what a browser says, until it leaves."""
    while True:
        await browser.receive()


async def _first_of(*jobs: Any) -> None:
    """Run jobs until the first ends, and end the others.

    Raises:
        LeftError, WireError, or a fault of ours: what the first job raised.
    """
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    raised = [end for end in ends if isinstance(end, Exception)]
    # A fault of ours is reported even where the browser left at the same time.
    for end in sorted(raised, key=lambda error: isinstance(error, LeftError)):
        raise end


def _pass_on(task: asyncio.Task[None], failed: Callable[[BaseException], None]) -> None:
    error = task.exception()
    if error is not None:
        failed(error)


def listen(host: str, port: int) -> socket.socket:
    """Bind the server's socket.

    Raises:
        DashboardError: the address is in use, or none of this computer's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return listening
    except OSError as error:
        raise DashboardError(f"cannot listen on {host}:{port}: {error.strerror}") from None


def address_of(listening: socket.socket, options: Options) -> str:
    """What to open in a browser, the token included."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(
        options.host, options.host
    )
    shown = f"[{host}]" if ":" in host else host
    query = "" if options.token is None else f"?token={options.token}"
    return f"http://{shown}:{listening.getsockname()[1]}/{query}"


def _limit_logs() -> None:
    """Warnings, uvicorn's and asyncio's among them: a few of each kind."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LimitedLog())
    logging.basicConfig(
        level="WARNING", format="dashboard: %(levelname)s: %(message)s", handlers=[handler]
    )


def serve(options: Options, desk: CaptureDesk | None) -> None:
    """Serve until interrupted; the address is printed on standard error.

    Raises:
        DashboardError: the address is unavailable.
        WireError: the engine's endpoint or the keys are unusable, or were refused.
    """
    bridge = Bridge(options.scores, options.keys_dir)
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    limits = Limits()
    commands = None if options.control is None else Commands(options.control, options.keys_dir)
    access = Access(options.host, options.token, options.names)
    app = make_app(bridge, access, desk, failed, commands, limits)
    http, websocket = limits.protocols()
    _limit_logs()
    config = uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        backlog=BACKLOG,
        log_config=None,
        ws_max_size=MAX_TEXT if desk is None else desk.max_packet,
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,  # it would write the token down
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = uvicorn.Server(config)
    with listen(options.host, options.port) as listening:
        print(f"dashboard: {address_of(listening, options)}", file=sys.stderr, flush=True)
        server.run(sockets=[listening])
    if failures:
        raise failures[0]
