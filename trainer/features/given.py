"""Features that a corpus brings itself: how wide they are, and how they are stored."""

from __future__ import annotations

from trainer.corpus import Corpus
from trainer.corpus.readiness import given_rows, given_width
from trainer.features.extractors import FeatureExtractor, Name, fits_half
from trainer.features.store import FeatureError


def given_features(corpus: Corpus, name: Name) -> FeatureExtractor:
    """A corpus's own features of a modality, as wide as its clips' are.

    Raises:
        FeatureError: it brings none.
        CorpusError: of different widths.
    """
    width = given_width(corpus, name)
    if width is None:
        raise FeatureError(
            f"{corpus.name}: {name}: encoders.{name}.kind is 'features', but the "
            f"corpus brings none: expected 'embedded', 'bundle', 'transformers' or 'none'"
        )
    having = [clip for clip in corpus.clips if clip.features(name) is not None]
    sampled = (given_rows(clip, name) for clip in having[:: max(1, len(having) // 32)])
    alike = [rows for rows in sampled if rows is not None and rows.shape[1] == width]
    dtype = "float16" if alike and fits_half(alike) else "float32"
    return FeatureExtractor(name, width, dtype)
