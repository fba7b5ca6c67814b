"""Connections to the dashboard: how many, how long one may say nothing, and who reads nothing.

A browser asks at once and reads what it gets. What does neither is closed before it takes the
descriptors away from the browsers: first whoever has said nothing yet, the oldest of them first.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger(__name__)

FIRST_REQUEST_S = 5.0
CLOSE_S = 5.0
"""Time in which a connection that is being closed has to be gone."""
UNREAD_S = 30.0
"""A browser that takes nothing of what waits for it for this long is closed."""
BACKLOG = 32
RESERVE = 64 + BACKLOG
"""Descriptors kept for files, ZeroMQ and connections that are just being accepted."""
MAX_CONNECTIONS = 512
MAX_QUIET_PER_ADDRESS = 32
MAX_PER_ADDRESS = 256
"""A reverse proxy brings all its browsers from one address."""
LOOK_S = 1.0
TCP_INFO, INFO_SIZE, ACKED_AT = 11, 136, 120
"""Linux: where ``tcp_info`` holds ``tcpi_bytes_acked``."""


@dataclass(slots=True, eq=False)
class _Connection:
    transport: asyncio.Transport
    address: str
    quiet: bool
    since_s: float
    closing_s: float | None = None
    acked: int = -1
    moved_s: float = 0.0


class Limits:
    """The connections of one server; used by its event loop."""

    def __init__(self, limit: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = limit or max(16, min(MAX_CONNECTIONS, soft - RESERVE))
        self._open: dict[asyncio.Transport, _Connection] = {}
        self.cut = 0
        """Connections that were closed for one of these reasons."""

    def opened(self, transport: asyncio.Transport, now_s: float) -> None:
        """Take in a connection; another one, or it, makes room where there are too many."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        self._open[transport] = _Connection(transport, address, True, now_s, moved_s=now_s)
        of_address = [c for c in self._open.values() if c.address == address]
        quiet = [c for c in of_address if c.quiet]
        if len(quiet) > MAX_QUIET_PER_ADDRESS:
            self._cut(quiet[0], "too many connections of one address that ask for nothing")
        elif len(of_address) > MAX_PER_ADDRESS:
            self._cut(quiet[0], "too many connections of one address")
        if len(self._open) > self._limit:
            self._cut(next(c for c in self._open.values() if c.quiet), "too many connections")

    def asked(self, transport: asyncio.Transport) -> None:
        """Note that a connection has brought a whole request."""
        if (connection := self._open.get(transport)) is not None:
            connection.quiet = False

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._open.pop(transport, None)

    def look(self, now_s: float) -> None:
        """Close who says nothing, reads nothing, or should be gone."""
        for connection in list(self._open.values()):
            transport = connection.transport
            if transport.is_closing():
                if connection.closing_s is None:
                    connection.closing_s = now_s
                if now_s - connection.closing_s > CLOSE_S:
                    self._cut(connection, "a connection that does not close")
            elif connection.quiet and now_s - connection.since_s > FIRST_REQUEST_S:
                self._cut(connection, f"no request within {FIRST_REQUEST_S:g} s")
            else:
                acked = _acked(transport)
                if acked != connection.acked or not transport.get_write_buffer_size():
                    connection.acked, connection.moved_s = acked, now_s
                if now_s - connection.moved_s > UNREAD_S:
                    self._cut(connection, f"a browser that read nothing for {UNREAD_S:g} s")

    async def run(self, now_s: Callable[[], float]) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(now_s())

    def protocols(self) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
        """Protocols for uvicorn that report their connections here."""
        limits = self

        class Http(H11Protocol):
            """HTTP, reporting."""

            def connection_made(self, transport: Any) -> None:
                """Take in the connection."""
                super().connection_made(transport)
                limits.opened(transport, self.loop.time())

            def data_received(self, data: bytes) -> None:
                """Take in bytes."""
                super().data_received(data)
                if cast(Any, self.scope) is not None:
                    limits.asked(self.transport)

            def connection_lost(self, exc: Exception | None) -> None:
                """Forget the connection."""
                limits.closed(self.transport)
                super().connection_lost(exc)

        class Websocket(WebSocketsSansIOProtocol):
            """Websockets, reporting."""

            def connection_lost(self, exc: Exception | None) -> None:
                """Forget the connection."""
                limits.closed(self.transport)
                super().connection_lost(exc)

        return Http, Websocket

    def _cut(self, connection: _Connection, why: str) -> None:
        self.cut += 1
        log.warning("closed a connection: %s", why)
        self._open.pop(connection.transport, None)
        connection.transport.abort()


def _acked(transport: asyncio.Transport) -> int:
    """Bytes that the other side has taken; -1 where the system does not say."""
    found: socket.socket | None = transport.get_extra_info("socket")
    try:
        info = found.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_SIZE) if found else b""
    except OSError:
        return -1
    return int(struct.unpack_from("=Q", info, ACKED_AT)[0]) if len(info) >= INFO_SIZE else -1
