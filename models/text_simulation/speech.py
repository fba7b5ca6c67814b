"""The speech encoder before an adapter: a transformers model, or a recogniser's own encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.encoders.transformers_speech import SpeechEncoder, speech_spec
from models.hearing import levelled
from models.pretrained import PretrainedError
from models.recogniser.decoding import RecogniserError
from models.recogniser.runner import OnnxGraphs
from models.spec import SequenceEncoderSpec

GRAPHS = ("recogniser_lower", "recogniser_upper")
STRIDE = 384
SHORTEST = 3 * STRIDE
"""Samples that its convolutions need."""


class RecogniserSpeech:
    """Last states of a recogniser's encoder, by its ONNX graphs: frozen, and as fast as live.

    Args:
        folder: with ``recogniser_lower.onnx`` and ``recogniser_upper.onnx``.

    Raises:
        PretrainedError: a graph that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {f"{name}.onnx": folder / f"{name}.onnx" for name in GRAPHS}
        try:
            self._graphs = OnnxGraphs({name: folder / f"{name}.onnx" for name in GRAPHS})
            dim = int(self._graphs.shape("recogniser_upper", "final")[-1])
        except RecogniserError as error:
            raise PretrainedError(str(error)) from None
        self.spec = SequenceEncoderSpec(
            kind="recogniser",
            input="samples",
            dim=dim,
            stride=STRIDE,
            left_context=0,
            causal=False,
            source=str(folder),
        )

    def to(self, *_: Any) -> RecogniserSpeech:
        """Runs on the CPU wherever the language model is."""
        return self

    def __call__(self, samples: Tensor, mask: Tensor | None = None) -> Tensor:
        """Samples [B, N] at 16 kHz to states [B, N // stride, D]; each row by itself.

        ``mask`` [B, N] bool leaves the padding at a row's end out; its states are 0.
        """
        rows, length = samples.shape
        counts = [length] * rows if mask is None else mask.sum(1).tolist()
        states = torch.zeros(rows, length // STRIDE, self.spec.dim)
        for row, count in enumerate(counts):
            if count >= SHORTEST:
                sound = levelled(samples[row : row + 1, :count].float().cpu().numpy())
                lower = self._graphs("recogniser_lower", {"input": np.asarray(sound, np.float32)})
                final = self._graphs("recogniser_upper", {"frames": lower["frames"]})["final"][0]
                states[row, : len(final)] = torch.from_numpy(final[: states.shape[1]])
        return states.to(samples.device)


def holds_speech(folder: Path) -> bool:
    """Whether a folder, a bundle's or a recogniser's, has the encoder's graphs."""
    return all((folder / f"{name}.onnx").is_file() for name in GRAPHS)


def open_speech(source: str) -> SpeechEncoder | RecogniserSpeech:
    """The encoder of a name or folder; a transformers model's last layer.

    Raises:
        PretrainedError: it cannot be loaded.
    """
    folder = Path(source)
    if holds_speech(folder):
        return RecogniserSpeech(folder)
    return SpeechEncoder(speech_spec(source, layer=-1))
