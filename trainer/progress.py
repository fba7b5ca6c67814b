"""Progress of long work: bars in a terminal, lines in a pipe or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

LINE_EVERY_S = 60.0


class Progress(Protocol):
    """Gets what is being done, and how far it has come."""

    def say(self, line: str) -> None:
        """A line worth keeping."""
        ...

    def task(self, title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """A stretch of work; gives a function to call per piece."""
        ...


class TerminalProgress:
    """Bars on stderr while work lasts; where that is no terminal, a line per minute."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar of ``total`` pieces."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        if not self._console.is_terminal:
            yield self._lines(title, total)
            return
        with Bars(*columns, console=self._console, transient=True, disable=self._quiet) as bars:
            task = bars.add_task(title, total=total)
            yield lambda: bars.advance(task)

    def _lines(self, title: str, total: int) -> Callable[[], None]:
        done, started = 0, time.monotonic()
        shown_s = started

        def advance() -> None:
            nonlocal done, shown_s
            done, now = done + 1, time.monotonic()
            if now - shown_s >= LINE_EVERY_S:
                shown_s = now
                left = (now - started) / done * (total - done)
                minutes = f"{(now - started) / 60:.0f} min, about {left / 60:.0f} left"
                self.say(f"{title}: {done:,} of {total:,} ({minutes})")

        return advance
