"""Frames of given transcripts: the bundle's text encoder, if it and its extra are there."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np

from engine.inference.tracks.rings import Frames
from models.spec import TextEncoderSpec

if TYPE_CHECKING:
    from models.text_encoders import TextEncoder

log = logging.getLogger(__name__)


class GivenTextEncoder:
    """Encodes transcripts with the text encoder that a bundle names.

    The encoder is a transformers model that takes seconds to load, so loading starts with the
    first transcript. Live it runs in a thread of its own and transcripts are unavailable until
    it is done (``wait=False``); offline the first transcript waits for it.
    """

    def __init__(
        self, spec: TextEncoderSpec | None, dim: int, wait: bool, folder: Path | None = None
    ) -> None:
        """``folder``: of the bundle, where an adapter of the encoder lies."""
        self._spec = spec
        self._folder = folder
        self._dim = dim
        self._wait = wait
        self._encoder: TextEncoder | None = None
        self._loading: Thread | None = None

    def __call__(self, text: str) -> Frames | None:
        """Return a transcript's token frames [T, D], or None while no encoder can be had."""
        if self._loading is None:
            self._loading = Thread(target=self._load, name="text-encoder", daemon=True)
            self._loading.start()
        if self._wait:
            self._loading.join()
        if self._encoder is None:
            return None
        frames = np.asarray(self._encoder.encode([text])[0], np.float32)
        return frames if frames.ndim == 2 and frames.shape[1] == self._dim else None

    def _load(self) -> None:
        spec = self._spec
        if spec is None:
            log.warning("given transcripts are not used: the bundle names no text encoder")
            return
        if find_spec("torch") is None or find_spec("transformers") is None:
            log.warning(
                "given transcripts are not used: torch and transformers are missing "
                '(pip install -e ".[text]")'
            )
            return
        from models.text_encoders import TextEncoder

        try:
            self._encoder = TextEncoder(spec, folder=self._folder)
        except Exception as error:  # transformers raises a type of its own per cause
            log.warning("given transcripts are not used: cannot load %s: %s", spec.source, error)
