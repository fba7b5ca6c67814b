"""Text encoders for real transcripts: any transformers encoder or causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import low_rank
from models.pretrained import PretrainedError, hidden_state, load
from models.spec import TextEncoderSpec

MAX_TOKENS = 512


def max_tokens(tokenizer: Any) -> int:
    """Tokens of a text that are read; the rest is cut off."""
    return min(MAX_TOKENS, int(tokenizer.model_max_length))


class TextEncoder:
    """Transcripts in, one frame per token out (special tokens included)."""

    def __init__(
        self,
        spec: TextEncoderSpec,
        device: torch.device | None = None,
        folder: Path | None = None,
    ) -> None:
        """Load the model, tuned by the adapter in the bundle's ``folder``, if any.

        Raises:
            PretrainedError: it cannot be loaded, or its width is not ``spec.dim``.
        """
        self.spec = spec
        self._device = device or torch.device("cpu")
        factory = "AutoModel" if spec.model == "encoder" else "AutoModelForCausalLM"
        self.tokenizer, model = load(spec.source, "AutoTokenizer", factory)
        width = int(model.config.hidden_size)
        if width != spec.dim:
            raise PretrainedError(f"{spec.source}: width: expected {spec.dim}, got {width}")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        if spec.adapter is not None:
            if folder is None:
                raise PretrainedError(f"{spec.source}: the folder of {spec.adapter} is not known")
            low_rank.merge(model, low_rank.read(folder / spec.adapter), spec.source)
        self.model = model.to(self._device).eval()

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
        tokens = self.tokenizer(
            list(texts),
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=max_tokens(self.tokenizer),
        ).to(self._device)
        mask = tokens["attention_mask"].bool()
        if mask.shape[1] == 0:
            return [np.zeros((0, self.spec.dim), np.float32) for _ in texts]
        output = self.model(**tokens, output_hidden_states=True)
        states = hidden_state(output.hidden_states, self.spec.layer, self.spec.source)
        rows = zip(states.float().cpu(), mask.cpu(), strict=True)
        return [np.asarray(row[kept].numpy(), np.float32) for row, kept in rows]


class TunableTextEncoder(nn.Module):
    """Token ids [B, T] to states [B, T, dim], tuned by low-rank updates."""

    def __init__(self, spec: TextEncoderSpec, rank: int) -> None:
        """Load the model.

        Raises:
            PretrainedError: it cannot be loaded.
        """
        super().__init__()
        self.spec = spec
        factory = "AutoModel" if spec.model == "encoder" else "AutoModelForCausalLM"
        (self.model,) = load(spec.source, factory)
        low_rank.attach(self.model, rank)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode; rows without any token give zeros."""
        kept = mask.clone()
        kept[:, 0] = True  # attention over nothing is not a number
        output = self.model(
            input_ids=ids.long(), attention_mask=kept.long(), output_hidden_states=True
        )
        states: Tensor = hidden_state(output.hidden_states, self.spec.layer, self.spec.source)
        return states * mask[..., None]


def tokenize(tokenizer: Any, text: str) -> NDArray[np.int32]:
    """Token ids [T] as ``TextEncoder`` feeds them."""
    ids = tokenizer(text, truncation=True, max_length=max_tokens(tokenizer))["input_ids"]
    return np.asarray(ids, np.int32)
