"""Chunked encoding: feed only what is new, behind the context that its frames depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.spec import SequenceEncoderSpec

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]
"""A graph: [B, N, F] inputs to [B, T, D] frames."""


class EncodingError(ValueError):
    """Inputs or frames of another shape than the encoder's; expected and actual."""


class SequenceStream:
    """The inputs of one stream that have not been encoded yet, behind their left context.

    ``pending`` gives the graph's input, ``accept`` takes its frames: of the last k * stride
    inputs come the last k frames. A causal encoder's frames are those of the whole clip; one
    with blocks is asked block by block, so ``pending`` may have more as soon as ``accept`` is done.
    """

    def __init__(self, spec: SequenceEncoderSpec, pad_row: Floats) -> None:
        """``pad_row`` [F] is what precedes the first input: silence."""
        self.spec = spec
        self._pad_row = pad_row.astype(np.float32, copy=False)
        self.reset()

    def reset(self) -> None:
        """Forget everything: what comes next follows on silence, as after a gap."""
        self._inputs = np.repeat(self._pad_row[None], self.spec.left_context, axis=0)
        self._voiced: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._asked = 0
        self.consumed = 0
        """Inputs that were encoded or left out so far."""

    @property
    def waiting(self) -> int:
        """Inputs that are not encoded yet."""
        return len(self._inputs) - self.spec.left_context

    def push(self, inputs: Floats, voiced: NDArray[np.bool_] | None = None) -> None:
        """Add inputs [n, F]; ``voiced`` [n] says which of them are speech, None: all.

        Raises:
            EncodingError: another number of features, or values that are not finite.
        """
        if inputs.shape[1:] != self._pad_row.shape:
            expected = ["n", *self._pad_row.shape]
            raise EncodingError(f"inputs: expected {expected}, got {list(inputs.shape)}")
        if not np.isfinite(inputs).all():
            raise EncodingError("inputs: expected finite values, got NaN or infinity")
        self._inputs = np.concatenate((self._inputs, inputs.astype(np.float32, copy=False)))
        flags = np.ones(len(inputs), np.bool_) if voiced is None else voiced
        self._voiced = np.concatenate((self._voiced, flags))

    def pending(self, blocks: int = 1) -> Floats | None:
        """Context and whole strides of new inputs [left_context + k * stride, F]; None if k = 0.

        With blocks, k is the size of as many as ``blocks``; one without any voice is passed over
        where it would be the first. Several share one context, and frames differ from those of
        one block at a time: the first ones see what is said after them.
        """
        size = self.spec.block * self.spec.stride
        if self.spec.block > 1:
            while self.waiting >= size and not self._voiced[:size].any():
                self._consume(size)
        self._asked = self._strides(blocks)
        if self._asked == 0:
            return None
        return self._inputs[: self.spec.left_context + self._asked * self.spec.stride]

    def skip(self, count: int) -> int:
        """Pass over ``count`` waiting inputs, in whole runs of the graph; return how many.

        They stay the context of what follows.
        """
        size = max(self.spec.block, 1) * self.spec.stride
        count = min(count, self.waiting) // size * size
        if count:
            self._consume(count)
        return count

    def accept(self, frames: Floats) -> Floats:
        """Take the graph's frames [T, D] for ``pending``; return the k new ones [k, D]."""
        strides, self._asked = self._asked or self._strides(1), 0
        if len(frames) < strides or frames.shape[1] != self.spec.dim:
            raise EncodingError(
                f"frames: expected at least [{strides}, {self.spec.dim}], got {list(frames.shape)}"
            )
        self._consume(strides * self.spec.stride)
        return frames[len(frames) - strides :]

    def _strides(self, blocks: int) -> int:
        if self.spec.block > 1:
            strides = blocks * self.spec.block
            return strides if self.waiting >= strides * self.spec.stride else 0
        return self.waiting // self.spec.stride

    def _consume(self, count: int) -> None:
        self._inputs = self._inputs[count:].copy()
        self._voiced = self._voiced[count:]
        self.consumed += count


def encode_clip(spec: SequenceEncoderSpec, run: Run, inputs: Floats, pad_row: Floats) -> Floats:
    """Encode a whole clip [N, F] at once to [N // stride, D]: what a stream would give.

    With blocks, as many frames as whole blocks have.
    """
    frames, _ = encode_voiced(spec, run, inputs, pad_row, np.ones(len(inputs), np.bool_))
    return frames


def encode_voiced(
    spec: SequenceEncoderSpec,
    run: Run,
    inputs: Floats,
    pad_row: Floats,
    voiced: NDArray[np.bool_],
) -> tuple[Floats, NDArray[np.int64]]:
    """Encode a whole clip [N, F], of whose inputs ``voiced`` [N] are speech.

    Returns:
        Frames [T, D] as a stream would give them, and the number of inputs [T] up to the end of
        each.
    """
    stream = SequenceStream(spec, pad_row)
    stream.push(inputs, voiced)
    found: list[Floats] = []
    ends: list[NDArray[np.int64]] = []
    while (pending := stream.pending()) is not None:
        first = stream.consumed
        found.append(stream.accept(run(pending[None])[0]))
        ends.append(first + spec.stride * np.arange(1, len(found[-1]) + 1, dtype=np.int64))
    if not found:
        return np.zeros((0, spec.dim), np.float32), np.zeros(0, np.int64)
    return np.concatenate(found), np.concatenate(ends)
