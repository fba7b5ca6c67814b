"""One training step, alone or under torchrun: prints the loss and a checksum of its gradients."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from models.network import SentimentNetwork
from models.spec import NetworkSpec
from trainer.data.batches import Batches
from trainer.data.samples import FrameShapes, Sample, SampleList
from trainer.distributed import join
from trainer.fit import batch_loss
from trainer.model import SentimentModel
from trainer.recipe import Loss

ROWS = int(sys.argv[1])

torch.set_num_threads(1)
torch.manual_seed(0)
team = join(torch.device("cpu"))
spec = NetworkSpec(
    audio_dim=6, text_dim=5, video_dim=4, hidden_dim=16, fused_dim=8, dropout=0, input_dropout=0
)


class Student(nn.Module):
    """A text simulation of one layer, distilled to the text's states."""

    spec = SimpleNamespace(stride=1, left_context=0)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[B, N, 6] to [B, N, 5]."""
        return self.layer(inputs)


model = SentimentModel(SentimentNetwork(spec), text_simulation=Student())
generator = np.random.default_rng(0)
samples = []
for index in range(ROWS):
    arrays = {
        "audio": generator.normal(size=(5 + index, 6)),
        "text": generator.normal(size=(3 + index % 2, 5)) if index % 3 else None,
        "simulated_text": generator.normal(size=(2, 5)),
        "video": generator.normal(size=(4, 4)) if index % 2 else None,
    }
    samples.append(Sample(str(index), float(generator.uniform(-3, 3)), 1.0, **arrays))
batches = Batches(SampleList(tuple(samples)), FrameShapes((6,), (5,), (4,)), ROWS, team=team)
(batch,) = batches.epoch(0)
terms = batch_loss(model, batch, Loss(), team)
terms.total.backward()
team.sum_gradients(model, ROWS)
parts = team.collect(len(batch.valence))
gradients = [p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]
if team.leads:
    told = {"loss": terms.total.item(), "gradient": float(sum(gradients))}
    print(json.dumps(told | {"collated": parts}))
