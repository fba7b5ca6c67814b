"""Frames of texts: the bundle's text encoder, as its own graph or as the model that it names."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from threading import Lock, Thread
from typing import Protocol

import numpy as np

from engine.inference.tracks.rings import Frames
from models.bundle import Bundle
from models.encoders.text import OnnxTextEncoder
from models.spec import TextEncoderSpec

log = logging.getLogger(__name__)

CLOSING_S = 5.0
"""An end waits at most this long for a model that is being loaded."""


class TextEncoderUnavailableError(Exception):
    """A text encoder that is not there or cannot be loaded; says what to do."""


class Encoder(Protocol):
    """Texts to frames."""

    def encode(self, texts: list[str]) -> list[Frames]:
        """States [T, D] of each text's tokens."""
        ...


class GivenTextEncoder:
    """Encodes transcripts with the text encoder of a bundle.

    Loading starts with the first transcript. Live it runs in a thread of its own and transcripts
    are unavailable until it is done (``wait=False``); offline the first transcript waits for it.
    """

    def __init__(self, bundle: Bundle, wait: bool) -> None:
        self._bundle = bundle
        self._dim = bundle.config.network.text_dim
        self._wait = wait
        self._encoder: Encoder | None = None
        self._loading: Thread | None = None
        self._lock = Lock()

    def __call__(self, text: str) -> Frames | None:
        """Return a transcript's token frames [T, D], or None while no encoder is available."""
        if self._encoder is None and self._loading is None:
            self._loading = Thread(target=self._try, name="text-encoder", daemon=True)
            self._loading.start()
        if self._wait and self._loading is not None:
            self._loading.join()
        if self._encoder is None:
            return None
        frames = np.asarray(self._encoder.encode([text])[0], np.float32)
        return frames if frames.ndim == 2 and frames.shape[1] == self._dim else None

    def encode(self, text: str) -> Frames:
        """Token frames [T, D] of a text; loads the encoder where that was not done yet.

        Raises:
            TextEncoderUnavailableError: it cannot be loaded.
        """
        self.load()
        assert self._encoder is not None
        return np.asarray(self._encoder.encode([text])[0], np.float32)

    def load(self) -> None:
        """Load the encoder, once.

        Raises:
            TextEncoderUnavailableError: it cannot be loaded.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = _load(self._bundle)

    def close(self) -> None:
        """Wait until no thread loads: a process that ends meanwhile aborts."""
        if self._loading is not None:
            self._loading.join(CLOSING_S)

    def _try(self) -> None:
        try:
            self.load()
        except TextEncoderUnavailableError as error:
            log.warning("given transcripts are not used: %s", error)


def _load(bundle: Bundle) -> Encoder:
    spec = bundle.config.text_encoder
    if spec is None:
        raise TextEncoderUnavailableError("the bundle names no text encoder")
    try:
        if spec.tokenizer is not None and "text_encoder" in bundle.config.graphs:
            return OnnxTextEncoder(
                bundle.path("text_encoder"),
                bundle.directory / spec.tokenizer,
                spec.dim,
                spec.max_tokens,
            )
        return _from_torch(spec, bundle)
    except Exception as error:  # transformers raises a type of its own per cause
        raise TextEncoderUnavailableError(f"cannot load {spec.source}: {error}") from error


def _from_torch(spec: TextEncoderSpec, bundle: Bundle) -> Encoder:
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise TextEncoderUnavailableError(
            'torch and transformers are missing (pip install -e ".[text]")'
        )
    from models.text_encoders import TextEncoder

    return TextEncoder(spec, folder=bundle.directory)
