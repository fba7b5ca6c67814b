"""``engine score``: a clip's scores in the rows that every client reads."""

import itertools
import wave
from pathlib import Path

import pytest

from clients.reading import RecordingFile
from engine.capture import CaptureError
from engine.capture.clip import SAMPLE_CLIP
from engine.score import score_to_file
from engine.settings import EngineSettings

pytestmark = pytest.mark.slow


def test_the_rows_are_those_of_a_recording(tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    told = score_to_file(SAMPLE_CLIP, out, EngineSettings())
    rows = list(RecordingFile(out).rows())
    assert told.startswith(f"{len(rows)} scores in")
    assert [row.score.envelope.seq for row in rows] == list(range(len(rows)))
    steps = {b.received_unix_s - a.received_unix_s for a, b in itertools.pairwise(rows)}
    assert all(abs(step - 0.5) < 1e-3 for step in steps), "replayed at the pace of the clip"
    assert list(tmp_path.iterdir()) == [out]


def test_a_clip_that_cannot_be_read_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    out, bad = tmp_path / "scores.jsonl", tmp_path / "bad.mp4"
    out.write_text("of yesterday\n")
    bad.write_bytes(b"no media at all")
    with pytest.raises(CaptureError):
        score_to_file(bad, out, EngineSettings())
    assert out.read_text() == "of yesterday\n"
    assert sorted(tmp_path.iterdir()) == [bad, out]


def test_a_clip_too_short_for_a_score_is_told(tmp_path: Path) -> None:
    short, out = tmp_path / "short.wav", tmp_path / "scores.jsonl"
    with wave.open(str(short), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 4_800))
    told = score_to_file(short, out, EngineSettings())
    assert told == f"0 scores: {short} is too short, the first one comes after 0.5 s"
    assert out.read_text() == ""
