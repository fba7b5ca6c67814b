"""One step of batch-normalised layers, alone or under torchrun, the rows split unevenly.

Prints checksums of the output, of the gradients and of the running moments of every process.
"""

import json
import sys

import torch
from torch import nn

from trainer.distributed import join, share_norms

SPLIT = int(sys.argv[1])
ROWS = 9

torch.set_num_threads(1)
torch.manual_seed(0)
team = join(torch.device("cpu"))
layers = nn.Sequential(
    nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6),
    nn.BatchNorm1d(6),
).double()  # fmt: skip
rows = torch.randn(ROWS, 1, 6, 6, dtype=torch.float64) * 3 + 1
target = torch.randn(ROWS, 6, dtype=torch.float64)
if team.size > 1:
    share_norms(layers, team)
    own = slice(0, SPLIT) if team.leads else slice(SPLIT, ROWS)
    rows, target = rows[own], target[own]
output = layers(rows)
loss = ((output - target).square() * target).sum()
loss.backward()
team.sum_gradients(layers, ROWS)
gradients = [p.grad for p in layers.parameters() if p.grad is not None]
told = {
    "loss": float(loss),
    "gradient": float(sum(g.square().sum() for g in gradients)),
    "moments": [float(b.double().square().sum()) for b in layers.buffers() if b.ndim],
    "evaluated": float(layers.eval()(torch.ones(2, 1, 6, 6, dtype=torch.float64)).sum()),
}
every = team.collect(told)
if team.leads:
    print(json.dumps(every))
