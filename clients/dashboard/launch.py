"""Starting the dashboard from the command line: what was asked for becomes a server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import websockets  # noqa: F401 - uvicorn needs it only when it starts, too late to say so

from clients.dashboard import DashboardError
from clients.dashboard.access import is_loopback, new_token
from clients.dashboard.server import Options, serve
from engine.capture.browser.session import open_desk
from engine.wire.fields import WireError


def launch(
    scores: str,
    host: str,
    port: int,
    keys_dir: Path | None,
    ingest: str | None,
    capture: bool | None,
    names: Iterable[str],
    config: Path | None,
    control: str,
    commands: bool | None,
) -> str | None:
    """Run until interrupted; returns one line where it could not be run.

    Away from loopback, and under any other name (a reverse proxy stands before it then, and brings
    everybody), a token is asked for, and a browser may capture, mark and pause only where that was
    said.
    """
    names = frozenset(name.lower() for name in names)
    local = is_loopback(host) and not names
    options = Options(
        scores,
        host,
        port,
        None if local else new_token(),
        names,
        keys_dir,
        control if (local if commands is None else commands) else None,
    )
    try:
        wanted = local if capture is None else capture
        serve(options, open_desk(ingest, keys_dir, config) if wanted else None)
    except (DashboardError, WireError) as error:
        return str(error)
    except KeyboardInterrupt:
        pass
    return None
