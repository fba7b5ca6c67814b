"""A cheap start for an adapter: its outputs spell the words in the model's own embeddings.

Before the language model says anything, connectionist temporal classification asks that the joined
frames, one after another, lie near the input embeddings of the transcript's tokens, or near the
embeddings' mean for "nothing new". The model itself is not run, so that a step costs a fiftieth of
one through it, and afterwards it reads something like a text. Ours; SLAM-ASR starts from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from models.text_simulation.llm import FrameConcatenatingAdapter

SHARPNESS = 2.0
"""Log-probability that a unit of squared distance costs."""
BLANK = 0


class Alignment:
    """Targets and loss over the tokens that a training set uses.

    Args:
        embeddings: the language model's input embeddings [V, D].
        tokens: of every training transcript.
    """

    def __init__(self, embeddings: Tensor, tokens: Sequence[Sequence[int]]) -> None:
        used = sorted({token for row in tokens for token in row})
        self._place = {token: index + 1 for index, token in enumerate(used)}
        self._used = used
        embeddings = embeddings.detach().float()
        self.nothing = embeddings.mean(0)
        # [1 + used, D]: in the first place what stands for nothing new.
        self._targets = torch.cat([self.nothing[None], embeddings[used]])
        self._norms = self._targets.square().sum(1)

    def start(self, adapter: FrameConcatenatingAdapter) -> None:
        """Put the adapter's outputs where all tokens are equally far."""
        with torch.no_grad():
            adapter.linear2.bias.copy_(self.nothing)

    def loss(self, outputs: Sequence[Tensor], tokens: Sequence[Sequence[int]]) -> Tensor:
        """Per token, over rows of outputs [G, D] and their transcripts.

        A row with more tokens than outputs can spell says nothing.
        """
        lengths = [len(row) for row in outputs]
        padded = torch.nn.utils.rnn.pad_sequence(list(outputs))  # [G, B, D]
        scores = F.log_softmax(-SHARPNESS * self._distances(padded), dim=-1)
        wanted = [self._place[token] for row in tokens for token in row]
        return F.ctc_loss(
            scores,
            torch.tensor(wanted, device=padded.device),
            torch.tensor(lengths),
            torch.tensor([len(row) for row in tokens]),
            blank=BLANK,
            zero_infinity=True,
        )

    def spelled(self, outputs: Tensor) -> list[int]:
        """Tokens that outputs [G, D] lie nearest to, one after another: read without the model."""
        nearest = self._distances(outputs).argmin(-1).tolist()
        changes = [now for before, now in pairwise([BLANK, *nearest]) if now not in (before, BLANK)]
        return [self._used[place - 1] for place in changes]

    def _distances(self, outputs: Tensor) -> Tensor:
        """[..., 1 + used] squared distance to each target."""
        own = outputs.square().sum(-1, keepdim=True)
        return own + self._norms - 2 * outputs @ self._targets.T
