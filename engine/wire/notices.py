"""Lines for people: those of one cause are limited in rate, and addresses lose their password."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

BURST, PERIOD_S = 5, 10.0
"""Lines of one cause within a period; the rest is counted."""
MAX_CAUSES = 512
_PASSWORD = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@]+@")
_NUMBERS = re.compile(r"\d+")


def redact(text: str) -> str:
    """Take user and password out of the addresses in a text."""
    return _PASSWORD.sub(r"\g<scheme>***@", text)


class Limiter:
    """How many lines of one cause are let through. Pure: the clock is an argument."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._causes: dict[str, tuple[float, int]] = {}

    def admit(self, cause: str) -> int | None:
        """None: say nothing. Otherwise how many lines of the cause went unsaid before this one."""
        now_s = self._now_s()
        since_s, count = self._causes.pop(cause, (now_s, 0))
        unsaid = 0
        if now_s - since_s >= PERIOD_S:
            unsaid, since_s, count = max(0, count - BURST), now_s, 0
        self._causes[cause] = since_s, count + 1
        if len(self._causes) > MAX_CAUSES:
            del self._causes[next(iter(self._causes))]
        return unsaid if count < BURST else None

    def line(self, text: str) -> str | None:
        """Pass a line on, or None; lines that differ in their numbers only are of one cause."""
        unsaid = self.admit(_NUMBERS.sub("#", text)[:200])
        if unsaid is None:
            return None
        return f"{text} (and {unsaid} more like it)" if unsaid else text


class LimitedLog(logging.Filter):
    """A filter for a handler: limits records by where they come from, and redacts them."""

    def __init__(self) -> None:
        super().__init__()
        self._limiter = Limiter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is printed."""
        unsaid = self._limiter.admit(f"{record.pathname}:{record.lineno}")
        if unsaid is None:
            return False
        text = redact(record.getMessage())
        record.msg = f"{text} (and {unsaid} more like it)" if unsaid else text
        record.args = None
        return True
