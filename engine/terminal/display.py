"""What ``run`` shows: a live table in a terminal, one line per score elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, Self, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from engine.supervisor import WorkerView
from engine.terminal.output import Output
from engine.wire.drawing import Sparkline, score_line, score_table
from engine.wire.messages import Score, Status

REFRESH_S = 0.125
GAUGES = {"latency_p50_ms": "p50 {:.1f} ms", "latency_p99_ms": "p99 {:.1f} ms"}


class Display(Protocol):
    """Shows what comes in; a context manager that leaves the terminal as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...

    def show(self, message: Score | Status) -> None:
        """Take in a message."""
        ...

    def refresh(self, workers: Sequence[WorkerView]) -> None:
        """Draw, if it is time to."""
        ...

    def log(self, line: str) -> None:
        """Print a line of a worker's log."""
        ...


class PlainDisplay:
    """One line per score, and one per change of a worker's state, for pipes and log files."""

    def __init__(self, out: TextIO | None = None, errors: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._errors = errors or sys.stderr
        self._states: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, message: Score | Status) -> None:
        """Print a score, or a worker's new state."""
        if isinstance(message, Score):
            _print(self._out, score_line(message))
            return
        name, news = message.envelope.stream, (message.state, message.detail)
        if self._states.get(name) != news:
            self._states[name] = news
            self.log(f"{name}: {message.state} {message.detail}".rstrip())

    def refresh(self, workers: Sequence[WorkerView]) -> None:
        """Nothing to draw."""

    def log(self, line: str) -> None:
        """Print to standard error."""
        _print(self._errors, line)


def _print(out: TextIO, line: str) -> None:
    out.write(line + "\n")  # at once: a line is printed or dropped whole
    out.flush()


class LiveDisplay:
    """A table of the streams above a line per worker, redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._rows: dict[str, tuple[Score, Sparkline]] = {}
        self._status: dict[str, Status] = {}
        self._drawn_s = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, message: Score | Status) -> None:
        """Keep a score or status for the next drawing."""
        name = message.envelope.stream
        if isinstance(message, Status):
            self._status[name] = message
            return
        sparkline = self._rows[name][1] if name in self._rows else Sparkline()
        sparkline.push(message.valence)
        self._rows[name] = (message, sparkline)

    def refresh(self, workers: Sequence[WorkerView]) -> None:
        """Redraw at most eight times a second."""
        now_s = time.monotonic()
        if now_s - self._drawn_s < REFRESH_S:
            return
        self._drawn_s = now_s
        rows = [self._rows[name] for name in sorted(self._rows)]
        width = self._console.width
        table = score_table(rows, "Undertone", width) if rows else Text("waiting for a score ...")
        shown = [*workers, *self._others(workers)]
        lines = [worker_line(worker, self._status.get(worker.name)) for worker in shown]
        self._live.update(Group(table, *lines), refresh=True)

    def _others(self, workers: Sequence[WorkerView]) -> list[WorkerView]:
        """A cluster's workers, which are watched elsewhere."""
        ours = {worker.name for worker in workers}
        return [
            WorkerView(name, pid=0, restarts=0, ended=False)
            for name, status in sorted(self._status.items())
            if status.worker == "inference" and status.state != "stopping" and name not in ours
        ]

    def log(self, line: str) -> None:
        """Print above the table."""
        self._console.print(Text(line, style="dim"))


def worker_line(worker: WorkerView, status: Status | None) -> Text:
    """Say in one line what a worker does."""
    if worker.failure:
        return Text.assemble((f"{worker.name:<20} ", ""), ("failed       ", "red"), worker.failure)
    if worker.ended:
        state, style = "ended", "dim"
    elif worker.pid is None:
        state, style = "restarting", "red"
    elif status is None:
        # A cluster's directory, relays and hosts send no status; their loop shows that they run.
        state, style = ("running", "green") if worker.running else ("starting", "yellow")
    else:
        state = status.state
        style = "green" if state in ("ready", "running") else "yellow"
    text = Text.assemble((f"{worker.name:<20} ", ""), (f"{state:<13}", style))
    if worker.restarts:
        text.append(f"restarted {worker.restarts} times  ", style="yellow")
    if status is not None and not worker.ended:
        text.append(status.detail, style="dim")
        for gauge, form in GAUGES.items():
            if gauge in status.gauges:
                text.append("  " + form.format(status.gauges[gauge]), style="dim")
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def choose_display(out: Output, errors: Output) -> Display:
    """Return the table in a terminal, lines elsewhere; neither waits for somebody to read it."""
    if out.isatty():
        return LiveDisplay(Console(file=cast(TextIO, out), force_terminal=True))
    return PlainDisplay(cast(TextIO, out), cast(TextIO, errors))
