"""A real microphone, but for the room: PulseAudio's null sink behind PortAudio."""

import subprocess
import sys
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.wire.ingest import IngestReceiver
from engine.wire.messages import Audio, Message, Status
from tests.support.devices import receive_until, virtual_microphone

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[3]
CAPTURE = """
import sys, threading
from engine.capture.worker import run_capture
from engine.settings import StreamSettings, load
stream = StreamSettings(name="main", microphone=sys.argv[2])
run_capture(stream, "microphone", load(ingest=sys.argv[1]), threading.Event())
"""


def tone(path: Path, seconds: float, hertz: float = 440.0) -> Path:
    time = np.arange(int(16_000 * seconds)) / 16_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.sin(2 * np.pi * hertz * time) * 8000).astype("<i2").tobytes())
    return path


def loud(messages: list[Message]) -> list[Audio]:
    return [m for m in messages if isinstance(m, Audio) and m.level_dbfs > -25]


def test_what_is_played_is_what_arrives(tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", reason="PortAudio is missing", exc_type=OSError)
    sound = tone(tmp_path / "tone.wav", 20)
    with (
        virtual_microphone(tmp_path) as microphone,
        IngestReceiver("tcp://127.0.0.1:*") as receiver,
    ):
        environment = {**microphone.environment, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", CAPTURE, receiver.endpoint, "pulse"]
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        player = microphone.play(sound)
        try:
            found = receive_until(
                receiver, lambda got: len(loud(got)) >= 60 or worker.poll() is not None
            )
        finally:
            player.kill()
            player.wait()
            worker.kill()
            _, errors = worker.communicate()
    assert len(loud(found)) >= 60, errors
    chunks = loud(found)[10:50]
    steps = {b.envelope.seq - a.envelope.seq for a, b in pairwise(chunks)}
    assert steps == {1}
    for before, after in pairwise(chunks):
        assert after.envelope.t_start_ns >= before.envelope.t_end_ns
    samples = np.concatenate([chunk.samples for chunk in chunks]).astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * 16_000 / len(samples) == pytest.approx(440, abs=5)
    states = [m.state for m in found if isinstance(m, Status)]
    assert "running" in states


def test_an_unknown_microphone_lists_those_there_are(tmp_path: Path) -> None:
    pytest.importorskip("sounddevice", reason="PortAudio is missing", exc_type=OSError)
    command = [sys.executable, "-m", "engine", "run", "--microphone", "no such thing"]
    ports = [f"--{name}=ipc://{tmp_path}/{name}" for name in ("ingest", "scores", "control")]
    done = subprocess.run(
        [*command, "--camera", "none", *ports],
        capture_output=True, text=True, cwd=REPOSITORY, timeout=40, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no microphone 'no such thing'; known: " in done.stderr
    assert "Traceback" not in done.stderr
