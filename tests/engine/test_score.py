"""``engine score``: a clip's scores in the rows that every client reads."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from clients.reading import RecordingFile
from engine.backends.select import choose
from engine.capture import CaptureError
from engine.capture.clip import SAMPLE_CLIP, read_sound
from engine.score import score_clip, score_to_file
from engine.settings import EngineSettings
from models import bundle as bundles
from tests.support.media import write_sound

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


def test_the_last_words_of_a_clip_count(tmp_path: Path) -> None:
    """A clip of one sentence ends with its last word, before that could count."""
    sentence = write_sound(tmp_path / "sentence.wav", read_sound(SAMPLE_CLIP)[: int(2.1 * 16_000)])
    bundle = bundles.open("default")
    settings = EngineSettings.model_validate({"words": {"publish": True}})
    backend = choose(settings.backend, bundle, 1, settings.tensorrt).backend
    scores = list(score_clip(sentence, settings, bundle, backend))
    heard = [word.text for word in scores[-1].transcript.words or ()]
    assert " ".join(heard).startswith("I am so happy today")
    assert scores[-1].valence is not None
    assert scores[-1].valence > 1


def test_a_clip_that_cannot_be_read_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    out, bad = tmp_path / "scores.jsonl", tmp_path / "bad.mp4"
    out.write_text("of yesterday\n")
    bad.write_bytes(b"no media at all")
    with pytest.raises(CaptureError):
        score_to_file(bad, out, EngineSettings())
    assert out.read_text() == "of yesterday\n"
    assert sorted(tmp_path.iterdir()) == [bad, out]


def test_a_clip_too_short_for_a_score_is_told(tmp_path: Path) -> None:
    short = write_sound(tmp_path / "short.wav", np.zeros(4_800, np.int16))
    out = tmp_path / "scores.jsonl"
    told = score_to_file(short, out, EngineSettings())
    assert told == f"0 scores: {short} is too short, the first one comes after 0.5 s"
    assert out.read_text() == ""
