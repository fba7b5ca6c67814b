"""Logging of every engine process: one line each to standard error, without content of a call."""

from __future__ import annotations

import logging
import sys


def configure(level: str, name: str) -> None:
    """Send this process's log to standard error, marked with the worker's name."""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {name}: %(message)s",
        stream=sys.stderr,
        force=True,
    )
