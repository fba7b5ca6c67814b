"""Sizes of a recogniser's network, torch-free."""

from __future__ import annotations

from models.spec import Spec

STEM = ((127, 64), (7, 3), (3, 2))
"""Kernel and stride of the three convolutions."""
FRAME_SAMPLES = 64 * 3 * 2
"""Samples at 16 kHz from one frame to the next: 24 ms."""
FIELD_SAMPLES = 127 + (7 - 1) * 64 + (3 - 1) * 64 * 3
"""Samples that one frame sees before any attention: 56 ms; a shorter sound has no frame."""
START, END = 1, 2
"""Tokens that begin and end every text."""
FIRST_TEXT_TOKEN = 3


class RecogniserShape(Spec):
    """Sizes of Moonshine (arXiv 2410.15608); the defaults are the base model's."""

    dim: int = 416
    heads: int = 8
    encoder_layers: int = 8
    decoder_layers: int = 8
    feed_forward: int = 1664
    rotary_dim: int = 32
    """Of each head's width, the part that carries the position."""
    vocabulary: int = 32_768

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.heads
