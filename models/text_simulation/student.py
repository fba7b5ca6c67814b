"""The student: a small network from audio frames to the text encoder's states.

Distilled by the trainer; causal, so that it runs along with the stream.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.embedded import CausalBlock, ChannelNorm
from models.encoders.specs import STUDENT_DILATIONS, STUDENT_KERNEL
from models.spec import SequenceEncoderSpec


class StudentTextSimulation(nn.Module):
    """Audio frames [B, N, Da] to simulated text frames [B, T, Dt] at a fifth of the rate."""

    def __init__(self, spec: SequenceEncoderSpec, input_dim: int) -> None:
        super().__init__()
        self.spec = spec
        channels = spec.channels or 128
        self.input = nn.Conv1d(input_dim, channels, 1)
        self.blocks = nn.Sequential(
            *(CausalBlock(channels, STUDENT_KERNEL, dilation) for dilation in STUDENT_DILATIONS)
        )
        self.norm = ChannelNorm(channels)
        self.gather = nn.Conv1d(channels, 2 * channels, spec.stride, stride=spec.stride)
        self.output = nn.Conv1d(2 * channels, spec.dim, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Simulate; of the last k * stride audio frames come the last k text frames."""
        x = self.norm(self.blocks(self.input(frames.transpose(1, 2))))
        states: Tensor = self.output(F.relu(self.gather(x)))
        return states.transpose(1, 2)
