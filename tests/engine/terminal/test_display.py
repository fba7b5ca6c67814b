"""The live table's lines about processes: ours, a cluster's own, and workers watched elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from engine.supervisor import WorkerView
from engine.terminal.display import LiveDisplay
from tests.support.scores import make_score, make_status


def drawn(*messages: object, workers: list[WorkerView]) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=40)
    with LiveDisplay(console) as display:
        for message in messages:
            display.show(message)  # type: ignore[arg-type]
        display.refresh(workers)
    return out.getvalue()


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if name in line)


def test_a_process_without_a_status_is_judged_by_its_pulse() -> None:
    starting = WorkerView("relay-1", 1, 0, False)
    running = WorkerView("relay-2", 2, 0, False, running=True)
    text = drawn(workers=[starting, running])
    assert "starting" in line_of(text, "relay-1")
    assert "running" in line_of(text, "relay-2")


def test_the_workers_of_a_cluster_are_shown_as_long_as_they_have_not_taken_their_leave() -> None:
    text = drawn(
        make_score("one"),
        make_status("local-1", "ready"),
        make_status("local-2", "stopping"),
        make_status("one.source", worker="capture"),
        workers=[WorkerView("one.source", 3, 0, False, running=True)],
    )
    assert "ready" in line_of(text, "local-1")
    assert "local-2" not in text
    assert "one.source" in text
