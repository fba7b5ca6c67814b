"""Text encoders for real transcripts: any transformers encoder or causal language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.pretrained import PretrainedError, hidden_state, load
from models.spec import TextEncoderSpec

MAX_TOKENS = 512


class TextEncoder:
    """Transcripts in, one frame per token out (special tokens included)."""

    def __init__(self, spec: TextEncoderSpec, device: torch.device | None = None) -> None:
        """Load the model.

        Raises:
            PretrainedError: it cannot be loaded, or its width is not ``spec.dim``.
        """
        self.spec = spec
        self._device = device or torch.device("cpu")
        factory = "AutoModel" if spec.model == "encoder" else "AutoModelForCausalLM"
        self._tokenizer, model = load(spec.source, "AutoTokenizer", factory)
        width = int(model.config.hidden_size)
        if width != spec.dim:
            raise PretrainedError(f"{spec.source}: width: expected {spec.dim}, got {width}")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = "right"
        self._model = model.to(self._device).eval()

    @staticmethod
    def width(source: str, model: str = "encoder") -> int:
        """Width of a model's states, to fill a spec's ``dim``."""
        (config,) = load(source, "AutoConfig")
        return int(config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """States [T, dim] of each text's tokens; [0, dim] for a text without any token.

        A text's states do not depend on the others in the batch, but for rounding.
        """
        if not texts:
            return []
        tokens = self._tokenizer(
            list(texts),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=min(MAX_TOKENS, self._tokenizer.model_max_length),
        ).to(self._device)
        mask = tokens["attention_mask"].bool()
        if mask.shape[1] == 0:
            return [np.zeros((0, self.spec.dim), np.float32) for _ in texts]
        output = self._model(**tokens, output_hidden_states=True)
        states = hidden_state(output.hidden_states, self.spec.layer, self.spec.source)
        rows = zip(states.float().cpu(), mask.cpu(), strict=True)
        return [np.asarray(row[kept].numpy(), np.float32) for row, kept in rows]
