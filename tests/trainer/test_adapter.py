"""An adapter between two small frozen models: it learns, stops, goes on, and is taken by llm."""

import csv
import os
import signal
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.text_simulation.llm import LlmSettings, LlmTextSimulation
from tests.support import tiny_models
from trainer.adapter import AdapterOptions, run, train
from trainer.progress import TerminalProgress
from trainer.stop import Stop
from trainer.word_errors import word_edits

# What transformers does inside is not ours to mend.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def speech(folder: Path) -> Path:
    """Two sentences, each with a pitch of its own."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = ["id,split,valence,audio,text,seconds"]
    for index in range(16):
        word = ("good", "bad")[index % 2]
        time_s = np.arange(16_000) / 16_000
        sound = 8_000 * np.sin(2 * np.pi * (300, 1_500)[index % 2] * time_s)
        samples = (sound + generator.normal(0, 300, 16_000)).astype("<i2")
        with wave.open(str(folder / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        split = "train" if index < 12 else "valid"
        rows.append(f"{index},{split},{index % 2},{index}.wav,the movie was {word},1.0")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_an_adapter_learns_stops_goes_on_and_is_taken_by_the_llm_simulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavlm = tiny_models.wavlm(tmp_path / "wavlm")
    llama = tiny_models.llama(tmp_path / "llama")
    options = AdapterOptions(
        speech(tmp_path / "speech"), tmp_path / "whole", wavlm, llama, steps=40,
        learning_rate=3e-3, warmup_steps=4, evaluate_every=20, evaluate_clips=4, threads=1,
    )  # fmt: skip
    assert run(options) == 0
    curve = list(csv.DictReader((tmp_path / "whole" / "curve.csv").read_text().splitlines()))
    assert [row["step"] for row in curve] == ["20", "40"]
    assert float(curve[1]["valid_loss"]) < 0.9 * float(curve[0]["valid_loss"])

    parts = replace(options, out=tmp_path / "parts")
    assert run(replace(parts, steps=20)) == 0
    assert run(parts) == 0
    one, other = (load_file(tmp_path / n / "adapter.safetensors") for n in ("whole", "parts"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert run(replace(parts, learning_rate=1e-3)) == 2
    assert "made with other models or settings" in capsys.readouterr().err

    settings = LlmSettings(wavlm, llama, tmp_path / "whole" / "adapter.safetensors", beams=1)
    sound = np.sin(np.arange(16_000) / 5).astype(np.float32)
    (simulated,) = LlmTextSimulation(replace(settings, max_tokens=6)).simulate([sound])
    assert simulated.frames.shape[1] == 32


def test_an_alignment_comes_first_stops_and_goes_on(tmp_path: Path) -> None:
    wavlm, llama = tiny_models.wavlm(tmp_path / "wavlm"), tiny_models.llama(tmp_path / "llama")
    options = AdapterOptions(
        speech(tmp_path / "speech"), tmp_path / "whole", wavlm, llama, steps=2,
        learning_rate=3e-3, warmup_steps=4, evaluate_every=2, evaluate_clips=2, aligned_steps=24,
        threads=1,
    )  # fmt: skip
    assert run(options) == 0
    rows = list(csv.DictReader((tmp_path / "whole" / "curve.csv").read_text().splitlines()))
    assert [row["aligned_steps"] for row in rows] == ["4", "8", "12", "16", "20", "24", "24"]
    assert [row["step"] for row in rows] == [*["0"] * 6, "2"]
    losses = [float(row["loss"]) for row in rows[:6]]
    assert losses[5] < 0.7 * losses[0]
    assert [row["word_error_rate"] == "nan" for row in rows] == [*[True] * 5, False, False]
    assert all(0 <= float(row["spelled_error_rate"]) < 3 for row in rows)

    parts = replace(options, out=tmp_path / "parts", steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(parts, TerminalProgress(quiet=True), _After(18))
    state = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert (state["aligned"], state["step"]) == (11, 0)
    assert run(parts) == 0
    one, other = (load_file(tmp_path / n / "adapter.safetensors") for n in ("whole", "parts"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


class _After(Stop):
    """Asked to stop at the n-th question."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self.left = questions

    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_sound_that_changed_is_encoded_again(tmp_path: Path) -> None:
    wavlm, llama = tiny_models.wavlm(tmp_path / "wavlm"), tiny_models.llama(tmp_path / "llama")
    options = AdapterOptions(
        speech(tmp_path / "speech"), tmp_path / "out", wavlm, llama, steps=1, threads=1,
        evaluate_clips=1,
    )  # fmt: skip
    assert run(options) == 0
    index = tmp_path / "out" / "frames" / "index.jsonl"
    count = len(index.read_text().splitlines())
    (tmp_path / "speech" / "0.wav").write_bytes((tmp_path / "speech" / "1.wav").read_bytes()[:-400])
    assert run(replace(options, steps=2)) == 0
    assert len(index.read_text().splitlines()) == count + 1


class _Terminating(TerminalProgress):
    """Sends this process SIGTERM while the seventh step is counted."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        counted = []

        def advance() -> None:
            counted.append(name)
            if name == "steps" and len(counted) == 7:
                os.kill(os.getpid(), signal.SIGTERM)

        yield advance


def test_sigterm_keeps_the_steps_that_are_done(tmp_path: Path) -> None:
    wavlm, llama = tiny_models.wavlm(tmp_path / "wavlm"), tiny_models.llama(tmp_path / "llama")
    options = AdapterOptions(speech(tmp_path / "speech"), tmp_path / "out", wavlm, llama, threads=1)
    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        train(options, _Terminating(quiet=True), stop)
    assert torch.load(tmp_path / "out" / "state.pt", weights_only=True)["step"] == 7


def test_a_corpus_without_speech_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.csv").write_text("id,split,valence,text\na,train,1,some words\n")
    options = AdapterOptions(
        tmp_path / "texts.csv", tmp_path / "out",
        tiny_models.wavlm(tmp_path / "wavlm"), tiny_models.llama(tmp_path / "llama"),
    )  # fmt: skip
    assert run(options) == 2
    assert "expected clips with sound and a transcript" in capsys.readouterr().err


def test_word_edits_count_words_without_case_or_punctuation() -> None:
    assert word_edits("It went, well!", "it went well") == 0
    assert word_edits("it well", "it went well") == 1
    assert word_edits("that went very well", "it went well") == 2
    assert word_edits("", "it went well") == 3
