"""How many streams before a window is dropped: ``python benchmarks/streams.py [--clip X]``."""

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

BUDGET_STREAMS = 64
LADDER = (1, 16, 32, 64, 96, 128)


def main(
    clip: Annotated[Path | None, typer.Option(help="Media file to replay.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Numbers of streams to try.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 20.0,
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
    backend: Annotated[str, typer.Option(help="Backend to run it on.")] = "auto",
) -> None:
    """Raise the number of streams at 2 scores/s until windows are dropped."""
    clip = clip or default_clip()
    table = Table(title=f"{clip.name}, {seconds:.0f} s each")
    names = ("streams", "scores", "of", "dropped", "lost", "unsent", "p50 ms", "p99 ms", "core",
             "MB")  # fmt: skip
    for name in names:
        table.add_column(name, justify="right")
    best = 0
    for count in streams or LADDER:
        run = measure(clip, count, seconds, bundle=bundle, backend=backend)
        total = run.stages_ms["total"]
        p50, p99 = np.percentile(total, (50, 99)) if len(total) else (np.nan, np.nan)
        cells = (count, run.scores, run.expected, run.windows_dropped, run.messages_lost,
                 run.unsent, f"{p50:.1f}", f"{p99:.1f}", f"{run.cpu_share:.0%}",
                 f"{run.memory_mb[-1][1]:.0f}")  # fmt: skip
        table.add_row(*[str(cell) for cell in cells])
        print(*cells, flush=True)
        clean = run.windows_dropped == run.messages_lost == run.unsent == 0
        if not clean or run.scores < run.expected:
            break
        best = count
    console = Console()
    console.print(table)
    console.print(
        f"{best} streams without a dropped window, budget {BUDGET_STREAMS}: "
        f"{'within' if best >= BUDGET_STREAMS else 'BELOW'} ({best / BUDGET_STREAMS:.2f}x)"
    )


if __name__ == "__main__":
    typer.run(main)
