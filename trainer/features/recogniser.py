"""The recogniser that training hears with: its tone frames, and the words it writes down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import digest
from models.hearing import levelled
from models.preprocessing import to_float
from models.recogniser.decoding import GreedyDecoder
from models.recogniser.runner import OnnxGraphs, load_decoder
from models.spec import (
    RECOGNISER,
    SAMPLE_RATE_HZ,
    BeliefSpec,
    GraphName,
    SequenceEncoderSpec,
)
from trainer.features.speech import Heard

Floats = NDArray[np.float32]
TOKENS = "recogniser_tokens.json"
STRIDE = 384
CONTEXT_STRIDES, BLOCK_STRIDES = 42, 20
"""A second of context, half a second of new sound."""
LONGEST_S, PAUSE_S, QUIET_S = 4.0, 0.5, 0.1


def tone_spec(dim: int) -> SequenceEncoderSpec:
    """How the frames of the middle layer are computed as sound comes."""
    return SequenceEncoderSpec(
        kind="recogniser",
        input="samples",
        dim=dim,
        stride=STRIDE,
        left_context=CONTEXT_STRIDES * STRIDE,
        causal=False,
        block=BLOCK_STRIDES,
    )


@dataclass(frozen=True, eq=False)
class Recogniser:
    """A recogniser's graphs in a folder, opened once."""

    folder: Path
    identity: str
    tone_spec: SequenceEncoderSpec
    graphs: dict[GraphName, Path]
    files: dict[str, Path]
    """Tokens, licence: what goes with the graphs."""
    _lower: OnnxGraphs
    _decoder: GreedyDecoder

    @staticmethod
    def open(folder: Path) -> Recogniser:
        """Open the folder that ``import-recogniser`` has made.

        Raises:
            RecogniserError: a graph or the tokens are missing, or do not fit together.
        """
        paths: dict[GraphName, Path] = {name: folder / f"{name}.onnx" for name in RECOGNISER}
        decoder = load_decoder({str(name): path for name, path in paths.items()}, folder / TOKENS)
        lower = OnnxGraphs({"recogniser_lower": paths["recogniser_lower"]})
        dim = int(lower.shape("recogniser_lower", "frames")[-1])
        identity = "recogniser/" + "/".join(digest(path)[:16] for path in paths.values())
        files = {path.name: path for path in (folder / TOKENS, *folder.glob("LICENSE*"))}
        return Recogniser(folder, identity, tone_spec(dim), paths, files, lower, decoder)

    def tone(self, samples: Floats) -> Floats:
        """Samples [1, N] to frames [1, T, D] of the middle layer."""
        return self._lower("recogniser_lower", {"input": samples})["frames"]

    def write(self, heard: Heard) -> str | None:
        """The words of a clip, piece by piece and joined; None where none is believed."""
        words = []
        for piece in pieces(heard):
            found = self._decoder.transcribe(levelled(to_float(piece)))
            belief = BeliefSpec()
            if found.text and found.mean_logprob >= belief.min_logprob:
                words.append(found.text)
        return " ".join(words) or None


def pieces(heard: Heard) -> list[NDArray[np.int16]]:
    """Speech, cut where it pauses and at its quietest point where it goes on for too long."""
    places = np.flatnonzero(heard.voiced)
    if not len(places):
        return []
    gaps = np.flatnonzero(np.diff(places) > PAUSE_S * SAMPLE_RATE_HZ)
    starts = [int(places[0]), *(int(places[gap + 1]) for gap in gaps)]
    ends = [*(int(places[gap]) + 1 for gap in gaps), int(places[-1]) + 1]
    lead = int(0.3 * SAMPLE_RATE_HZ)  # speech is noticed a little after it has begun
    found = []
    for start, end in zip(starts, ends, strict=True):
        start = max(0, start - lead)
        while end - start > LONGEST_S * SAMPLE_RATE_HZ:
            cut = _quiet_point(heard.samples, start)
            found.append(heard.samples[start:cut])
            start = cut
        found.append(heard.samples[start:end])
    return found


def _quiet_point(samples: NDArray[np.int16], start: int) -> int:
    """The quietest tenth of a second in the second half of the longest piece."""
    size = int(QUIET_S * SAMPLE_RATE_HZ)
    first = start + int(LONGEST_S / 2 * SAMPLE_RATE_HZ)
    last = start + int(LONGEST_S * SAMPLE_RATE_HZ) - size
    places = range(first, last, size // 2)
    power = [np.square(samples[place : place + size], dtype=np.float64).sum() for place in places]
    return places[int(np.argmin(power))] + size // 2
