"""A browser as microphone and camera: the websocket that takes its sound and pictures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Protocol

from clients.dashboard.browser import Browser, first_of
from clients.dashboard.guard import POLICY
from engine.wire.clock import now_ns
from engine.wire.fields import WireError

HELLO_TIMEOUT_S = 10.0
REPORT_PERIOD_S = 1.0


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


async def serve_capture(
    browser: Browser, desk: CaptureDesk | None, running: Callable[[], frozenset[str]]
) -> None:
    """Take a browser's sound and pictures until it leaves or is refused.

    ``running`` names the streams that there are; no desk: nothing is taken.
    """
    await browser.accept()
    session: CaptureSession | None = None
    try:
        if desk is None:
            raise WireError("capture from browsers is switched off on this dashboard")
        session = desk.open(await _greeting(browser), running)
        session.start()
        await browser.send(json.dumps({"kind": "accepted", "stream": session.stream}))
        await first_of(_take_packets(browser, session), session.watch(), _report(browser, session))
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
