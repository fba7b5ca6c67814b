"""What each step needs of those before it; looked at before anything is imported or read."""

from __future__ import annotations

import json
from pathlib import Path

BEFORE: dict[str, tuple[tuple[str, str], ...]] = {
    "calibrate": (("checkpoint.pt", "fit"),),
    "evaluate": (("checkpoint.pt", "fit"), ("calibration.json", "calibrate")),
    "export": (
        ("checkpoint.pt", "fit"),
        ("calibration.json", "calibrate"),
        ("evaluation.json", "evaluate"),
    ),
}
BEFORE["report"] = BEFORE["export"]


def missing(step: str, run: Path, seeds: int = 1) -> str | None:
    """What a step lacks, as one line; None: nothing.

    Args:
        step: that is asked for.
        run: folder of the run.
        seeds: how many the recipe has; where it is not known yet, the first is looked at.
    """
    for seed in range(seeds):
        for name, before in BEFORE.get(step, ()):
            path = run / f"seed-{seed}" / name
            if not path.is_file():
                why = "is not trained yet" if before == "fit" else "has not come to that yet"
                return f"{path}: seed {seed} {why}: run `{before}` first"
            if path.suffix == ".json":
                try:
                    json.loads(path.read_text())
                except ValueError:
                    return f"{path}: cut off or damaged: remove it and run `{before}` again"
    return None
