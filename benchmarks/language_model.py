"""The ``llm`` text simulation with random weights: tokens and segments per second."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

SEGMENT_S = 3.0
TOKENS = 64
"""Generated per segment; a random model does not end by itself."""


@dataclass(frozen=True)
class Sizes:
    """A language model and a speech encoder."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    speech_hidden: int
    speech_layers: int


SEVEN_B = Sizes(4096, 32, 32, 11008, 32000, 1024, 24)
"""Llama 2 7B's (6.7 G parameters) and WavLM Large's sizes."""
TINY = Sizes(64, 4, 2, 128, 100, 32, 2)


@dataclass(frozen=True)
class Figure:
    """One batch size."""

    batch: int
    seconds: float
    tokens_per_s: float
    segments_per_s: float
    limit_tokens_per_s: float
    """Every step reads all weights and all keys and values once, at the measured copy rate."""


def measure(
    device: torch.device, sizes: Sizes, batches: tuple[int, ...], beams: int, copy_bytes: float
) -> list[Figure]:
    """Simulate batches of segments and compare with the bandwidth limit."""
    from models.text_simulation.llm import LlmTextSimulation

    with tempfile.TemporaryDirectory() as folder:
        simulation: LlmTextSimulation = _simulation(device, sizes, Path(folder), beams)
    model: Any = simulation._model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    item = next(model.parameters()).element_size()
    figures = []
    rng = np.random.default_rng(0)
    for batch in batches:
        segments = [
            rng.normal(0, 0.1, int(16_000 * SEGMENT_S)).astype(np.float32) for _ in range(batch)
        ]
        simulation.simulate(segments)  # allocates, and compiles where it does
        begin = time.perf_counter()
        found = simulation.simulate(segments)
        took = time.perf_counter() - begin
        tokens = sum(len(text.frames) + 1 for text in found)
        context = int(SEGMENT_S * 10) + 32 + TOKENS // 2
        cached = 2 * sizes.layers * context * sizes.hidden * item * batch * beams
        limit = batch * copy_bytes / (weights + cached)
        figures.append(Figure(batch, took, tokens / took, batch / took, limit))
    return figures


def _simulation(device: torch.device, sizes: Sizes, folder: Path, beams: int) -> Any:
    import transformers as hf

    from models.encoders.transformers_speech import SpeechEncoder, speech_spec
    from models.text_simulation.llm import LlmModels, LlmSettings, LlmTextSimulation

    torch.manual_seed(0)
    wavlm = hf.WavLMConfig(
        hidden_size=sizes.speech_hidden,
        num_hidden_layers=sizes.speech_layers,
        num_attention_heads=max(2, sizes.speech_hidden // 64),
        intermediate_size=4 * sizes.speech_hidden,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    hf.WavLMModel(wavlm).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    llama = hf.LlamaConfig(
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate,
        vocab_size=sizes.vocabulary,
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)  # made in place: 27 GB of float32 would come first
        with torch.device(device):
            language_model = hf.LlamaForCausalLM(llama)
    finally:
        torch.set_default_dtype(before)
    settings = LlmSettings(str(folder), "random", beams=beams, max_tokens=TOKENS)
    models = LlmModels(SpeechEncoder(speech_spec(str(folder))), _Tokens(), language_model)
    return LlmTextSimulation(settings, device, models)


class _Tokens:
    """Stands for a tokenizer: a prompt of 32 tokens, and no token that ends the text."""

    eos_token_id = None

    def __call__(self, text: str, return_tensors: str) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=torch.arange(32)[None])
