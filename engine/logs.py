"""Logging of every engine process: one line each to standard error, without content of a call.

Logging never waits for a reader (``engine.terminal.output``), and the lines of one cause are
limited in rate (``engine.wire.notices``).
"""

from __future__ import annotations

import atexit
import logging

from engine.terminal.output import Output
from engine.wire.notices import LimitedLog

DRAIN_S = 0.3
"""How long a process that ends waits for somebody to read its last lines."""


def configure(level: str, name: str, output: Output | None = None) -> Output:
    """Send this process's log to standard error, marked with the worker's name."""
    output = output or Output(2)
    handler = logging.StreamHandler(output)
    handler.addFilter(LimitedLog())
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {name}: %(message)s",
        handlers=[handler],
        force=True,
    )
    atexit.register(output.drain, DRAIN_S)
    return output
