"""UMCA: unified modality cross-attention, and the attention pooling before it (paper, section 2.2).

Shapes: B batch, T frames, d hidden, 7 unified queries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TEMPERATURE = 0.3
"""Multiplies attention scores in place of 1/sqrt(d), as published."""
QUERIES = 7
MASKED_SCORE = -1e4
"""Score of a masked frame: its softmax weight is 0 in float32, and float16 can hold it."""


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
        nn.Dropout(dropout),
        nn.Linear(hidden, outputs),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


class AttentionPooling(nn.Module):
    """Frames to one utterance vector: alpha = softmax_i(0.3 <tanh(A x_i + a), c>)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.input = nn.Linear(dim, dim)
        self.context = nn.Parameter(torch.randn(dim) / dim**0.5)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, d] frames and [B, T] mask to [B, d]."""
        scores = torch.tanh(self.input(frames)) @ self.context  # [B, T]
        weights = masked_softmax(TEMPERATURE * scores, mask)  # [B, T]
        return (weights[:, None, :] @ frames)[:, 0]  # [B, d]


class CrossAttention(nn.Module):
    """The unified queries attend over one modality's frames; one head, values are the frames."""

    def __init__(self, dim: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.output = mlp(dim, dim, outputs, dropout)

    def forward(self, queries: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, 7, d] queries, [B, T, d] frames and [B, T] mask to [B, 7, outputs]."""
        keys = torch.tanh(self.key(frames))  # [B, T, d]
        scores = self.query(queries) @ keys.transpose(1, 2)  # [B, 7, T]
        weights = masked_softmax(TEMPERATURE * scores, mask[:, None, :])
        attended: Tensor = self.output(weights @ frames)  # [B, 7, outputs]
        return attended


class UnifiedQueries(nn.Module):
    """Seven queries, each through its own Linear-ReLU-dropout, as one batched product."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(QUERIES, dim, dim))  # [query, in, out]
        self.bias = nn.Parameter(torch.empty(QUERIES, 1, dim))
        self.dropout = nn.Dropout(dropout)
        bound = dim**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, mixed: Tensor) -> Tensor:
        """[7, B, d] mixtures to [B, 7, d] queries."""
        queries = torch.relu(torch.baddbmm(self.bias, mixed, self.weight))
        dropped: Tensor = self.dropout(queries.transpose(0, 1))
        return dropped
