"""What a card can do at most: measured copy and matmul rates, and what a graph asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.backends.protocol import Inputs
from engine.backends.pytorch import PytorchBackend

REPEATS = 20


@dataclass(frozen=True)
class Rates:
    """Rates per second of one device, measured."""

    copy_bytes: float
    """Bytes read plus bytes written by a copy within its memory."""
    link_bytes: float
    """Bytes from pinned host memory to the device."""
    matmul_flops: dict[str, float]
    """By type: float32, float16, bfloat16."""

    def limit_s(self, work: Work, precision: str) -> float:
        """The least time that ``work`` can take, transfers to and from the host included."""
        compute = work.flops / self.matmul_flops[precision]
        memory = (work.weight_bytes + work.io_bytes) / self.copy_bytes
        return max(compute, memory) + work.io_bytes / self.link_bytes


@dataclass(frozen=True)
class Work:
    """What one run of a graph must do at least."""

    flops: int
    weight_bytes: float
    io_bytes: int


def measure_rates(device: torch.device, size: int) -> Rates:
    """Measure with buffers of ``size`` MiB and matrices that fit the same scale."""
    count = size * 2**20
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.empty(count // 4, dtype=torch.uint8, pin_memory=device.type == "cuda")
    copy_s = seconds(device, lambda: target.copy_(source))
    link_s = seconds(device, lambda: target[: count // 4].copy_(host, non_blocking=True))
    side = 8192 if size >= 1024 else 256
    flops = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        a = torch.randn(side, side, device=device).to(dtype)
        b = torch.randn(side, side, device=device).to(dtype)
        took = seconds(device, lambda a=a, b=b: a @ b)
        flops[str(dtype).removeprefix("torch.")] = 2 * side**3 / took
    return Rates(2 * count / copy_s, count / 4 / link_s, flops)


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds of one of many runs, queued together."""
    import time

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        work()
    wait()
    begin = time.perf_counter()
    for _ in range(REPEATS):
        work()
    wait()
    return (time.perf_counter() - begin) / REPEATS


def work_of(backend: PytorchBackend, graph: str, inputs: Inputs, bytes_per_weight: int) -> Work:
    """Count a graph's floating point operations by running it, and its bytes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        outputs = backend.run(graph, inputs)
    weights = backend.parameters(graph)
    io_bytes = sum(v.nbytes for v in (*inputs.values(), *outputs.values()))
    return Work(counter.get_total_flops(), weights * bytes_per_weight, io_bytes)
