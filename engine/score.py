"""A clip, offline: its scores, their file, and the quick benchmark."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from engine.backends.protocol import Backend
from engine.backends.select import choose
from engine.capture.clip import read_clip
from engine.inference.offline import offline_core, score_messages
from engine.inference.text.cost import words_cost
from engine.settings import EngineSettings
from engine.wire.messages import Score
from engine.wire.rows import row_of
from models import bundle as bundles
from models.bundle import Bundle


def score_clip(
    path: Path, settings: EngineSettings, bundle: Bundle, backend: Backend
) -> Iterator[Score]:
    """Score a media file; the clip's own time stands in for the clock.

    Raises:
        engine.capture.CaptureError: the clip is missing, or holds neither sound nor picture.
    """
    core = offline_core(settings, bundle, backend)
    yield from score_messages(core, read_clip(path, settings))


def score_to_file(clip: Path, out: Path, settings: EngineSettings) -> str:
    """Score a clip into JSON lines and return one line about it.

    The rows are those of a recording, which ``plot`` and ``replay`` read: one is received when
    its window ends, as if the clip had been played from now on. ``out`` is replaced once all of
    them are written; a clip that cannot be read leaves it as it was.

    Raises:
        OSError: ``out`` cannot be written.
    """
    bundle = bundles.open(settings.bundle)
    backend = choose(
        settings.backend, bundle, settings.inference.threads, settings.tensorrt
    ).backend
    backend.warm_up()
    begin_s, played_s = time.perf_counter(), time.time()
    number = 0
    with replacing(out) as file:
        for score in score_clip(clip, settings, bundle, backend):
            row = row_of(score, played_s + score.envelope.t_end_ns / 1e9)
            file.write(json.dumps(row.values(), allow_nan=False) + "\n")
            number += 1
    took_s = time.perf_counter() - begin_s
    if number == 0:
        first_s = settings.inference.hop_ms / 1000
        return f"0 scores: {clip} is too short, the first one comes after {first_s:g} s"
    note = "" if bundle.config.trained else "; UNTRAINED: random weights, they mean nothing"
    return f"{number} scores in {took_s:.2f} s to {out}{note}"


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of ``path`` at the end, and only if nothing went wrong."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory")
    partial = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
    words = words_cost(bundle, settings.words)
    return "\n".join(
        (
            f"backend           {choice.backend.name} on {choice.backend.device}",
            f"scores            {len(cost)} of {span_s:.1f} s of sound and picture",
            f"encode and fuse   p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms a score",
            f"one stream alone  {settings.inference.hop_ms / p50:.0f} times faster than live",
            f"words             {words}",
            f"with face search  {span_s / took_s:.1f} times faster than live, reading included",
        )
    )
