"""Starting the dashboard from the command line: what was asked for becomes a server."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import websockets  # noqa: F401 - uvicorn needs it only when it starts, too late to say so

from clients.dashboard import DashboardError
from clients.dashboard.access import is_loopback, new_token
from clients.dashboard.captures import CaptureDesk
from clients.dashboard.server import Options, serve
from engine.wire.fields import WireError

PLUGINS = "undertone.capture"
"""Group of the entry points that bring ways to capture; a client imports none of the engine's."""


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
        desk = None
        if local if capture is None else capture:
            desk = browser_desk(ingest, keys_dir, config, needed=capture is True)
        serve(options, desk)
    except (DashboardError, WireError) as error:
        return str(error)
    except KeyboardInterrupt:
        pass
    return None


def browser_desk(
    ingest: str | None, keys_dir: Path | None, config: Path | None, needed: bool
) -> CaptureDesk | None:
    """Where browsers' captures begin, as the installed engine brings it.

    Raises:
        DashboardError: it is needed, and no engine is installed.
        WireError: settings or keys that cannot be used.
    """
    for point in entry_points(group=PLUGINS, name="browser"):
        desk: CaptureDesk = point.load()(ingest, keys_dir, config)
        return desk
    missing = "browsers cannot capture: the engine is not installed, pip install -e ."
    if needed:
        raise DashboardError(missing)
    print(missing, file=sys.stderr)
    return None
