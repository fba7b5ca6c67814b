"""Whether what a recogniser wrote is to be believed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from models.recogniser.decoding import Transcription
from models.spec import BeliefSpec

NS_PER_S = 1_000_000_000


def repetition(tokens: Sequence[int]) -> float:
    """Share of the tokens that stand in a run which says again what stands right before it."""
    count = len(tokens)
    if count < 4:
        return 0.0
    repeated = [False] * count
    for width in range(1, count // 2 + 1):
        same = 0
        for index in range(width, count):
            same = same + 1 if tokens[index] == tokens[index - width] else 0
            if same >= width:
                for back in range(width):
                    repeated[index - back] = True
    return sum(repeated) / count


def believed(found: Transcription, voiced_ns: int, spec: BeliefSpec) -> bool:
    """Whether the words of a piece count.

    Another language, music and noise are written down with low probabilities, as far fewer or
    more words than fit into the time, or as one word again and again.
    """
    if not found.text or not found.finished:
        return False
    rate = len(found.tokens) * NS_PER_S / max(voiced_ns, 1)
    most = spec.max_tokens_per_s + 3 * NS_PER_S / max(voiced_ns, 1)  # short pieces: a few more
    return (
        found.mean_logprob >= spec.min_logprob
        and spec.min_tokens_per_s <= rate <= most
        and repetition(found.tokens) <= spec.max_repetition
    )
