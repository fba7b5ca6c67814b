"""What words cost on this machine: CPU of one person who speaks without a pause."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.words import load_recogniser
from engine.settings import WordsSettings
from models.bundle import Bundle
from models.graphs import TOKENS_PER_S
from models.recogniser.decoding import GreedyDecoder
from models.spec import SAMPLE_RATE_HZ

SENTENCE = "It was a good day, and we had not thought that it would be so at all."


@dataclass(frozen=True, slots=True)
class WordsCost:
    """Shares of a core."""

    tentative: float
    """With readings of what is still being said."""
    busy: float
    """With ended pieces alone, as under load."""

    def __str__(self) -> str:
        return (
            f"{self.tentative:.0%} of a core for one person who speaks without a pause, "
            f"{self.busy:.0%} when busy"
        )


def words_cost(bundle: Bundle, settings: WordsSettings) -> WordsCost | str:
    """Measure it by reading pieces as long as a speaker's, with as many tokens; or say why not.

    Raises:
        Exception: the recogniser or the text encoder cannot be loaded.
    """
    spec = bundle.config.recogniser
    if settings.mode == "off":
        return "switched off (words.mode)"
    if spec is None:
        return f"bundle {bundle.config.name!r} has no recogniser"
    decoder = load_recogniser(bundle)
    if not isinstance(decoder, GreedyDecoder):
        return f"by {spec.source}, not measured"
    reader = GivenTextEncoder(bundle, wait=True)
    longest_s = spec.max_piece_ms // 1000
    sound = np.random.default_rng(0).normal(size=longest_s * SAMPLE_RATE_HZ).astype(np.float32)
    spent: list[float] = []
    for seconds in (1, *range(1, longest_s + 1)):  # the first is slower than the others
        began = time.process_time()
        decoder.rehearse(0.05 * sound[: seconds * SAMPLE_RATE_HZ], int(seconds * TOKENS_PER_S))
        reader.encode(SENTENCE)
        spent.append(time.process_time() - began)
    return WordsCost(sum(spent[1:]) / longest_s, spent[-1] / longest_s)
