"""What TensorRT calls back: its log and the progress of a build.

Both derive from classes of whichever TensorRT is there, so they are made when it is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


def make_logger(trt: Any) -> Any:
    """Make a logger into this process's log; its ``last`` is the last error's text."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.DEBUG,  # of shapes that no stream has, and the like
        trt.ILogger.INFO: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Into this process's log; the last error goes into the exception."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.NOTSET)
            if level == logging.ERROR:
                self.last = " ".join(message.split())
            if level:
                # Errors are raised by who called; the log has them for the curious.
                log.log(min(level, logging.INFO), "%s", message)

    return Logger()


def make_monitor(trt: Any, report: Callable[[str], None]) -> Any:
    """Make a monitor that reports the outer phases of a build by name."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells the names of the phases; TensorRT calls it from threads of its own."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                report(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

        def phase_finish(self, phase_name: str) -> None:
            return None

    return Monitor()
