"""Corpora: one reader per format, one ``Clip`` type. ``open`` tells the format by looking."""

from __future__ import annotations

from pathlib import Path

from trainer.corpus.checks import hold_back, join_features, merge
from trainer.corpus.clip import (
    SPLITS,
    Clip,
    Corpus,
    CorpusError,
    Features,
    Media,
    Problem,
    Split,
)
from trainer.corpus.detect import find_reader

__all__ = [
    "SPLITS",
    "Clip",
    "Corpus",
    "CorpusError",
    "Features",
    "Media",
    "Problem",
    "Split",
    "hold_back",
    "join_features",
    "merge",
    "open",
]


def open(path: str | Path) -> Corpus:
    """Open a corpus of any known format; nothing but labels is read of it yet.

    What cannot be used is left out and counted in ``Corpus.problems``.

    Raises:
        CorpusError: nothing there, no known format, unreadable, or no usable clip.
    """
    path = Path(path).expanduser()
    return find_reader(path)(path)
