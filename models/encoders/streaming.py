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
    inputs come the last k frames. A causal encoder's frames are those of the whole clip.
    """

    def __init__(self, spec: SequenceEncoderSpec, pad_row: Floats) -> None:
        """``pad_row`` [F] is what precedes the first input: silence."""
        self.spec = spec
        self._pad_row = pad_row.astype(np.float32, copy=False)
        self.reset()

    def reset(self) -> None:
        """Forget everything: what comes next follows on silence, as after a gap."""
        self._inputs = np.repeat(self._pad_row[None], self.spec.left_context, axis=0)

    @property
    def waiting(self) -> int:
        """Inputs that are not encoded yet."""
        return len(self._inputs) - self.spec.left_context

    def push(self, inputs: Floats) -> None:
        """Add inputs [n, F].

        Raises:
            EncodingError: another number of features, or values that are not finite.
        """
        if inputs.shape[1:] != self._pad_row.shape:
            expected = ["n", *self._pad_row.shape]
            raise EncodingError(f"inputs: expected {expected}, got {list(inputs.shape)}")
        if not np.isfinite(inputs).all():
            raise EncodingError("inputs: expected finite values, got NaN or infinity")
        self._inputs = np.concatenate((self._inputs, inputs.astype(np.float32, copy=False)))

    def pending(self) -> Floats | None:
        """Context and whole strides of new inputs [left_context + k * stride, F]; None if k = 0."""
        strides = self.waiting // self.spec.stride
        if strides == 0:
            return None
        return self._inputs[: self.spec.left_context + strides * self.spec.stride]

    def accept(self, frames: Floats) -> Floats:
        """Take the graph's frames [T, D] for ``pending``; return the k new ones [k, D]."""
        strides = self.waiting // self.spec.stride
        if len(frames) < strides or frames.shape[1] != self.spec.dim:
            raise EncodingError(
                f"frames: expected at least [{strides}, {self.spec.dim}], got {list(frames.shape)}"
            )
        self._inputs = self._inputs[strides * self.spec.stride :].copy()
        return frames[len(frames) - strides :]


def encode_clip(spec: SequenceEncoderSpec, run: Run, inputs: Floats, pad_row: Floats) -> Floats:
    """Encode a whole clip [N, F] at once to [N // stride, D]: what a stream would give."""
    stream = SequenceStream(spec, pad_row)
    stream.push(inputs)
    pending = stream.pending()
    if pending is None:
        return np.zeros((0, spec.dim), np.float32)
    return stream.accept(run(pending[None])[0])


def frame_times_s(
    spec: SequenceEncoderSpec, count: int, input_rate_hz: float
) -> NDArray[np.float64]:
    """Times [count] at which each frame ends, in seconds since the first input."""
    return np.arange(1, count + 1) * spec.stride / input_rate_hz
