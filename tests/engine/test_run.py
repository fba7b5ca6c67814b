from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def run(*arguments: str, scores: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "engine", "--ingest", free_endpoint()),
            *("--control", free_endpoint(), "--scores", scores or free_endpoint(), *arguments),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_two_clips_are_played_once_and_the_run_ends() -> None:
    done = run("--once", "--stream", "a=sample", "--stream", "b=sample")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    for name in ("a", "b"):
        assert sum(line.startswith(f"{name}  valence") for line in lines) > 5


def test_an_occupied_port_ends_the_run_with_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        done = run("--source", "sample", scores=endpoint)
    assert done.returncode == 2
    assert endpoint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_bad_clip_ends_the_run_with_one_line(tmp_path: Path) -> None:
    clip = tmp_path / "broken.mp4"
    clip.write_bytes(b"not a clip")
    done = run("--source", str(clip))
    assert done.returncode == 2
    assert "broken.mp4" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
