"""The GPU path against its limits, in one table: ``python benchmarks/gpu.py``.

For each graph and batch: PyTorch eager (float32) and compiled (bfloat16), ONNX Runtime on CUDA,
TensorRT, TensorRT with CUDA graphs; each run goes from arrays on the host to arrays on the host,
as in the worker. The limit is the card's own, from its measured copy and matmul rates. Then
streams at 2 scores/s end to end, and the language model path with random weights of 7 G.

Without a GPU it says so and ends; ``--rehearse`` runs the script's every part on the CPU at toy
sizes, to see that it works.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import harness
from engine.backends.protocol import Array, Backend, BackendError, Inputs
from engine.backends.tensorrt import cuda
from engine.backends.tensorrt.profiles import Layout, layouts
from engine.settings import TensorrtSettings
from models import bundle as bundles

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STREAMS = (64, 128, 192, 256, 384, 512, 768, 1024)
LLM_BATCHES = (1, 4, 16, 64)
WARM_RUNS = 10
EAGER = "PyTorch eager"


@dataclass(frozen=True)
class Row:
    """One graph, batch and backend."""

    graph: str
    batch: int
    backend: str
    precision: str
    median_ms: float
    p99_ms: float
    limit_ms: float
    times_eager: float

    @property
    def windows_per_s(self) -> float:
        return 1000 * self.batch / self.median_ms

    def cells(self) -> tuple[str, ...]:
        return (
            self.graph, str(self.batch), self.backend, self.precision, f"{self.median_ms:.3f}",
            f"{self.p99_ms:.3f}", f"{self.windows_per_s:,.0f}", f"{self.limit_ms:.4f}",
            f"{self.limit_ms / self.median_ms:.1%}", f"{self.times_eager:.2f}",
        )  # fmt: skip


COLUMNS = ("graph", "batch", "backend", "precision", "median ms", "p99 ms", "windows/s",
           "limit ms", "of limit", "x eager")  # fmt: skip


def main(
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
    precision: Annotated[str, typer.Option(help="Of TensorRT: fp16, bf16 or fp32.")] = "fp16",
    seconds: Annotated[float, typer.Option(help="Per timed cell, and a fifth per stream.")] = 1.0,
    stream_seconds: Annotated[float, typer.Option(help="Per number of streams.")] = 15.0,
    plans_dir: Annotated[Path | None, typer.Option(help="Plan cache; none: a new one.")] = None,
    skip_llm: Annotated[bool, typer.Option("--skip-llm")] = False,
    skip_streams: Annotated[bool, typer.Option("--skip-streams")] = False,
    csv_out: Annotated[Path | None, typer.Option("--csv", help="All rows as CSV.")] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="On the CPU, at toy sizes.")] = False,
) -> None:
    """Measure everything, or say what is missing."""
    console = Console(width=140)
    if not rehearse and (reason := _missing()) is not None:
        console.print(f"no GPU figures: {reason}", soft_wrap=True)
        raise typer.Exit(2)
    if rehearse:
        console.print("REHEARSAL on the CPU at toy sizes, in place of CUDA too: no figure counts")
    opened = bundles.open(bundle)
    batches = (1, 2) if rehearse else BATCHES
    with tempfile.TemporaryDirectory() as folder:
        options = TensorrtSettings.model_validate(
            {"precision": precision, "max_batch": max(batches), "plans_dir": plans_dir or folder}
        )
        rates, rows = measure_graphs(console, opened, options, batches, seconds, rehearse)
        show(console, rows, csv_out)
        if not skip_streams:
            measure_streams(console, bundle, options, 3.0 if rehearse else stream_seconds, rehearse)
        if not skip_llm:
            measure_language_model(console, rates, rehearse)


def _missing() -> str | None:
    if (reason := cuda.missing()) is not None:
        return reason
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} is built without CUDA: install its CUDA build"
    return None


def measure_graphs(
    console: Console,
    bundle: bundles.Bundle,
    options: TensorrtSettings,
    batches: tuple[int, ...],
    seconds: float,
    rehearse: bool,
) -> tuple[object, list[Row]]:
    """Time every graph on every backend that is available."""
    import torch

    from benchmarks.roofline import measure_rates, work_of
    from engine.backends.pytorch import PytorchBackend

    device = torch.device("cpu" if rehearse else "cuda:0")
    rates = measure_rates(device, 16 if rehearse else 2048)
    matmul = ", ".join(f"{k} {v / 1e12:.1f}" for k, v in rates.matmul_flops.items())
    name = "CPU" if rehearse else torch.cuda.get_device_name(0)
    console.print(
        f"{name}: copy {rates.copy_bytes / 1e12:.2f} TB/s, host to device "
        f"{rates.link_bytes / 1e9:.1f} GB/s, matmul TFLOP/s: {matmul}"
    )
    eager = PytorchBackend(bundle, str(device), precision="float32", compiler="none")
    backends = dict(_backends(console, bundle, options, eager, rehearse))
    rows = []
    for graph, layout in layouts(bundle.config, max(batches)).items():
        for batch in batches:
            inputs = random_inputs(layout, batch)
            base_ms = 0.0
            for label, backend in backends.items():
                median_ms, p99_ms = timed(lambda b=backend: b.run(graph, inputs), seconds)  # noqa: B023
                base_ms = median_ms if label == EAGER else base_ms
                wide = backend.precision == "float32"
                work = work_of(eager, graph, inputs, 4 if wide else 2)
                limit_ms = 1000 * rates.limit_s(work, backend.precision)
                rows.append(
                    Row(graph, batch, label, backend.precision, median_ms, p99_ms, limit_ms,
                        base_ms / median_ms)
                )  # fmt: skip
    return rates, rows


def _backends(
    console: Console,
    bundle: bundles.Bundle,
    options: TensorrtSettings,
    eager: Backend,
    rehearse: bool,
) -> Iterator[tuple[str, Backend]]:
    from engine.backends.onnx import OnnxBackend
    from engine.backends.pytorch import PytorchBackend
    from engine.backends.tensorrt import loading

    yield EAGER, eager
    plain = options.model_copy(update={"cuda_graphs": False})
    others: dict[str, Callable[[], Backend]] = {
        "PyTorch compiled": lambda: PytorchBackend(
            bundle, eager.device, precision="bfloat16", compiler="eager" if rehearse else "inductor"
        ),
        "ONNX Runtime CUDA": lambda: OnnxBackend(bundle, "cpu" if rehearse else "cuda"),
        "TensorRT": lambda: loading.load(bundle, plain),
        "TensorRT + CUDA graph": lambda: loading.load(bundle, options),
    }
    for label, make in others.items():
        begin = time.perf_counter()
        try:
            backend = make()
            backend.warm_up()
        except BackendError as error:
            console.print(f"{label}: not measured: {error}", soft_wrap=True)
        else:
            console.print(f"{label}: ready in {time.perf_counter() - begin:.1f} s")
            yield label, backend


def random_inputs(layout: Layout, batch: int) -> Inputs:
    """Inputs of a running stream's shapes, everything present, the text simulated."""
    rng = np.random.default_rng(batch)
    inputs: dict[str, Array] = {}
    for entry in layout.ranges:
        shape = layout.usual(batch)[entry.name]
        inputs[entry.name] = (
            np.ones(shape, np.bool_) if entry.boolean else rng.standard_normal(shape, np.float32)
        )
    return inputs


def timed(run: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median and p99 of one call, in milliseconds."""
    for _ in range(WARM_RUNS):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < WARM_RUNS:
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin))
    median, p99 = np.percentile(times, (50, 99))
    return float(median), float(p99)


def show(console: Console, rows: list[Row], csv_out: Path | None) -> None:
    table = Table(title="host to host, per run; limit: the card's roofline and its link")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index in (0, 2, 3) else "right")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)
    if csv_out is not None:
        with csv_out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(row.cells() for row in rows)
        console.print(f"wrote {csv_out}")


def measure_streams(
    console: Console, bundle: str, options: TensorrtSettings, seconds: float, rehearse: bool
) -> None:
    """Raise the number of streams at 2 scores/s until windows are dropped."""
    clip = harness.default_clip()
    table = Table(title=f"streams at 2 scores/s, end to end, {clip.name}, {seconds:.0f} s each")
    for column in ("backend", "streams", "scores", "of", "dropped", "unsent", "p50 ms", "p99 ms",
                   "core"):  # fmt: skip
        table.add_column(column, justify="right")
    held = 0
    for count in (2,) if rehearse else STREAMS:
        run = harness.measure(
            clip, count, seconds, bundle=bundle, backend="onnx" if rehearse else "tensorrt",
            tensorrt=options.model_dump(),
        )  # fmt: skip
        total = run.stages_ms["total"]
        p50, p99 = np.percentile(total, (50, 99)) if len(total) else (np.nan, np.nan)
        cells = (run.backend, count, run.scores, run.expected, run.windows_dropped, run.unsent,
                 f"{p50:.1f}", f"{p99:.1f}", f"{run.cpu_share:.0%}")  # fmt: skip
        table.add_row(*[str(cell) for cell in cells])
        if run.windows_dropped or run.messages_lost or run.unsent or run.scores < run.expected:
            break
        held = count
    console.print(table)
    console.print(f"{held} streams held without a dropped window")


def measure_language_model(console: Console, rates: object, rehearse: bool) -> None:
    """Time the text simulation by speech segment with random weights."""
    import torch

    from benchmarks.language_model import SEGMENT_S, SEVEN_B, TINY, TOKENS, measure
    from benchmarks.roofline import Rates

    assert isinstance(rates, Rates)
    device = torch.device("cpu" if rehearse else "cuda:0")
    sizes, batches = (TINY, (1, 2)) if rehearse else (SEVEN_B, LLM_BATCHES)
    table = Table(
        title=f"text simulation, random weights, {sizes.layers} layers of {sizes.hidden}, "
        f"segments of {SEGMENT_S:.0f} s, {TOKENS} tokens each"
    )
    for column in ("beams", "segments", "s", "tokens/s", "segments/s", "limit tokens/s",
                   "of limit"):  # fmt: skip
        table.add_column(column, justify="right")
    for beams in (1, 4):
        for figure in measure(device, sizes, batches, beams, rates.copy_bytes):
            share = figure.tokens_per_s / figure.limit_tokens_per_s
            table.add_row(
                str(beams), str(figure.batch), f"{figure.seconds:.2f}",
                f"{figure.tokens_per_s:,.0f}", f"{figure.segments_per_s:.2f}",
                f"{figure.limit_tokens_per_s:,.0f}", f"{share:.1%}",
            )  # fmt: skip
        if device.type == "cuda":
            torch.cuda.empty_cache()
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
