"""What every encoder is: a module with a specification that says its rate, width and context."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from models.spec import ImageEncoderSpec, SequenceEncoderSpec


class SequenceEncoder(Protocol):
    """Samples or log-mel in, frames out.

    Of the last k * ``spec.stride`` inputs come the last k frames, exact behind
    ``spec.left_context`` more inputs; ``spec.causal`` tells whether what follows matters.
    """

    spec: SequenceEncoderSpec

    def __call__(self, inputs: Tensor) -> Tensor:
        """[B, N, F] log-mel (or [B, N] samples) to [B, T, spec.dim]."""
        ...


class ImageEncoder(Protocol):
    """Face crops in, one frame each out."""

    spec: ImageEncoderSpec

    def __call__(self, crops: Tensor) -> Tensor:
        """[B, C, S, S] to [B, spec.dim]."""
        ...
