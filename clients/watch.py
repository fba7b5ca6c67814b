"""Watching: a live table of every stream in the terminal, or a line per score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from clients.events import Event, Gap, Link, Stale
from clients.subscriber import Subscriber
from engine.wire.drawing import WIDE, Sparkline, score_line, score_table
from engine.wire.messages import Score, Status

REFRESH_HZ = 8
NOTICE = "Sentiment of the people before these devices is being analysed."


class Board:
    """What the screen shows; pure."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._scores: dict[str, tuple[Score, Sparkline]] = {}
        self._status: dict[str, Status] = {}
        self._silent: dict[str, Stale] = {}
        self.lost: Counter[str] = Counter()
        self._link: Link | None = None

    def take(self, event: Event) -> None:
        """Take in an event."""
        if isinstance(event, Gap):
            self.lost[event.stream] += event.missing
        elif isinstance(event, Stale):
            self._silent[event.source] = event
        elif isinstance(event, Link):
            self._link = event
        elif isinstance(event, Status):
            self._status[event.envelope.stream] = event
            self._silent.pop(event.envelope.stream, None)
        else:
            name = event.envelope.stream
            line = self._scores[name][1] if name in self._scores else Sparkline()
            line.push(event.valence)
            self._scores[name] = (event, line)
            self._silent.pop(name, None)

    def render(self, width: int = WIDE) -> RenderableType:
        """Draw the board for a terminal of so many columns."""
        if not self._scores and not self._status:
            return Text(f"waiting for an engine on {self._endpoint} (undertone run)", "yellow")
        parts: list[RenderableType] = [
            score_table(self._scores.values(), f"Undertone on {self._endpoint}", width),
            *self._captions(),
            Text(NOTICE, "dim"),
        ]
        workers = [f"{name} {status.state}" for name, status in sorted(self._status.items())]
        parts.append(Text("workers: " + (", ".join(workers) or "none heard"), "dim"))
        if self._link is not None and not self._link.connected:
            lost = f"connection to {self._link.endpoint} lost, trying again"
            parts.append(Text(lost, "bold red"))
        for stale in self._silent.values():
            kind = "worker" if stale.worker else "stream"
            parts.append(Text(f"{kind} {stale.source}: silent", "bold red"))
        for name, missing in self.lost.items():
            parts.append(Text(f"stream {name}: {missing} scores lost on the way here", "red"))
        return Group(*parts)

    def _captions(self) -> list[Text]:
        """What was understood, a line for each stream whose scores carry words."""
        said = [(name, caption(score)) for name, (score, _) in self._scores.items()]
        return [Text(f"{name}: {words}", "italic") for name, words in said if words]


def caption(score: Score) -> str:
    """The words of a score as one line; those that may still change in brackets."""
    words = score.transcript.words or ()
    firm = " ".join(word.text for word in words if not word.tentative)
    tentative = " ".join(word.text for word in words if word.tentative)
    return f"{firm} ({tentative})".strip() if tentative else firm


def watch(subscriber: Subscriber, endpoint: str, console: Console | None = None) -> None:
    """Show scores until interrupted."""
    console = console or Console()
    if console.is_terminal:
        _live(subscriber, Board(endpoint), console)
    else:
        for line in lines(subscriber.events()):
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def lines(events: Iterable[Event]) -> Iterable[str]:
    """One line per event, for pipes and logs."""
    for event in events:
        if isinstance(event, Score):
            words = caption(event)
            yield f"{score_line(event)}  {words}" if words else score_line(event)
        elif isinstance(event, Gap):
            yield f"{event.stream}  {event.missing} scores lost on the way here"
        elif isinstance(event, Stale):
            yield f"{event.source}  silent for {event.silence_s:.1f} s"
        elif isinstance(event, Link):
            yield f"{event.endpoint}  {'connected again' if event.connected else 'connection lost'}"


def _live(subscriber: Subscriber, board: Board, console: Console) -> None:
    with Live(
        board.render(console.width), console=console, auto_refresh=False, screen=False
    ) as live:
        while True:
            for event in subscriber.poll(1000 // REFRESH_HZ):
                board.take(event)
            live.update(board.render(console.width), refresh=True)
