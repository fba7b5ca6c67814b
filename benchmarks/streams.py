"""How many streams before a window is dropped: ``python benchmarks/streams.py [--speaking 0.1]``.

Budgets: of a core, for streams with a face that say nothing; of streams, with one in ten that
speaks and without words, and with all of them speaking, words included.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.harness import default_clip, measure
from engine.settings import WordsSettings

LADDER = (1, 16, 32, 64, 96, 128, 160, 192)
MOST_SILENT, FEW = 0.0, 0.1
BUDGET_STREAMS = {FEW: 160, 1.0: 16}
"""By the share of streams that speak."""
BUDGET_CORE = {1: 0.03, 16: 0.35}
"""Of the worker, by the number of silent streams."""


def main(
    clip: Annotated[Path | None, typer.Option(help="Media file to replay.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Numbers of streams to try.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 20.0,
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
    backend: Annotated[str, typer.Option(help="Backend to run it on.")] = "auto",
    speaking: Annotated[float, typer.Option(help="Share of the streams that speak.")] = 1.0,
    words: Annotated[str, typer.Option(help="words.mode: auto, on or off.")] = "auto",
) -> None:
    """Raise the number of streams at 2 scores/s until windows are dropped."""
    clip = clip or default_clip()
    heard = WordsSettings.model_validate({"mode": words})
    console = Console(width=110)
    table = Table(title=f"{clip.name}, {seconds:.0f} s each, {speaking:.0%} speak, words {words}")
    names = ("streams", "scores", "of", "dropped", "lost", "unsent", "p50 ms", "p99 ms", "core",
             "MB")  # fmt: skip
    for name in names:
        table.add_column(name, justify="right")
    best = 0
    for count in streams or LADDER:
        run = measure(clip, count, seconds, speaking, bundle=bundle, backend=backend, words=heard)
        total = run.stages_ms["total"]
        p50, p99 = np.percentile(total, (50, 99))
        cells = (count, run.scores, run.expected, run.windows_dropped, run.messages_lost,
                 run.unsent, f"{p50:.1f}", f"{p99:.1f}", f"{run.cpu_share:.0%}",
                 f"{run.memory_mb[-1][1]:.0f}")  # fmt: skip
        table.add_row(*[str(cell) for cell in cells])
        print(*cells, flush=True)
        clean = run.windows_dropped == run.messages_lost == run.unsent == 0
        if not clean or run.scores < run.expected:
            break
        best = count
        if speaking == MOST_SILENT and count in BUDGET_CORE:
            share = BUDGET_CORE[count]
            verdict = "within" if run.cpu_share <= share else "OVER"
            console.print(f"{run.cpu_share:.1%} of a core, budget {share:.0%}: {verdict}")
    console.print(table)
    console.print(f"{best} streams without a dropped window")
    if (budget := BUDGET_STREAMS.get(speaking)) is not None:
        verdict = "within" if best >= budget else "BELOW"
        console.print(f"budget {budget}: {verdict} ({best / budget:.2f}x)")


if __name__ == "__main__":
    typer.run(main)
