"""Several processes, one loss: each runs its rows, all see the whole batch's outputs.

RnC and the root-mean-square terms do not split into per-process means, so outputs are gathered
(with gradients), every process computes the same loss, and gradients are summed. The result is
the single process's, whatever the number of devices. Started by ``torchrun``.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from models.fusion import NetworkOutput


@dataclass(frozen=True)
class Team:
    """This process among the others; alone it is rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Writes files and shows progress."""
        return self.rank == 0

    def bounds(self, rows: int) -> list[int]:
        """Row boundaries of each process's share; fewer rows than processes are not split."""
        if rows < self.size:
            return [0, rows]
        return [rows * i // self.size for i in range(self.size + 1)]

    def share(self, rows: int) -> slice:
        """This process's rows of a batch."""
        bounds = self.bounds(rows)
        if len(bounds) == 2:
            return slice(0, rows)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def gather(self, output: NetworkOutput, rows: int) -> NetworkOutput:
        """The whole batch's outputs from every process's share, gradients kept."""
        bounds = self.bounds(rows)
        if len(bounds) == 2:
            return output
        gathered: dict[str, Any] = {}
        for field in fields(output):
            value = getattr(output, field.name)
            if isinstance(value, Tensor):
                gathered[field.name] = _gather(value, bounds, self.rank)
        return replace(output, **gathered)

    def gather_tensor(self, value: Tensor, rows: int) -> Tensor:
        """As ``gather``, for one tensor of [rows of this share, ...].

        Sequences [rows, T, D] are padded with zeros to the longest of all processes.
        """
        bounds = self.bounds(rows)
        if len(bounds) == 2:
            return value
        if value.ndim >= 3:
            longest = torch.tensor(value.shape[1], device=value.device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            missing = int(longest) - value.shape[1]
            value = nn.functional.pad(value, (0, 0) * (value.ndim - 2) + (0, missing))
        return _gather(value, bounds, self.rank)

    def sum_gradients(self, module: nn.Module, rows: int) -> None:
        """Add up the gradients of all processes (mean, where each ran the whole batch)."""
        if self.size == 1:
            return
        repeated = len(self.bounds(rows)) == 2
        for parameter in module.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                if repeated:
                    parameter.grad /= self.size

    def any(self, flag: bool) -> bool:
        """Whether any process says so: all of them stop, or none."""
        if self.size == 1:
            return flag
        shared = torch.tensor(float(flag), device=self._device())
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared > 0)

    def one(self, value: float) -> float:
        """Rank 0's value, for decisions that every process has to take alike."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self._device())
        dist.broadcast(shared, 0)
        return float(shared)

    def most(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self._device())
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def collect(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    @staticmethod
    def _device() -> torch.device:
        return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

    def agree(self, values: Iterable[Tensor]) -> None:
        """Give every process rank 0's values: parameters and buffers at the start."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, 0)


class SharedNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over the rows of all processes: each has its share of the batch only.

    Torch's own SyncBatchNorm wants a GPU. A process may come with no row at all.
    """

    def _check_input_dim(self, rows: Tensor) -> None:
        """Any [N, C, ...]."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise [N, C, ...] by the moments of every process's rows."""
        if not self.training:
            return super().forward(rows)
        axes = [axis for axis in range(rows.ndim) if axis != 1]
        shape = [1, -1] + [1] * (rows.ndim - 2)
        count = rows.new_tensor([float(rows.numel() // rows.shape[1])])
        sums = torch.cat([rows.sum(axes), rows.square().sum(axes), count])
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
        total, squares, count = sums.split([self.num_features, self.num_features, 1])
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            assert self.running_mean is not None  # as the embedded encoders have it
            assert self.running_var is not None
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        scaled = (rows - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        output: Tensor = scaled * self.weight.view(shape) + self.bias.view(shape)
        return output


def share_norms(module: nn.Module, team: Team) -> None:
    """Have every batch normalisation of a module see the rows of all processes."""
    if team.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            shared = SharedNorm(child.num_features, child.eps, child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(shared, buffer, getattr(child, buffer))
            setattr(module, name, shared.train(child.training))
        else:
            share_norms(child, team)


def join(device: torch.device) -> Team:
    """Join the team that ``torchrun`` started, or be alone."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Its threads end here: left to the interpreter's end they abort the process now and then.
        atexit.register(dist.destroy_process_group)
    return Team(dist.get_rank(), dist.get_world_size())


def _gather(value: Tensor, bounds: list[int], rank: int) -> Tensor:
    gathered: Tensor = _Gather.apply(value, bounds, rank)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """Concatenate every process's rows; the gradient of a row goes back to where it came from.

    Every process computes the same loss from the gathered rows, so its own slice of the
    gradient is complete and nothing needs to be exchanged on the way back.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, bounds: list[int], rank: int) -> Tensor:
        ctx.own = slice(bounds[rank], bounds[rank + 1])
        sizes = [high - low for low, high in pairwise(bounds)]
        padded = value.new_zeros((max(sizes), *value.shape[1:]))
        padded[: value.shape[0]] = value
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own], None, None
