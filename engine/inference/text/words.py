"""The bundle's recogniser and text encoder, loaded where words are wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import BackendError
from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.recognition import (
    OfflineWords,
    ThreadedWords,
    WordsModel,
    WordsSource,
)
from engine.inference.tracks.rings import Frames
from engine.settings import WordsSettings
from models.bundle import Bundle
from models.recogniser.decoding import Transcription
from models.recogniser.runner import load_decoder
from models.spec import RECOGNISER


class Recogniser(Protocol):
    """Writes down speech."""

    def transcribe(self, samples: NDArray[np.float32]) -> Transcription:
        """Write down a piece of speech [N] at 16 kHz."""
        ...


@dataclass(frozen=True)
class BundleWords:
    """A recogniser, and the text encoder that given transcripts go through too."""

    recogniser: Recogniser
    reader: GivenTextEncoder

    def transcribe(self, samples: NDArray[np.float32]) -> Transcription:
        """See ``WordsModel``."""
        return self.recogniser.transcribe(samples)

    def read(self, text: str) -> Frames:
        """See ``WordsModel``."""
        return self.reader.encode(text)


def load_recogniser(bundle: Bundle) -> Recogniser:
    """Load a bundle's recogniser: its own graphs, or the model that it names.

    Raises:
        BackendError: there is none.
        models.recogniser.decoding.RecogniserError: its files do not fit together.
        models.pretrained.PretrainedError: the named model cannot be loaded.
    """
    spec = bundle.config.recogniser
    if spec is None:
        raise BackendError(f"{bundle.directory}: expected a recogniser, the bundle has none")
    if spec.source is not None:
        from models.recogniser.pretrained import PretrainedRecogniser

        return PretrainedRecogniser(spec.source)
    paths = {str(graph): bundle.path(graph) for graph in RECOGNISER}
    return load_decoder(paths, bundle.directory / str(spec.tokens))


def words_source(
    bundle: Bundle,
    settings: WordsSettings,
    reader: GivenTextEncoder,
    now: Callable[[], int] | None,
) -> WordsSource | None:
    """What reads the words of a bundle with a recogniser; None without one, or where it is off.

    Args:
        bundle: an opened bundle.
        settings: ``words.mode``: ``on`` loads at once and fails where ``auto`` would warn and go
            on without words.
        reader: encodes texts.
        now: our clock, for a thread of its own; None reads when asked, for a clip.

    Raises:
        BackendError: words are ``on``, and the bundle has no recogniser, or a broken one.
    """
    spec = bundle.config.recogniser
    if settings.mode == "off":
        return None
    if spec is None:
        if settings.mode == "on":
            raise BackendError(
                f"words.mode: on, but bundle {bundle.config.name!r} has no recogniser"
            )
        return None

    def load() -> WordsModel:
        model = BundleWords(load_recogniser(bundle), reader)
        reader.load()
        return model

    dim = bundle.config.network.text_dim
    if now is None:
        return OfflineWords(spec, load, dim)
    if settings.mode == "on":
        try:
            model = load()
        except Exception as error:  # a model's own errors have no common base
            raise BackendError(f"words.mode: on, but {error}") from None
        return ThreadedWords(spec, lambda: model, dim, now)
    return ThreadedWords(spec, load, dim, now)
