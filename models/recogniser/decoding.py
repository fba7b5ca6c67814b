"""Greedy decoding of speech with a recogniser's ONNX graphs: numpy around ONNX Runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.recogniser.shape import (
    END,
    FIELD_SAMPLES,
    FIRST_TEXT_TOKEN,
    FRAME_SAMPLES,
    START,
)
from models.spec import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]
Run = Callable[[str, Mapping[str, NDArray[np.generic]]], Mapping[str, Floats]]
"""Runs a graph by its name: inputs by name to outputs by name."""

TOKENS_PER_S = 10.0
"""More tokens than this are a loop. The model's authors stop at 6.5, which is too early for people
who talk fast: 9 tokens a second were met, well understood (docs/words.md)."""
LEAST_TOKENS = 8
LEAST_LOOP = 2
"""Tokens that a decoder must say again at its limit before that is taken for a loop."""
SURE_LOOP = 6
"""Tokens that it must say again, twice over, before it is stopped: nobody who was recorded did."""
BYTE_TOKEN = re.compile(r"^<0x([0-9A-F]{2})>$")
SPACE = "▁"


class RecogniserError(UserError, ValueError):
    """A recogniser whose parts do not fit together; expected and actual."""


@dataclass(frozen=True)
class Transcription:
    """What was understood of a piece of speech, and how surely."""

    text: str
    tokens: tuple[int, ...]
    """Without the ones that begin and end it."""
    mean_logprob: float
    """Mean log-probability of its tokens, the end included; 0 is certain."""
    finished: bool
    """Whether the decoder ended it, or only said again what it had said until the limit."""


NOTHING = Transcription("", (), 0.0, True)


class TokenTable:
    """Texts of the tokens."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = [_bytes_of(piece) for piece in pieces]

    def __len__(self) -> int:
        return len(self._pieces)

    @classmethod
    def read(cls, path: Path) -> TokenTable:
        """Read a table: a JSON list of texts.

        Raises:
            RecogniserError: it is not one.
        """
        try:
            pieces = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecogniserError(f"{path}: expected a JSON list of tokens: {error}") from None
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise RecogniserError(f"{path}: expected a JSON list of texts")
        return cls(pieces)

    def text(self, tokens: Sequence[int]) -> str:
        """Join tokens to text; those that the table lacks have none."""
        known = [
            self._pieces[token] for token in tokens if FIRST_TEXT_TOKEN <= token < len(self._pieces)
        ]
        return b"".join(known).decode("utf-8", "replace").replace(SPACE, " ").strip()


def _bytes_of(piece: str) -> bytes:
    match = BYTE_TOKEN.match(piece)
    return bytes([int(match[1], 16)]) if match else piece.encode()


def token_limit(samples: int) -> int:
    """Tokens that a sound of so many samples may have."""
    return max(LEAST_TOKENS, int(samples / SAMPLE_RATE_HZ * TOKENS_PER_S) + 1)


def looped(tokens: Sequence[Hashable]) -> int:
    """Number of tokens at the end that only say again what was said before.

    A greedy decoder that hears a sentence break off begins it again, and again, until its limit: of
    natural voices one tentative reading in ten did.
    """
    count = len(tokens)
    longest = 0
    for width in range(1, count):
        same = 0
        while same < count - width and tokens[-1 - same] == tokens[-1 - same - width]:
            same += 1
        longest = max(longest, same)
    return longest if longest >= LEAST_LOOP else 0


def loops_on(tokens: Sequence[int]) -> bool:
    """Whether the tokens end in what was said three times: a decoder will not leave that loop."""
    for width in range(1, len(tokens) // 3 + 1):
        same = max(2 * width, SURE_LOOP)
        if same + width <= len(tokens) and tokens[-same:] == tokens[-same - width : -width]:
            return True
    return False


def transcription(
    text_of: Callable[[Sequence[int]], str],
    tokens: Sequence[int],
    logprobs: Sequence[float],
    finished: bool,
) -> Transcription:
    """What a decoder wrote, without the loop that it ran into its limit with, or was stopped in.

    Args:
        text_of: tokens to text.
        tokens: without the ones that begin and end it.
        logprobs: of the tokens, and of the end where there is one.
        finished: whether there is.
    """
    stop = next((n for n in range(len(tokens) + 1) if loops_on(tokens[:n])), None)
    if stop is not None:
        tokens, finished = tokens[:stop], False
    if not finished:
        again = looped([_sound_of(text_of([token]), token) for token in tokens])
        tokens, finished = tokens[: len(tokens) - again], again > 0
        logprobs = logprobs[: len(tokens)]
    mean = float(np.mean(logprobs)) if len(logprobs) else 0.0
    return Transcription(text_of(tokens), tuple(tokens), mean, finished)


def _sound_of(text: str, token: int) -> str | int:
    """The same for a token with a capital, at a sentence's beginning, and without one."""
    return token if not text or "\ufffd" in text else text.casefold()


class GreedyDecoder:
    """Turns speech into text with four graphs: lower, upper, cross and step.

    Args:
        run: runs them.
        tokens: what the decoder's ids mean.
        cache: sizes [2 L, H, d] of the decoder's cache.
    """

    def __init__(self, run: Run, tokens: TokenTable, cache: tuple[int, int, int]) -> None:
        self._run = run
        self._tokens = tokens
        parts, heads, width = cache
        self._empty = np.zeros((parts, 1, heads, 0, width), np.float32)

    def transcribe(self, samples: Floats) -> Transcription:
        """Recognise one piece of speech [N] at 16 kHz; too short a one has no text."""
        if len(samples) < FIELD_SAMPLES:
            return NOTHING
        # Fewer than three frames make the decoder guess: silence after them costs nothing.
        if len(samples) < FIELD_SAMPLES + 2 * FRAME_SAMPLES:
            padding = FIELD_SAMPLES + 2 * FRAME_SAMPLES - len(samples)
            samples = np.pad(samples, (0, padding))
        states = self._run("recogniser_lower", {"input": samples[None]})["frames"]
        return self.decode(states, token_limit(len(samples)))

    def rehearse(self, samples: Floats, tokens: int) -> None:
        """Do the work of a piece of speech [N] with so many tokens, whatever is in it."""
        states = self._run("recogniser_lower", {"input": samples[None]})["frames"]
        self.decode(states, tokens, least=tokens)

    def decode(self, states: Floats, limit: int, least: int = 0) -> Transcription:
        """Write the text of middle states [1, T, D].

        Args:
            states: of ``recogniser_lower``.
            limit: most tokens.
            least: the text does not end before so many.
        """
        final = self._run("recogniser_upper", {"frames": states})["final"]
        sound = self._run("recogniser_cross", {"final": final})["sound"]
        past: Floats = self._empty
        token = START
        tokens: list[int] = []
        logprobs: list[float] = []
        finished = False
        while len(tokens) < limit:
            output = self._run(
                "recogniser_decoder",
                {"tokens": np.array([token], np.int64), "past": past, "sound": sound},
            )
            past, logits = output["cache"], output["logits"][0]
            token = int(logits.argmax())
            logprobs.append(-float(np.log(np.exp(logits - logits[token]).sum())))
            if token == END and len(tokens) >= least:
                finished = True
                break
            tokens.append(token)
            if not least and loops_on(tokens):
                break
        return transcription(self._tokens.text, tokens, logprobs, finished)
