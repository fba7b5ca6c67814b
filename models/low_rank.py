"""Low-rank updates (LoRA, arXiv 2106.09685): a pretrained model tuned by 3 % of its weights.

The bundle then carries 1.3 MB and not the model; the updates are added to the model's own
weights when it is loaded, so a tuned model costs what the original costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pretrained import PretrainedError

SCALE = 2.0
"""Updates count this much: the usual alpha = 2 * rank."""


class LowRankLinear(nn.Module):
    """A frozen linear layer, and a trained update of small rank: W x + b + s * up (down x)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        update = F.linear(F.linear(x, self.down), self.up)
        result: Tensor = self.base(x) + SCALE * update
        return result


def attach(model: nn.Module, rank: int) -> None:
    """Freeze a model and give each linear layer inside its blocks an update that learns.

    Layers outside of blocks (embeddings, poolers) have no update.
    """
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and any(part.isdigit() for part in name.split(".")):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, LowRankLinear(module, rank))


def updates(model: nn.Module) -> dict[str, Tensor]:
    """The updates of a model that ``attach`` was applied to, float16, by layer."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            found[f"{name}.down"] = module.down.detach().half().cpu().contiguous()
            found[f"{name}.up"] = module.up.detach().half().cpu().contiguous()
    return found


def merge(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Add updates to the weights of the untouched model that they were trained on.

    Raises:
        PretrainedError: they belong to another model.
    """
    names = {key.rpartition(".")[0] for key in tensors}
    for name in names:
        try:
            layer = model.get_submodule(name)
            down, up = tensors[f"{name}.down"].float(), tensors[f"{name}.up"].float()
        except (AttributeError, KeyError):
            raise PretrainedError(f"{source}: the adapter's layer {name!r} is not in it") from None
        weight = getattr(layer, "weight", None)
        shape = (up.shape[0], down.shape[1])
        if not isinstance(weight, Tensor) or tuple(weight.shape) != shape:
            actual = None if weight is None else list(weight.shape)
            raise PretrainedError(f"{source}: {name}: expected {list(shape)}, got {actual}")
        with torch.no_grad():
            weight += (SCALE * up @ down).to(weight)


def read(path: Path) -> dict[str, Tensor]:
    """Updates from a safetensors file.

    Raises:
        PretrainedError: unreadable.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # safetensors raises a type of its own
        raise PretrainedError(f"{path}: cannot be read: {error}") from None
    return tensors
