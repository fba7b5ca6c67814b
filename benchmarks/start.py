"""The whole engine as a user starts it: ``python benchmarks/start.py [--seconds 20]``.

Time from the command to the first score on a subscriber, and to the first one with a valence; then
the resident memory of every process, while the sample clip speaks and its words are read. Shared
pages count in each process that holds them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import typer

from benchmarks.harness import REPOSITORY, local_settings, subscribe
from engine.wire.codec import decode
from engine.wire.messages import Score, Status

BUDGET_S, BUDGET_MB = 3.0, 620.0
STOP_S = 10.0


def main(
    seconds: Annotated[float, typer.Option(help="How long the engine runs.")] = 20.0,
) -> None:
    """Start ``engine run`` on the sample clip, wait, and look at it."""
    settings = local_settings()
    subscriber = subscribe(settings)
    doors = ("--ingest", settings.ingest, "--scores", settings.scores, "--control")
    command = [sys.executable, "-m", "engine", "run", "--source", "sample", *doors]
    began = time.monotonic()
    engine = subprocess.Popen(
        [*command, settings.control], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    first_s = valued_s = None
    words_read = 0
    try:
        while (now_s := time.monotonic() - began) < seconds:
            if engine.poll() is not None:
                raise SystemExit(f"the engine ended with code {engine.returncode}")
            if not subscriber.poll(200):
                continue
            message = decode(subscriber.recv_multipart())
            if isinstance(message, Status):
                words_read = message.counters.get("words_read", words_read)
            if isinstance(message, Score):
                now_s = time.monotonic() - began
                first_s = first_s or now_s
                if message.valence is not None:
                    valued_s = valued_s or now_s
        root = psutil.Process(engine.pid)
        sizes = {p.pid: p.memory_info().rss / 2**20 for p in (root, *root.children(recursive=True))}
    finally:
        engine.terminate()
        engine.wait(STOP_S)
    if first_s is None or valued_s is None:
        raise SystemExit(f"no valence within {seconds:.0f} s")
    verdict = "within" if first_s <= BUDGET_S else "OVER"
    print(f"first score after {first_s:.2f} s, budget {BUDGET_S:.0f} s: {verdict}")
    print(f"first valence after {valued_s:.2f} s")
    whole = sum(sizes.values())
    parts = " + ".join(f"{size:.0f}" for size in sizes.values())
    verdict = "within" if whole <= BUDGET_MB else "OVER"
    print(f"{words_read} readings of words, {len(sizes)} processes: {parts} = {whole:.0f} MB")
    print(f"memory budget {BUDGET_MB:.0f} MB: {verdict}")


if __name__ == "__main__":
    typer.run(main)
