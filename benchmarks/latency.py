"""Capture to subscriber, stage by stage: ``python benchmarks/latency.py [--clip X]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.harness import STAGES, default_clip, measure

BUDGET_MS = {"p50": 12.0, "p99": 25.0}


def main(
    clip: Annotated[Path | None, typer.Option(help="Media file to replay.")] = None,
    streams: Annotated[int, typer.Option(help="Streams at once.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of the run.")] = 60.0,
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
    backend: Annotated[str, typer.Option(help="Backend to run it on.")] = "auto",
) -> None:
    """Measure the way of a window's last sample to a subscriber's hands."""
    clip = clip or default_clip()
    run = measure(clip, streams, seconds, bundle=bundle, backend=backend)
    trained = "" if run.trained else ", untrained"
    table = Table(title=f"{clip.name}, {streams} stream(s), {run.scores} scores, "
                        f"{run.backend}{trained}")  # fmt: skip
    for column in ("stage, ms", "p50", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column == "stage, ms" else "right")
    for stage in STAGES:
        values = run.stages_ms[stage]
        figures = (*np.percentile(values, (50, 95, 99)), values.max())
        table.add_row(stage, *[f"{figure:.2f}" for figure in figures])
    console = Console()
    console.print(table)
    p50, p99 = np.percentile(run.stages_ms["total"], (50, 99))
    for name, value in (("p50", p50), ("p99", p99)):
        share = value / BUDGET_MS[name]
        console.print(
            f"{name}: {value:.2f} ms of a budget of {BUDGET_MS[name]:.0f} ms "
            f"({share:.0%}): {'within' if share <= 1 else 'OVER'}"
        )
    console.print(
        f"windows dropped: {run.windows_dropped}, messages lost: {run.messages_lost}, "
        f"worker: {run.cpu_share:.0%} of a core, {run.memory_mb[-1][1]:.0f} MB"
    )


if __name__ == "__main__":
    typer.run(main)
