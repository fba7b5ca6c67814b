"""Extractors that read transcripts: token ids, a text encoder's states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.text_encoders import tokenize
from trainer.corpus import Clip
from trainer.features.extractors import Extracted, Name

TEXTS_AT_ONCE = 64


class TokenExtractor:
    """Token ids, for a text encoder that is tuned along."""

    name: Name = "text"
    shape: tuple[int, ...] = ()
    dtype = "int32"
    at_once = TEXTS_AT_ONCE

    def __init__(self, tokenizer: Any, source: str) -> None:
        self._tokenizer = tokenizer
        self.identity = f"tokens/{source}/1"

    def takes(self, clip: Clip) -> bool:
        """Clips with a transcript."""
        return clip.transcript is not None

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Tokenize."""
        return [
            Extracted(tokenize(self._tokenizer, clip.transcript or ""), clip.duration_s or 0.0)
            for clip in clips
        ]


class Reader(Protocol):
    """A text encoder."""

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """States [T, D] of each text's tokens."""
        ...


class TextFrameExtractor:
    """States of a frozen text encoder, one per token."""

    name: Name = "text"
    dtype = "float16"
    at_once = TEXTS_AT_ONCE

    def __init__(self, encoder: Reader, dim: int, identity: str) -> None:
        self._encoder = encoder
        self.shape: tuple[int, ...] = (dim,)
        self.identity = identity

    def takes(self, clip: Clip) -> bool:
        """Clips with a transcript."""
        return clip.transcript is not None

    def extract(self, clips: Sequence[Clip]) -> list[Extracted]:
        """Encode, like lengths together."""
        order = sorted(range(len(clips)), key=lambda i: len(clips[i].transcript or ""))
        found: list[Extracted | None] = [None] * len(clips)
        size = TEXTS_AT_ONCE // 4
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            texts = [clips[i].transcript or "" for i in chosen]
            for i, frames in zip(chosen, self._encoder.encode(texts), strict=True):
                found[i] = Extracted(frames, clips[i].duration_s or 0.0)
        return [extracted for extracted in found if extracted is not None]

    def read(self, text: str) -> NDArray[np.float32]:
        """States [T, D] of one text."""
        return self._encoder.encode([text])[0]
