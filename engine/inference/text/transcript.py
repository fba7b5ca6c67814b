"""The rolling transcript of one stream: the words of its last utterances, read together. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.inference.text.belief import believed
from engine.inference.text.pieces import Reading
from models.recogniser.decoding import Transcription
from models.spec import RecogniserSpec

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Word:
    """One word as it was understood, and about when it was said."""

    text: str
    t_start_ns: int
    t_end_ns: int
    tentative: bool
    """The piece it belongs to was not finished: it may still be understood otherwise."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What a stream's last utterances say, up to one reading."""

    order: int
    counts_from_ns: int
    text: str
    """Joined words of the believed pieces; empty where nothing is believed."""
    words: tuple[Word, ...]
    spans: tuple[tuple[int, int], ...]
    """When the believed pieces were said."""
    quality: float
    """Geometric mean of the probabilities of all tokens, believed or not, 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Heard:
    reading: Reading
    found: Transcription
    believed: bool


class Transcript:
    """Readings of pieces in, passages out.

    Args:
        spec: how far back a passage reaches, and what is believed.
    """

    def __init__(self, spec: RecogniserSpec) -> None:
        self._spec = spec
        self._span_ns = spec.text_span_ms * MS
        self._pieces: dict[int, _Heard] = {}
        self._order = -1
        self._counts_ns = 0
        self._end_ns = 0

    def accept(self, reading: Reading, found: Transcription) -> Passage | None:
        """Take what a reading found; None where a later reading of its piece was taken before."""
        known = self._pieces.get(reading.piece)
        if known is not None and known.reading.order > reading.order:
            return None
        trust = believed(found, reading.voiced_ns, self._spec.belief)
        # What was understood of a piece holds until all of it is read: a word cut in half is
        # often not understood.
        if trust or reading.final or known is None or not known.believed:
            self._pieces[reading.piece] = _Heard(reading, found, trust)
        # An older piece that was read late joins what is known by now.
        self._order = max(self._order, reading.order)
        self._counts_ns = max(self._counts_ns, reading.counts_from_ns)
        self._end_ns = max(self._end_ns, reading.t_end_ns)
        oldest_ns = self._end_ns - self._span_ns
        self._pieces = {
            number: heard
            for number, heard in sorted(self._pieces.items())
            if heard.reading.t_end_ns > oldest_ns
        }
        return self._passage()

    def _passage(self) -> Passage:
        heard = [item for item in self._pieces.values() if item.believed]
        tokens = [
            (len(item.found.tokens), item.found.mean_logprob)
            for item in self._pieces.values()
            if item.found.tokens
        ]
        count = sum(number for number, _ in tokens)
        mean = sum(number * logprob for number, logprob in tokens) / count if count else -math.inf
        return Passage(
            order=self._order,
            counts_from_ns=self._counts_ns,
            text=" ".join(item.found.text for item in heard),
            words=tuple(word for item in heard for word in _words(item)),
            spans=tuple((item.reading.t_start_ns, item.reading.t_end_ns) for item in heard),
            quality=math.exp(mean),
        )


def _words(heard: _Heard) -> list[Word]:
    """Words of a piece, spread over its time by their lengths."""
    texts = heard.found.text.split()
    start_ns, end_ns = heard.reading.t_start_ns, heard.reading.t_end_ns
    total = sum(len(text) + 1 for text in texts)
    found: list[Word] = []
    before = 0
    for text in texts:
        first_ns = start_ns + (end_ns - start_ns) * before // total
        before += len(text) + 1
        last_ns = start_ns + (end_ns - start_ns) * before // total
        found.append(Word(text, first_ns, last_ns, not heard.reading.final))
    return found
