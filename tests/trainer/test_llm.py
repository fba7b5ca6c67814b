"""A bundle that was trained with a language model's text simulates text live, by the same files."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.inference.core import InferenceCore
from engine.inference.text.llm import speech_simulator
from engine.settings import InferenceSettings
from models import bundle as bundles
from models.text_simulation.llm import FrameConcatenatingAdapter
from tests.engine.inference.text.test_spoken import scores_of
from tests.support import tiny_models
from trainer.command import carry_out

# What transformers does inside is not ours to mend.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
GENERATOR = np.random.default_rng(0)


def spoken(folder: Path) -> Path:
    folder.mkdir()
    rows = ["id,split,valence,audio,text"]
    for index in range(20):
        with wave.open(str(folder / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(GENERATOR.normal(0, 3000, 16_000).astype("<i2").tobytes())
        split = ("train",) * 3 + ("valid", "test")
        rows.append(f"{index},{split[index % 5]},{index % 7 - 3},{index}.wav,the movie was good")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("hears", ["wavlm", "recogniser"])
def test_llm_is_exported_with_its_adapter_and_runs_live(tmp_path: Path, hears: str) -> None:
    from engine.backends.pytorch import PytorchBackend

    wavlm, llama = tiny_models.wavlm(tmp_path / "wavlm"), tiny_models.llama(tmp_path / "llama")
    torch.manual_seed(0)
    heard = str(bundles.open("default").directory) if hears == "recogniser" else wavlm
    width = 416 if hears == "recogniser" else 16
    voice = (
        ["encoders.audio.kind=embedded"]
        if hears == "recogniser"
        else ["encoders.audio.kind=transformers", f"encoders.audio.source={wavlm}",
              "encoders.audio.layer=-1"]
    )  # fmt: skip
    adapter = FrameConcatenatingAdapter(width, 2048, 32, 5).state_dict()
    torch.save(adapter, tmp_path / "adapter.pt")
    out = tmp_path / "out"
    settings = [
        "training.epochs=1", "training.robustness=false", "network.hidden_dim=8",
        "network.fused_dim=8", "encoders.video.kind=none",
        *voice, "encoders.text.kind=transformers",
        f"encoders.text.source={llama}", "encoders.text.layer=-2",
        "encoders.text_simulation.kind=llm", f"encoders.text_simulation.source={llama}",
        f"encoders.text_simulation.speech={heard}", "encoders.text_simulation.layer=-2",
        f"encoders.text_simulation.adapter={tmp_path / 'adapter.pt'}",
    ]  # fmt: skip
    run = tmp_path / "run"
    corpus = [spoken(tmp_path / "clips")]
    assert carry_out("run", corpus, out, run, run / "f", "features", None, tuple(settings)) == 0

    opened = bundles.open(out)
    assert opened.config.text_simulation is not None
    assert opened.config.text_simulation.kind == "llm"
    kept = load_file(out / "adapter.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in adapter.items())
    assert (out / "recogniser_upper.onnx").is_file() == (hears == "recogniser")
    backend = PytorchBackend(opened, device="cpu", threads=1)
    simulator = speech_simulator(opened, wait=True)
    core = InferenceCore(opened, backend, InferenceSettings(), simulate_speech=simulator)
    assert "simulated" in [score.text_source for score in scores_of(core)]
