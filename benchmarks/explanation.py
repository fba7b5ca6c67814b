"""What the explanation costs: time of the fusion with and without it, side by side.

Usage: python benchmarks/explanation.py [BUNDLE]
Windows of all three modalities, as a speaking person before a camera gives; CPU time of this
process, medians of alternating runs, so that the machine's other work touches both alike.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.backends.select import choose
from engine.inference.explanation import is_due
from engine.inference.forward import Fuser
from engine.inference.window import Window
from engine.settings import EngineSettings
from models import bundle as bundles
from models.spec import MODALITIES

RUNS = 40


def main(name: str) -> None:
    settings = EngineSettings()
    bundle = bundles.open(name)
    backend = choose("onnx", bundle, 0, settings.tensorrt).backend
    backend.warm_up()
    fuser = Fuser(bundle, backend, Counter())
    rng = np.random.default_rng(0)
    width = bundle.config.network.projected_dim
    due: Any = SimpleNamespace(start_ns=0, end_ns=0)
    print("streams   without   with (every hop)   with (as live)   ratio as live")
    for streams in (1, 2, 4, 8, 16, 32):
        windows = [
            Window(
                stream=due,
                due=due,
                frames={
                    m: rng.normal(size=(full, width)).astype(np.float32)
                    for m, full in zip(MODALITIES, bundle.config.full_lengths, strict=True)
                },
                coverage=dict.fromkeys(MODALITIES, 1.0),
                voiced=1.0,
                text_source="simulated",
                text_quality=None,
                words=(),
                clarity=1.0,
                is_new=True,
                evidence=3.0,
            )
            for _ in range(streams)
        ]
        spent: dict[str, list[float]] = {"without": [], "every": [], "live": []}
        for run in range(RUNS):
            # Streams begin at different times: their places on the grid are spread.
            plans = {
                "without": [False] * streams,
                "every": [True] * streams,
                "live": [is_due(run + k, streams) for k in range(streams)],
            }
            for kind, plan in plans.items():
                begin_ns = time.process_time_ns()
                fuser.fuse(windows, plan)
                spent[kind].append((time.process_time_ns() - begin_ns) / 1e6)
        without, every, live = (float(np.mean(spent[k])) for k in ("without", "every", "live"))
        ratio = live / without
        print(f"{streams:7d} {without:8.2f} ms {every:13.2f} ms {live:14.2f} ms {ratio:12.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "default")
