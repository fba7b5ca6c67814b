"""MIA: modality imagination autoencoder (paper, section 2.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Residual = Literal["text", "transition"]


class ImaginationAutoencoder(nn.Module):
    """Imagines one modality's representation from all three.

    x = Linear(ReLU(Linear([x_a; x_t; x_v]))), e = Linear(d -> k), out = Linear(k -> d)(e) +
    residual. The residual is the imagined modality's own representation (``text``) or the
    output of the transition (``transition``); both are published.
    """

    def __init__(self, dim: int, code: int, residual: Residual) -> None:
        super().__init__()
        self.transition = nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.encoder = nn.Linear(dim, code)
        self.decoder = nn.Linear(code, dim)
        self.residual = residual

    def forward(self, audio: Tensor, text: Tensor, video: Tensor, own: Tensor) -> Tensor:
        """Three [..., d] representations and the imagined one's own (or zeros) to [..., d]."""
        mixed: Tensor = self.transition(torch.cat([audio, text, video], dim=-1))
        imagined: Tensor = self.decoder(self.encoder(mixed))
        return imagined + (mixed if self.residual == "transition" else own)
