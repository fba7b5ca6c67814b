"""The ``undertone`` command, run as a user runs it: help, errors, demo, run --dashboard."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from clients import Subscriber
from clients.control import Control
from engine import front
from engine.wire.fields import WireError

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def endpoints() -> Mapping[str, str]:
    """An environment in which an engine uses endpoints of its own."""
    free = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("SCORES", "INGEST", "CONTROL")}
    return {**os.environ, **{f"UNDERTONE_{name}": address for name, address in free.items()}}


def undertone_command(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.front", *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False, env=environment,
    )  # fmt: skip


def commands() -> dict[str, Any]:
    return dict(get_command(front.app).commands)  # type: ignore[attr-defined]


def test_the_help_names_every_command_of_engine_and_clients_in_groups() -> None:
    done = undertone_command("--help")
    assert done.returncode == 0, done.stderr
    for name in ("demo", "run", "score", "devices", "doctor", "watch", "record", "plot", "mark"):
        assert f"│ {name} " in done.stdout
    assert "Try it" in done.stdout


def test_every_command_has_a_place_and_examples_that_it_understands() -> None:
    assert set(front.HELP) == set(commands())
    for name, (_, examples) in front.HELP.items():
        assert examples
        for example in examples:
            program, command, *given = undertone_words(example)
            assert (program, command) == ("undertone", name)
            commands()[name].make_context(name, given)  # raises on an unknown option


def undertone_words(example: str) -> list[str]:
    import shlex

    return shlex.split(example.partition(" | ")[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recrd",), "record"),
        (("run", "--source", "absent.mp4"), "absent.mp4"),
        (("plot", "absent.parquet"), "absent.parquet"),
        (("mark",), "label"),
        (("watch", "--scores", "nonsense"), "nonsense"),
    ],
)
def test_a_users_mistake_is_one_line_that_names_it(arguments: tuple[str, ...], said: str) -> None:
    done = undertone_command(*arguments)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert said.lower() in lines[0].lower()


def test_options_alone_mean_run() -> None:
    done = undertone_command("--source", "absent.mp4")
    assert (done.returncode, "absent.mp4" in done.stderr) == (2, True)


def test_the_version_is_told() -> None:
    done = undertone_command("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("undertone ")


class Running:
    """An ``undertone`` program that is ended with the block."""

    def __init__(self, environment: Mapping[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.front", *arguments],
            cwd=REPOSITORY, env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("dashboard: "):
                return line.split()[1]
        raise AssertionError("it ended without an address")

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def playing(endpoints: Mapping[str, str]) -> Iterator[Running]:
    pytest.importorskip("uvicorn", reason="the dashboard's extra is not installed")
    arguments = ("run", "--dashboard", "--no-browser", "--port", "0", "--source", "sample")
    with Running(endpoints, *arguments) as running:
        yield running


def gone(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return True
    return False


def wait_until_gone(url: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not gone(url):
        assert time.monotonic() < end_s, "the dashboard outlived its engine"
        time.sleep(0.1)


@pytest.mark.slow
def test_run_and_dashboard_begin_and_end_together(
    playing: Running, endpoints: Mapping[str, str]
) -> None:
    url = playing.url()
    with urllib.request.urlopen(url, timeout=5) as page:
        assert b"Undertone" in page.read()
    # Ctrl-C before the engine is up ends both, too, but as an interrupted start.
    with Subscriber(endpoints["UNDERTONE_SCORES"]) as scores:
        next(iter(scores))
    playing.process.send_signal(signal.SIGINT)
    assert playing.process.wait(PATIENCE_S) == 0
    assert gone(url)


def test_the_dashboard_ends_with_an_engine_that_was_killed(playing: Running) -> None:
    url = playing.url()
    playing.process.kill()
    wait_until_gone(url)


@pytest.mark.slow
def test_marks_pause_and_resume_from_the_command_line_reach_the_engine(
    endpoints: Mapping[str, str],
) -> None:
    control = ("--control", endpoints["UNDERTONE_CONTROL"])
    with (
        Running(endpoints, "run", "--source", "sample"),
        Subscriber(endpoints["UNDERTONE_SCORES"]) as scores,
    ):
        coming = iter(scores)
        next(coming)
        done = undertone_command("mark", "question 3", *control)
        assert (done.returncode, done.stdout) == (0, "marked 1 stream\n"), done.stderr
        assert any(score.mark == "question 3" for score, _ in zip(coming, range(20), strict=False))
        assert undertone_command("mark", "x", "--stream", "nobody", *control).returncode == 2
        assert undertone_command("pause", *control).stdout.startswith("paused")
        assert undertone_command("resume", *control).stdout.startswith("resumed")
        last = scores.latest()
        assert last is not None
        assert any(score.envelope.seq > last.envelope.seq for score in coming)


def test_a_mark_without_an_engine_says_so() -> None:
    with (
        Control(f"tcp://127.0.0.1:{free_port()}", timeout_ms=200) as engine,
        pytest.raises(WireError, match="no reply"),
    ):
        engine.mark("alone")


@pytest.mark.slow
def test_the_demo_plays_the_sample_to_its_end_without_a_line_of_log(
    endpoints: Mapping[str, str],
) -> None:
    done = undertone_command("demo", "--once", "--no-browser", "--port", "0", environment=endpoints)
    assert done.returncode == 0, done.stderr
    assert "INFO" not in done.stderr
    assert "WARNING" not in done.stderr
    assert sum(line.startswith("main  valence ") for line in done.stdout.splitlines()) > 10
