"""How far what was found is from what was said, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence


def error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Edits per word between what was found and what was said."""
    words = sum(len(normalised(expected)) for _, expected in pairs)
    return sum(word_edits(found, expected) for found, expected in pairs) / max(1, words)


def normalised(text: str) -> list[str]:
    """Words in small letters, without punctuation."""
    return re.sub(r"[^a-z0-9' ]+", " ", text.lower()).split()


def word_edits(found: str, expected: str) -> int:
    """Words to insert, delete or replace (Levenshtein)."""
    words, target = normalised(found), normalised(expected)
    row = list(range(len(target) + 1))
    for i, word in enumerate(words, start=1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(target, start=1):
            kept = before + (word != wanted)
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, kept)
    return row[-1]
