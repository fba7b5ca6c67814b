"""The application: its pages, its options and commands, and the websocket of scores."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from clients.dashboard.access import Access
from clients.dashboard.bridge import Bridge
from clients.dashboard.browser import Browser, LeftError, first_of, until_gone
from clients.dashboard.captures import CaptureDesk, serve_capture
from clients.dashboard.commands import Commands
from clients.dashboard.guard import Guard
from clients.dashboard.limits import Limits
from engine.wire.clock import now_ns

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
BATCH_S = 0.05
"""Shortest time between two messages to a browser."""
OUR_FAULT, TRY_LATER = 1011, 1013
"""Close codes of a websocket."""


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

    def running() -> frozenset[str]:
        return bridge.board.running(now_ns())

    async def scores(websocket: WebSocket) -> None:
        await survive(Browser(websocket), bridge, lambda b: serve_scores(b, bridge))

    async def capture(websocket: WebSocket) -> None:
        await survive(Browser(websocket), bridge, lambda b: serve_capture(b, desk, running))

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
        lifespan=lambda app: _running(bridge, limits, failed),
    )


@contextlib.asynccontextmanager
async def _running(
    bridge: Bridge, limits: Limits | None, failed: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Run the bridge and the limits for as long as the application runs."""
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


def _pass_on(task: asyncio.Task[None], failed: Callable[[BaseException], None]) -> None:
    error = task.exception()
    if error is not None:
        failed(error)


async def survive(
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

        await first_of(sending(), until_gone(browser))
