"""The Python in the documentation runs, against a made-up engine, as a reader would paste it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from msgspec.structs import replace

from clients import Control, Subscriber
from engine.wire.clock import now_ns, this_clock
from engine.wire.control import ControlServer, parse
from engine.wire.messages import Envelope
from engine.wire.scores import ScorePublisher
from tests.support.scores import make_score

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
BLOCKS = [
    pytest.param(found[1], id=f"{page.name}:{page.read_text()[: found.start()].count(chr(10)) + 1}")
    for page in PAGES
    for found in BLOCK.finditer(page.read_text())
]
SCORES, CONTROL = "tcp://127.0.0.1:5571", "tcp://127.0.0.1:5572"
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
FAULT = re.compile(r"\| `(?P<file>\S+\.py)`: (?P<tests>.+?) \| [0-9a-f]{7,} \|$", re.M)


class EnoughError(Exception):
    """The code of a page has printed: it would do so for ever."""


class MadeUpEngine:
    """Publishes a score every 20 ms, and takes control requests, in a thread."""

    def __init__(self, publisher: ScorePublisher, server: ControlServer) -> None:
        self._publisher, self._server = publisher, server
        self.commands: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        seq = 0
        while not self._over.wait(0.02):
            self._publisher.greet()
            now = now_ns()
            envelope = Envelope("main", seq, now - 10**9, now, now, this_clock())
            self._publisher.publish(replace(make_score(valence=0.5), envelope=envelope))
            self._server.serve(self._answer)
            seq += 1

    def _answer(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        self.commands.append(parse(values).command)
        return {"streams": 1}


@contextmanager
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MadeUpEngine, str, str]]:
    """The engine, its endpoints of scores and control; they are the defaults of the clients."""
    with (
        ScorePublisher("tcp://127.0.0.1:*") as publisher,
        ControlServer("tcp://127.0.0.1:*") as server,
    ):
        for client, endpoint in ((Subscriber, publisher.endpoint), (Control, server.endpoint)):
            others = client.__init__.__defaults__[1:]  # type: ignore[misc]
            monkeypatch.setattr(client.__init__, "__defaults__", (endpoint, *others))  # type: ignore[misc]
        running = MadeUpEngine(publisher, server)
        try:
            yield running, publisher.endpoint, server.endpoint
        finally:
            running.close()


def test_there_is_python_in_the_documentation() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("code", BLOCKS)
def test_the_code_of_a_page_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []

    def show(*values: object) -> None:
        shown.extend(values)
        raise EnoughError

    space: dict[str, Any] = {"print": show}
    with engine(monkeypatch) as (running, scores, control):
        code = code.replace(SCORES, scores).replace(CONTROL, control)
        try:
            exec(compile(code, "page", "exec"), space)
        except EnoughError:
            assert shown[:2] == ["main", 0.5]
        else:
            assert running.commands == ["mark", "pause", "resume"]
        finally:
            for value in space.values():
                if isinstance(value, zmq.Socket):
                    value.close(0)
                    value.context.term()


def anchors(page: Path) -> set[str]:
    """What a link may name after ``#``: the headings as GitHub writes them."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_faults_page_names_tests_that_exist() -> None:
    rows = list(FAULT.finditer((REPOSITORY / "docs" / "faults.md").read_text()))
    assert len(rows) > 20
    for row in rows:
        source = (REPOSITORY / "tests" / row["file"]).read_text()
        for words in re.sub(r" \(.*\)", "", row["tests"]).split("; "):
            assert f"def test_{'_'.join(words.split())}(" in source, f"{row['file']}: {words}"
