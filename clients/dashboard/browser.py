"""A browser's websocket, and jobs that end with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, MutableMapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

SEND_TIMEOUT_S = 30.0


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


async def until_gone(browser: Browser) -> None:
    """Read and drop what a browser says, until it leaves."""
    while True:
        await browser.receive()


async def first_of(*jobs: Coroutine[Any, Any, None]) -> None:
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
