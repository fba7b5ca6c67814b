"""The server: the dashboard's socket, address and options, and its run until interrupted."""

from __future__ import annotations

import logging
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from clients.dashboard import DashboardError
from clients.dashboard.access import Access
from clients.dashboard.app import make_app
from clients.dashboard.bridge import Bridge
from clients.dashboard.captures import CaptureDesk
from clients.dashboard.commands import Commands
from clients.dashboard.limits import BACKLOG, Limits
from engine.wire.notices import LimitedLog

SEND_BUFFER = 128 * 1024
"""Of the kernel, per browser: what waits there is old by the time that it is read."""
SHUTDOWN_S = 2
MAX_TEXT = 4096
"""Bytes that a browser may send where it may not capture."""


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
