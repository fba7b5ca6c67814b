"""Reads a transcript without torch: the bundle's ONNX text encoder and its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.sessions import SessionError, open_session

Floats = NDArray[np.float32]


class TextEncoderError(ValueError):
    """A text encoder whose parts do not fit together; expected and actual."""


class OnnxTextEncoder:
    """Texts in, one frame per token out (special tokens included); safe in several threads."""

    def __init__(
        self, graph: Path, tokenizer: Path, dim: int, max_tokens: int = 256, threads: int = 1
    ) -> None:
        """Load the graph and the tokenizer.

        Args:
            graph: ONNX file: ``ids`` and ``mask`` [B, T] to ``frames`` [B, T, dim].
            tokenizer: tokenizer.json.
            dim: width of the frames.
            max_tokens: of a text that are read; the rest is cut off.
            threads: of one run.

        Raises:
            TextEncoderError: a file that cannot be loaded, or a tokenizer of another model.
        """
        from tokenizers import Tokenizer

        try:
            self._session = open_session(graph, threads)
        except SessionError as error:
            raise TextEncoderError(str(error)) from None
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises Exception itself
            raise TextEncoderError(f"{tokenizer}: expected a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self.dim = dim
        metadata = self._session.get_modelmeta().custom_metadata_map
        expected, actual = metadata.get("vocabulary"), self._tokenizer.get_vocab_size()
        if expected is not None and int(expected) != actual:
            raise TextEncoderError(
                f"{tokenizer}: expected the {expected} tokens of {graph.name}, got {actual}: "
                "the tokenizer of another model"
            )
        width = self._session.get_outputs()[0].shape[-1]
        if width != dim:
            raise TextEncoderError(f"{graph}: width: expected {dim}, got {width}")

    def tokens(self, text: str) -> list[int]:
        """Ids of a text's tokens, special ones included."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode(self, texts: Sequence[str]) -> list[Floats]:
        """States [T, dim] of each text's tokens.

        One run for each text: activations are quantised by the range that a run sees, so in a
        batch a text's states would depend on the others.
        """
        return [self._states(self.tokens(text)) for text in texts]

    def _states(self, tokens: Sequence[int]) -> Floats:
        if not tokens:
            return np.zeros((0, self.dim), np.float32)
        ids = np.array([tokens], np.int64)
        frames: Floats = self._session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0][0]
        return frames
