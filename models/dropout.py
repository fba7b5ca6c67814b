"""Dropout that draws bits where torch draws numbers: on a CPU a tenth of the time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BITS = 16
"""Random bits per value: a share of p is dropped, to the next 1/65536."""


class Dropout(nn.Dropout):
    """``nn.Dropout``, but for how a CPU draws: four values take one random number of 64 bits.

    torch draws a Bernoulli number per value, which was a tenth of a training step.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Zeros for a share p of the values, and the others times 1 / (1 - p)."""
        if not self.training or self.p == 0 or self.p == 1 or values.device.type != "cpu":
            result: Tensor = super().forward(values)
            return result
        dropped = round(self.p * 2**BITS)
        count = values.numel()
        numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = numbers.view(torch.int16)[:count].view(values.shape)
        # Above p = 1 - 2^-17 all would be dropped.
        least = min(dropped, 2**BITS - 1) - 2 ** (BITS - 1)
        kept: Tensor = (bits >= least).to(values.dtype)
        return values * kept.mul_(2**BITS / (2**BITS - least - 2 ** (BITS - 1)))
