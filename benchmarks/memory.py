"""Memory of the inference worker over time: ``python benchmarks/memory.py [--minutes 10]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from rich.console import Console

from benchmarks.harness import default_clip, measure

BUDGET_MB = 400.0


def main(
    clip: Annotated[Path | None, typer.Option(help="Media file to replay.")] = None,
    streams: Annotated[int, typer.Option(help="Streams at once.")] = 1,
    minutes: Annotated[float, typer.Option(help="Length of the run.")] = 10.0,
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
) -> None:
    """Sample the worker's resident memory once a second and fit its slope."""
    run = measure(clip or default_clip(), streams, minutes * 60.0, bundle=bundle)
    times, sizes = np.array(run.memory_mb).T
    settled = times > times[0] + 0.25 * (times[-1] - times[0])
    slope = np.polyfit(times[settled] / 3600.0, sizes[settled], 1)[0] if settled.sum() > 2 else 0.0
    console = Console()
    console.print(f"{streams} stream(s), {minutes:.1f} min, {run.scores} scores")
    console.print(
        f"resident MB: first {sizes[0]:.1f}, median {np.median(sizes):.1f}, "
        f"largest {sizes.max():.1f}, last {sizes[-1]:.1f}"
    )
    console.print(f"slope after the first quarter: {slope:+.2f} MB/h")
    console.print(f"worker: {sizes.max() / BUDGET_MB:.0%} of the engine's {BUDGET_MB:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
