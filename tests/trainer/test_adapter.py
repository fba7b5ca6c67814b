"""An adapter between two small frozen models: it learns, stops, goes on, and is taken by llm."""

import csv
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.text_simulation.llm import LlmSettings, LlmTextSimulation
from tests.support import tiny_models
from trainer.adapter import AdapterOptions, run, word_edits

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
