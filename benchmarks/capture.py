"""What a capture worker costs: ``python -m benchmarks.capture CLIP... [--seconds 16]``.

The worker is started as the supervisor starts it, one clip after the other, looped. Its CPU time
counts once it has decoded ahead, over the rest of ``--seconds``: of the whole process, and of each
of its threads. A socket takes what it sends.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil
import zmq

from benchmarks.harness import local_settings
from engine.processes import WorkerProcess, WorkerSpec
from engine.settings import StreamSettings

SETTLE_S = 5.0
"""The first seconds are decoded ahead at once, and do not count."""


def cost(clip: Path, seconds: float) -> tuple[float, list[float], int]:
    """Share of a core of a clip's worker, of each of its threads, and its messages."""
    settings = local_settings(capture={"loop": True})
    stream = StreamSettings(name="main", source=str(clip))
    pull: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
    pull.bind(settings.ingest)
    worker = WorkerProcess(
        WorkerSpec(settings=settings, stream=stream, device="source"),
        lambda line: print(line, file=sys.stderr),
    )
    try:
        if not pull.poll(20_000):
            raise SystemExit(f"{clip}: the worker sent nothing")
        process = psutil.Process(worker.pid)
        _drain(pull, SETTLE_S)
        began_s, before = time.monotonic(), process.cpu_times()
        threads = {t.id: t.user_time + t.system_time for t in process.threads()}
        messages = _drain(pull, seconds)
        passed_s, after = time.monotonic() - began_s, process.cpu_times()
        by_thread = sorted(
            (
                (t.user_time + t.system_time - threads.get(t.id, 0.0)) / passed_s
                for t in process.threads()
            ),
            reverse=True,
        )
    finally:
        worker.stop()
        worker.kill()
        pull.close(0)
    spent_s = after.user + after.system - before.user - before.system
    return spent_s / passed_s, by_thread, messages


def _drain(pull: zmq.Socket[bytes], seconds: float) -> int:
    """Take what comes for this long; return how many messages."""
    end_s, count = time.monotonic() + seconds, 0
    while (left_s := end_s - time.monotonic()) > 0:
        if pull.poll(int(left_s * 1000) + 1):
            pull.recv_multipart()
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU of a clip's capture worker")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=16.0)
    options = parser.parse_args()
    for clip in options.clips:
        share, threads, messages = cost(clip, options.seconds)
        parts = " + ".join(f"{part:.1%}" for part in threads if part >= 0.001)
        print(
            f"{clip.name}: {share:.1%} of a core ({parts}), {messages / options.seconds:.0f} msg/s"
        )


if __name__ == "__main__":
    main()
