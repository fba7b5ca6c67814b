"""UMCA: unified modality cross-attention, with what comes before it (paper, section 2.2).

Shapes: B batch, T frames, d hidden, 7 unified queries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.dropout import Dropout

TEMPERATURE = 0.3
"""Multiplies attention scores in place of 1/sqrt(d), as published."""
QUERIES = 7
MASKED_SCORE = -1e4
"""Score of a masked frame: its softmax weight is 0 in float32, and float16 can hold it."""


class ProjectedFrames(NamedTuple):
    """One modality's frames as attention reads them.

    Each depends on its own frame alone, so a running stream makes it once and keeps it.
    """

    values: Tensor
    """[..., T, d] what is averaged."""
    keys: Tensor
    """[..., T, d] what the unified queries look for."""
    relevance: Tensor
    """[..., T, 1] the frame's score in the attention pooling."""


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the frames of a mask; all 0 where there is none.

    Args:
        scores: [..., T].
        mask: bool, broadcast to the scores.
    """
    weights = torch.softmax(torch.where(mask, scores, MASKED_SCORE), dim=-1)
    return weights * mask.to(weights.dtype)


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Linear, ReLU and dropout, twice."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(hidden, outputs),
        nn.ReLU(),
        Dropout(dropout),
    )


class Standardisation(nn.Module):
    """Brings each column of frames to one scale: ``(x - centre) / scale``, clipped.

    Columns of classical features are in units of their own (Hz, dB); one of 200 +- 50 beside one
    of .1 would be all that a linear layer sees. The statistics are the training split's, and lie
    among the weights, so that live frames are treated alike.
    """

    LIMIT = 8.0
    """Deviations beyond which a value says no more than that it is extreme."""
    centre: Tensor
    scale: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))

    def forward(self, frames: Tensor) -> Tensor:
        """[..., inputs] frames."""
        return ((frames - self.centre) / self.scale).clamp(-self.LIMIT, self.LIMIT)


class FrameProjection(nn.Module):
    """One modality's frames, each by itself: step 1, and the first half of steps 2 and 6."""

    def __init__(self, inputs: int, dim: int, dropout: float, standardised: bool = False) -> None:
        super().__init__()
        self.standardise = Standardisation(inputs) if standardised else None
        self.value = nn.Linear(inputs, dim)
        self.key = nn.Linear(dim, dim)
        self.relevance = nn.Linear(dim, dim)
        self.context = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.dropout = Dropout(dropout)

    def forward(self, frames: Tensor) -> ProjectedFrames:
        """[..., T, inputs] frames; keys are tanh(K x + k), relevance is 0.3 <tanh(A x + a), c>."""
        if self.standardise is not None:
            frames = self.standardise(frames)
        values = self.dropout(self.value(frames))  # [..., T, d]
        keys = torch.tanh(self.key(values))
        relevance = torch.tanh(self.relevance(values)) @ (TEMPERATURE * self.context)[:, None]
        return ProjectedFrames(values, keys, relevance)


def attention_pooling(frames: ProjectedFrames, mask: Tensor) -> Tensor:
    """Frames of [B, T] and their mask [B, 1, T] to [B, d], their mean weighted by relevance."""
    weights = masked_softmax(frames.relevance.transpose(1, 2), mask)  # [B, 1, T]
    return (weights @ frames.values)[:, 0]


class CrossAttention(nn.Module):
    """The unified queries attend over one modality's frames; one head, values are the frames."""

    def __init__(self, dim: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.output = mlp(dim, dim, outputs, dropout)

    def forward(
        self, queries: Tensor, frames: ProjectedFrames, mask: Tensor, flows: int = 1
    ) -> Tensor:
        """[B, 7, d] queries, frames of [B, T] and their mask [B, 1, T] to [B, 7, outputs].

        Layers run on [B * 7, .]: a runtime fuses product, bias and ReLU of two axes, not of three.

        Args:
            queries: of all rows of the first flow, then of the second, ...
            frames: of one flow, [B / flows, T]: all flows ask the same.
            mask: of the frames.
            flows: how many.
        """
        wanted: Tensor = self.query(queries.flatten(0, 1)).unflatten(0, (-1, QUERIES))
        if flows > 1:  # keys first: their gradient then lies in memory as they do
            wanted = torch.cat(wanted.chunk(flows), 1)
            scores = (frames.keys @ wanted.transpose(1, 2)).transpose(1, 2)
        else:
            scores = wanted @ frames.keys.transpose(1, 2)  # [B, 7, T]
        attended = masked_softmax(TEMPERATURE * scores, mask) @ frames.values  # [B, 7, d]
        if flows > 1:
            attended = torch.cat(attended.chunk(flows, 1))
        output: Tensor = self.output(attended.flatten(0, 1)).unflatten(0, (-1, QUERIES))
        return output


class UnifiedQueries(nn.Module):
    """Seven queries, each through its own Linear-ReLU-dropout, as one batched product."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(QUERIES, dim, dim))  # [query, in, out]
        self.bias = nn.Parameter(torch.empty(QUERIES, 1, dim))
        self.dropout = Dropout(dropout)
        bound = dim**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, mixed: Tensor) -> Tensor:
        """[7, B, d] mixtures to [B, 7, d] queries."""
        queries = torch.relu(torch.baddbmm(self.bias, mixed, self.weight))
        dropped: Tensor = self.dropout(queries.transpose(0, 1))
        return dropped
