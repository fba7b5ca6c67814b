"""Asking the engine: a mark on the timeline, a pause, and resuming."""

from __future__ import annotations

from pathlib import Path

from engine.wire.closing import Closing
from engine.wire.control import ControlClient
from engine.wire.security import ClientSecurity

CONTROL = "tcp://127.0.0.1:5572"


class Control(Closing):
    """Sends requests to one engine's control endpoint; used by one thread.

    with Control() as engine:
        engine.mark("question 3")
    """

    def __init__(
        self, endpoint: str = CONTROL, keys_dir: Path | None = None, timeout_ms: int = 2_000
    ) -> None:
        """Connect at the first request.

        Raises:
            WireError: there are no keys.
        """
        security = None if keys_dir is None else ClientSecurity.read(keys_dir)
        self._client = ControlClient(endpoint, timeout_ms, security)

    def mark(self, label: str, stream: str | None = None) -> int:
        """Put a label on the next score of a stream, or of all; returns how many it reaches.

        Raises:
            WireError: no reply, no such stream, or a label that is empty or not printable.
        """
        return int(self._client.request("mark", label=label, **_stream(stream)).get("streams", 0))

    def pause(self) -> None:
        """Drop what comes in and score nothing until ``resume``.

        Raises:
            WireError: no reply in time.
        """
        self._client.request("pause")

    def resume(self) -> None:
        """Continue, with fresh windows.

        Raises:
            WireError: no reply in time.
        """
        self._client.request("resume")

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def _stream(stream: str | None) -> dict[str, str]:
    return {} if stream is None else {"stream": stream}
