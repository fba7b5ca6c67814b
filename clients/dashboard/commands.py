"""What a browser may ask of the engine: a mark, a pause, resuming. One request at a time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse

from clients.control import Control
from engine.wire.fields import WireError

MAX_BODY = 2048
TIMEOUT_MS = 2_000


class Commands:
    """Passes on to an engine's control endpoint."""

    def __init__(self, endpoint: str, keys_dir: Path | None = None) -> None:
        self._endpoint, self._keys_dir = endpoint, keys_dir
        self._one = asyncio.Lock()

    async def answer(self, request: Request) -> JSONResponse:
        """Answer ``POST /command`` with ``{"command", "label", "stream"}``; an error says why."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return _refusal(413, f"expected at most {MAX_BODY} bytes")
        try:
            asked = json.loads(body)
            command, label = asked["command"], asked.get("label", "")
            stream = asked.get("stream")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _refusal(400, "expected a command in JSON")
        texts = isinstance(label, str) and isinstance(stream, str | None)
        if command not in ("mark", "pause", "resume") or not texts:
            return _refusal(400, "expected mark, pause or resume, with texts")
        try:
            async with self._one:
                streams = await asyncio.to_thread(self._send, command, label, stream)
        except WireError as error:
            return _refusal(502, str(error))
        return JSONResponse({"streams": streams})

    def _send(self, command: str, label: str, stream: str | None) -> int:
        with Control(self._endpoint, self._keys_dir, TIMEOUT_MS) as engine:
            if command == "mark":
                return engine.mark(label, stream)
            if command == "pause":
                engine.pause()
            else:
                engine.resume()
        return 0


def _refusal(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)
