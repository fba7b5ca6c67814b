"""Every example is run as its own text says, on a real engine that plays the packaged clip."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from msgspec.structs import replace

from clients import Subscriber
from clients.record import open_recording
from engine.wire.messages import Interval, Score
from engine.wire.rows import row_of
from tests.support.peers import (
    ENVIRONMENT,
    PATIENCE_S,
    REPOSITORY,
    Engine,
    Program,
    client,
    engine,
)
from tests.support.scores import make_score

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / "examples"
SAMPLE = REPOSITORY / "engine" / "samples" / "sample.mp4"
TESTED = {
    "first_score.py", "many_streams.py", "own_source.py", "own_transcript.py",
    "threshold_alert.py", "mixed_signals.py", "marks.py", "pandas_recording.py", "subscriber.mjs",
}  # fmt: skip
TOOLS = {"make_sample_clip.py", "make_demo_picture.py"}
"""Made the packaged clip, of a picture that is not in the repository, and the README's picture."""


@pytest.fixture(scope="module")
def two_streams() -> Iterator[Engine]:
    with engine("--stream", "alice=sample", "--stream", "bob=sample") as running:
        yield running


def example(name: str, *arguments: str) -> Program:
    return Program(sys.executable, str(EXAMPLES / name), *arguments)


def test_every_example_has_a_test() -> None:
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs")}
    assert found == TESTED | TOOLS


def test_first_score(two_streams: Engine) -> None:
    with example("first_score.py", two_streams.scores) as shown:
        lines = shown.end()
    assert shown.process.returncode == 0, lines
    assert lines[0] in ("stream    alice", "stream    bob")
    assert lines[1].startswith("valence   ")
    assert any(line.startswith("latency   ") for line in lines)


def test_marks(two_streams: Engine) -> None:
    with example("marks.py", two_streams.scores, two_streams.control, "1.5") as shown:
        lines = shown.end()
    assert shown.process.returncode == 0, lines
    for question in ("how was your day", "what went wrong", "what do you look forward to"):
        assert f"alice: {question}" in lines
    assert sum("mean valence" in line for line in lines) == 3


def test_many_streams(two_streams: Engine) -> None:
    with example("many_streams.py", two_streams.scores) as shown:
        line = shown.line(lambda line: "alice" in line and "bob" in line)
        assert line.startswith("alice ")
        shown.process.send_signal(signal.SIGINT)
        lines = shown.end()
    assert shown.process.returncode == 0, lines
    assert not any("Traceback" in line for line in lines)


def beginning(clip: Path, seconds: float, out: Path) -> Path:
    """Copy the first seconds of a clip."""
    with av.open(str(clip)) as old, av.open(str(out), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None and packet.pts * packet.time_base < seconds:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return out


def test_own_source_is_scored_with_both_modalities(tmp_path: Path) -> None:
    clip = beginning(SAMPLE, 4, tmp_path / "short.mp4")
    with engine("infer") as running, Subscriber(running.scores) as subscriber:
        next(subscriber.events())  # the worker listens
        with example("own_source.py", str(clip), running.ingest, "mine") as source:
            scores = (e for e in subscriber.events() if isinstance(e, Score))
            found = next(s for s in scores if s.audio.present and s.video.present)
            lines = source.end()
    assert found.envelope.stream == "mine"
    assert found.valence is not None
    assert source.process.returncode == 0, lines
    sent, dropped = (int(word) for word in lines[-1].split() if word.isdigit())
    assert 100 < sent + dropped < 130
    assert sent > 100


def test_own_transcript_reaches_the_engine(two_streams: Engine) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(EXAMPLES / "own_transcript.py")),
            *("alice", two_streams.ingest, two_streams.scores),
        ],
        # Long enough to cover half of any window's speech by itself.
        input="what a wonderful day, I am so happy that all of it went so well in the end\n",
        capture_output=True, text=True,
        env=ENVIRONMENT, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("text ") for line in lines) == 6
    # What becomes of it depends on the bundle and on the extra; that it came is always told.
    no_encoder = "the engine has no text encoder for transcripts" in lines
    assert no_encoder or any(line.startswith("text given") for line in lines), lines


def recorded(path: Path, count: int = 40) -> Path:
    """A stream that falls to a low valence, with certainty, and then has no value."""
    with open_recording(path) as recording:
        for n in range(count):
            valence = 1.0 if n < 10 else -2.5 if n < 30 else None
            score = make_score("carol", n, 50 + n / 2, valence)
            recording.write(row_of(score, 1e9 + n / 2))
    return path


def replay(path: Path, *options: str) -> tuple[Program, str]:
    player = client("replay", str(path), "--bind", "tcp://127.0.0.1:*", *options)
    return player, player.line(lambda line: " on tcp://" in line).rpartition(" on ")[2]


def test_threshold_alert(tmp_path: Path) -> None:
    player, endpoint = replay(recorded(tmp_path / "x.jsonl"), "--speed", "20")
    with player, example("threshold_alert.py", "-1", "4", endpoint) as alert:
        player.line(lambda line: "scores published" in line)
        assert alert.line() == "carol: below -1.0 for 4 s"
        alert.process.send_signal(signal.SIGINT)
        # 10 s below: twice 4 s and a rest. Not at 1.0, and not where there is no value.
        assert alert.end() == ["carol: below -1.0 for 4 s"] * 2


def test_mixed_signals(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with open_recording(path) as recording:
        for n, mixed in enumerate([False, True, True, False, True, None]):
            score = make_score("dave", n, 100 + n / 2, 0.5)
            parts = score.modalities
            face = replace(parts.video, valence=2.0, interval=Interval(1.0, 3.0))
            voice = replace(parts.audio, valence=-1.5, interval=Interval(-2.0, -1.0))
            parts = replace(parts, video=face, audio=voice)
            recording.write(row_of(replace(score, modalities=parts, mixed=mixed), 1e9 + n / 2))
    player, endpoint = replay(path, "--speed", "20")
    with player, example("mixed_signals.py", endpoint) as shown:
        player.line(lambda line: "scores published" in line)
        assert shown.line() == "dave: mixed signals: voice -1.5, face +2.0"
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == ["dave: mixed signals: voice -1.5, face +2.0"] * 2


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pandas_recording(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pandas")
    with example("pandas_recording.py", str(recorded(tmp_path / f"x{suffix}"))) as shown:
        lines = shown.end()
    assert shown.process.returncode == 0, lines
    assert lines[-1] == "no value in 25% of the scores"
    assert any("carol" in line for line in lines)


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript example with its packages, installed by npm outside the repository."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "subscriber.mjs"):
        shutil.copy(EXAMPLES / name, folder)
    try:
        installed = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0"],
            cwd=folder, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if installed.returncode != 0 and not (folder / "node_modules" / "zeromq").is_dir():
        pytest.skip(f"npm cannot install the packages: {installed.stderr.strip()[-200:]}")
    return folder


def in_words(score: Score) -> dict[str, object]:
    interval = score.interval
    return {
        "stream": score.envelope.stream,
        "seq": score.envelope.seq,
        "valence": score.valence,
        "interval": None if interval is None else [interval.low, interval.high],
        "reason": score.reason,
        "weights": [score.audio.weight, score.text.weight, score.video.weight],
    }


def test_javascript_prints_the_numbers_on_the_wire(javascript: Path, two_streams: Engine) -> None:
    command = ("node", "subscriber.mjs", two_streams.scores, "6")
    with Subscriber(two_streams.scores) as subscriber:
        next(iter(subscriber))  # connected: from here on nothing is missed
        with Program(*command, cwd=javascript) as program:
            wire: dict[tuple[str, int], Score] = {}
            while program.process.poll() is None:
                for event in subscriber.poll(100):
                    if isinstance(event, Score):
                        wire[event.envelope.stream, event.envelope.seq] = event
            lines = program.end()
        latest = subscriber.latest()
    assert latest is not None
    assert program.process.returncode == 0, lines
    printed = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(printed) == 6
    # It may begin with the last score before it came: at most one of each stream is not in here.
    known = [line for line in printed if (line["stream"], line["seq"]) in wire]
    assert len(known) >= 4
    assert known == [in_words(wire[line["stream"], line["seq"]]) for line in known]
    assert ("UNTRAINED" in " ".join(lines)) is (not latest.model.trained)


def test_javascript_tells_gaps_and_no_values(javascript: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with open_recording(path) as recording:
        for n in (0, 1, 4):
            recording.write(
                row_of(make_score("dave", n, 50 + n, None if n == 1 else 0.25), 1e9 + n)
            )
    player, endpoint = replay(path, "--speed", "10")
    with player, Program("node", "subscriber.mjs", endpoint, "3", cwd=javascript) as program:
        lines = program.end()
    printed = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line["seq"] for line in printed] == [0, 1, 4]
    assert [line["valence"] for line in printed] == [0.25, None, 0.25]
    assert "dave: 2 lost" in lines
