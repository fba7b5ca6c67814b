"""The recogniser that training hears with: its tone frames, and the words it writes down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.inference.text.belief import believed
from engine.inference.text.pieces import MS, NS_PER_S, PAUSE_NS, PieceCutter, Reading
from engine.settings import SpeechSettings
from engine.wire.messages import Audio, Clock, Envelope
from models.bundle import digest
from models.hearing import levelled
from models.preprocessing import to_float
from models.recogniser.decoding import GreedyDecoder
from models.recogniser.runner import OnnxGraphs, load_decoder
from models.spec import (
    RECOGNISER,
    SAMPLE_RATE_HZ,
    GraphName,
    RecogniserSpec,
    SequenceEncoderSpec,
)
from trainer.features.speech import Heard

Floats = NDArray[np.float32]
TOKENS = "recogniser_tokens.json"
STRIDE = 384
CONTEXT_STRIDES, BLOCK_STRIDES = 42, 20
"""A second of context, half a second of new sound."""
SPEC = RecogniserSpec(tokens=TOKENS)
"""Lengths of pieces and what is believed of them, as in the bundle that is made."""
SPEECH = SpeechSettings()


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
            found = self._decoder.transcribe(levelled(to_float(piece.samples)))
            if believed(found, piece.voiced_ns, SPEC.belief):
                words.append(found.text)
        return " ".join(words) or None


def pieces(heard: Heard) -> list[Reading]:
    """A clip's speech in the pieces that the engine cuts a live stream into."""
    frame_ms = SPEECH.frame_ms
    size = SAMPLE_RATE_HZ * frame_ms // 1000
    after = np.zeros(2 * PAUSE_NS * SAMPLE_RATE_HZ // NS_PER_S, np.int16)  # ends the last piece
    whole = len(heard.samples) // size * size
    samples = np.concatenate((heard.samples[:whole], after))
    flags = [*heard.voiced[:whole:size].tolist(), *[False] * (len(after) // size)]
    end_ns = len(samples) * NS_PER_S // SAMPLE_RATE_HZ
    envelope = Envelope("clip", 0, 0, end_ns, end_ns, Clock("training", "clip"))
    cutter = PieceCutter(SPEC.max_piece_ms * MS, delay_ns=0)
    cutter.push(Audio(envelope, samples, tuple(flags), frame_ms, 0.0), gap=False, grid_ns=0)
    return [reading for reading in cutter.pop_ready() if reading.final]
