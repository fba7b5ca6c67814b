"""Commands that work on a clip and end: offline scores, and the quick benchmark."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from engine.backends.select import choose
from engine.inference.offline import score_clip
from engine.settings import EngineSettings
from models import bundle as bundles


def score_to_file(clip: Path, out: Path, settings: EngineSettings) -> str:
    """Score a clip into JSON lines and return one line about it.

    Raises:
        OSError: ``out`` cannot be written.
    """
    bundle = bundles.open(settings.bundle)
    backend = choose(
        settings.backend, bundle, settings.inference.threads, settings.tensorrt
    ).backend
    backend.warm_up()
    begin_s = time.perf_counter()
    number, span_ns = 0, 0
    with out.open("w") as file:
        for score in score_clip(clip, settings, bundle, backend):
            file.write(json.dumps(asdict(score)) + "\n")
            number, span_ns = number + 1, max(span_ns, score.envelope.t_end_ns)
    took_s = time.perf_counter() - begin_s
    note = "" if bundle.config.trained else "; UNTRAINED: random weights, they mean nothing"
    return f"{number} scores in {took_s:.2f} s to {out}{note}"


def quick_benchmark(clip: Path, settings: EngineSettings) -> str:
    """Measure encoding and fusion of one stream; say how many streams that time allows.

    The sockets are not in it: ``benchmarks/`` measures them.
    """
    import numpy as np

    bundle = bundles.open(settings.bundle)
    choice = choose(settings.backend, bundle, settings.inference.threads, settings.tensorrt)
    choice.backend.warm_up()
    begin_s = time.perf_counter()
    cost = [
        score.latency_ms.encode + score.latency_ms.fuse
        for score in score_clip(clip, settings, bundle, choice.backend)
    ]
    took_s = time.perf_counter() - begin_s
    if not cost:
        return f"{clip}: too short for a score"
    p50, p95, p99 = np.percentile(cost, (50, 95, 99))
    span_s = len(cost) * settings.inference.hop_ms / 1000
    return "\n".join(
        (
            f"backend           {choice.backend.name} on {choice.backend.device}",
            f"scores            {len(cost)} of {span_s:.1f} s of sound and picture",
            f"encode and fuse   p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms a score",
            f"one stream alone  {settings.inference.hop_ms / p50:.0f} times faster than live",
            f"with face search  {span_s / took_s:.1f} times faster than live, reading included",
        )
    )
