"""Features that a corpus brings itself: how wide they are, and how they are stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.corpus import Clip, Corpus, CorpusError
from trainer.features.extractors import FeatureExtractor, Name, fits_half
from trainer.features.store import FeatureError


def given_features(corpus: Corpus, name: Name) -> FeatureExtractor:
    """A corpus's own features of a modality, as wide as its clips' are.

    Raises:
        FeatureError: it brings none, or of different widths.
    """
    having = [clip for clip in corpus.clips if clip.features(name) is not None]
    if not having:
        raise FeatureError(
            f"{corpus.name}: {name}: encoders.{name}.kind is 'features', but the "
            f"corpus brings none: expected 'embedded', 'bundle', 'transformers' or 'none'"
        )
    firsts = {(clip.corpus, clip.split): clip for clip in reversed(having)}
    widths: dict[int, str] = {}
    for (named, split), clip in firsts.items():
        rows = _rows(clip, name)
        if rows is not None:
            widths.setdefault(rows.shape[1], f"{named} ({split})")
    if len(widths) != 1:
        listed = ", ".join(f"{width} in {where}" for width, where in widths.items())
        raise FeatureError(
            f"{corpus.name}: {name}: expected features of one width, got "
            f"{listed or 'none that can be read'}"
        )
    sampled = (_rows(clip, name) for clip in having[:: max(1, len(having) // 32)])
    alike = [rows for rows in sampled if rows is not None and rows.shape[1] in widths]
    dtype = "float16" if alike and fits_half(alike) else "float32"
    return FeatureExtractor(name, next(iter(widths)), dtype)


def _rows(clip: Clip, name: Name) -> NDArray[np.float32] | None:
    """A clip's own features, None where they cannot be read."""
    source = clip.features(name)
    try:
        return None if source is None else source.read()[0]
    except CorpusError:
        return None
