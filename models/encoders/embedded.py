"""The embedded encoders: a small causal convolutional voice network and a small face network.

Convolutions over time are valid, without padding: the caller supplies the left context, so that a
chunk behind its context gives exactly what the whole clip gives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dropout import Dropout
from models.encoders.specs import (
    STEM_KERNEL,
    STEM_STRIDES,
    VOICE_DILATIONS,
    VOICE_KERNEL,
    VOICE_STEM_CHANNELS,
)
from models.preprocessing import N_MELS
from models.spec import ImageEncoderSpec, SequenceEncoderSpec


class ChannelNorm(nn.Module):
    """Normalises every frame over its channels: causal, and blind to padding and companions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return centred * torch.rsqrt(variance + 1e-5) * self.scale + self.shift


class CausalBlock(nn.Module):
    """Dilated valid convolution with a residual that is cut to the frames that remain."""

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.spread = nn.Conv1d(channels, channels, kernel, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.dropout = Dropout(dropout)
        self.lost = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T - lost]."""
        y = F.relu(self.spread(self.norm(x)))
        added: Tensor = self.dropout(self.mix(y))
        return x[:, :, self.lost :] + added


class TemporalBlock(nn.Module):
    """Dilated valid convolution, batch-normalised, with a residual cut to the frames that remain.

    At inference the normalisation is a fixed scale per channel: causal, and nothing to compute.
    """

    def __init__(self, channels: int, kernel: int, dilation: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, kernel, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = Dropout(dropout)
        self.lost = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T - lost]."""
        added: Tensor = self.dropout(F.relu(self.norm(self.convolution(x))))
        return x[:, :, self.lost :] + added


class VoiceEncoder(nn.Module):
    """Log-mel [B, N, 64] to frames [B, T, D] at a quarter of the rate; about 0.25 M parameters.

    The stem convolves over time and frequency: a voice's harmonics look alike wherever its pitch
    lies, and with a thousand acted sentences that sharing is what generalises to other speakers.
    """

    def __init__(self, spec: SequenceEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        channels = spec.channels or 128
        self.input_norm = nn.BatchNorm1d(N_MELS)
        widths = (1, *VOICE_STEM_CHANNELS)
        self.stem = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, STEM_KERNEL, (stride, 2), (0, 1), bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            )
            for inputs, outputs, stride in zip(widths[:-1], widths[1:], STEM_STRIDES, strict=True)
        )
        bands = N_MELS >> len(STEM_STRIDES)
        self.join = nn.Sequential(
            nn.Conv1d(widths[-1] * bands, channels, 1, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(TemporalBlock(channels, VOICE_KERNEL, dilation) for dilation in VOICE_DILATIONS)
        )
        self.output = nn.Conv1d(channels, spec.dim, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Encode; of the last k * stride inputs come the last k frames."""
        x = self.input_norm(mel.transpose(1, 2)).transpose(1, 2)[:, None]  # [B, 1, N, 64]
        for layer in self.stem:
            x = layer(x)
        x = self.join(x.transpose(2, 3).flatten(1, 2))  # [B, C * bands, T] to [B, C, T]
        frames: Tensor = self.output(self.blocks(x))
        return frames.transpose(1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the first may halve the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class FaceEncoder(nn.Module):
    """Normalised face crops [B, C, S, S] to frames [B, D]; about 0.5 M parameters.

    The first convolution keeps the full resolution: a mouth is a few pixels high in a 48 px crop.
    """

    def __init__(self, spec: ImageEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        c = spec.channels or 24
        self.stem = nn.Sequential(
            nn.Conv2d(spec.channels_in, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU()
        )  # S
        self.stages = nn.Sequential(
            ResidualBlock(c, 2 * c, 2),  # S / 2
            ResidualBlock(2 * c, 4 * c, 2),  # S / 4
            ResidualBlock(4 * c, 6 * c, 2),  # S / 8
        )
        self.dropout = Dropout(0.2)
        self.output = nn.Linear(6 * c, spec.dim)

    def forward(self, crops: Tensor) -> Tensor:
        """Encode each crop by itself."""
        pooled = self.stages(self.stem(crops)).mean((2, 3))
        frames: Tensor = self.output(self.dropout(pooled))
        return frames
