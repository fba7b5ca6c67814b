"""What training needs of a corpus, found out by a look at few clips, before torch is loaded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.clip import SPLITS, Clip, Corpus, CorpusError


def require_splits(corpus: Corpus) -> None:
    """Refuse a corpus that lacks a split.

    Raises:
        CorpusError: names how many clips each has.
    """
    counts = {split: len(corpus.split(split)) for split in SPLITS}
    if not all(counts.values()):
        listed = ", ".join(f"{count:,} {split}" for split, count in counts.items())
        raise CorpusError(f"{corpus.name}: expected clips to train, valid and test, got {listed}")


def given_width(corpus: Corpus, name: str) -> int | None:
    """Columns of a corpus's own features, by the first clip of each split; None: it has none.

    Args:
        corpus: one, or several merged.
        name: a modality, or ``simulated_text``.

    Raises:
        CorpusError: of several widths, or none of those that were looked at can be read.
    """
    having = [clip for clip in corpus.clips if clip.features(name) is not None]
    firsts: dict[tuple[str, str], Clip] = {}
    for clip in having:
        firsts.setdefault((clip.corpus, clip.split), clip)
    widths: dict[int, str] = {}
    for (named, split), clip in firsts.items():
        rows = given_rows(clip, name)
        if rows is not None:
            widths.setdefault(rows.shape[1], f"{named} ({split})")
    if having and len(widths) != 1:
        listed = ", ".join(f"{width} in {where}" for width, where in widths.items())
        raise CorpusError(
            f"{corpus.name}: {name}: expected features of one width, got "
            f"{listed or 'none that can be read'}"
        )
    return next(iter(widths), None)


def given_rows(clip: Clip, name: str) -> NDArray[np.float32] | None:
    """A clip's own features [T, D], None where they cannot be read."""
    source = clip.features(name)
    try:
        return None if source is None else source.read()[0]
    except CorpusError:
        return None
