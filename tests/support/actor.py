"""A worker that plays a part: ``actor.py PART PULSE``, as the supervisor starts it.

Parts: ``warm:S`` starts for S seconds with a pulse and then runs, ``run`` runs, ``hang`` runs for a
moment and then lives on without a pulse, ``mute`` never beats at all, ``mistake`` ends with a
user's mistake, ``talk`` runs and writes to standard error without end, ``work`` computes for 20 ms
before each beat, ``spin`` is soon caught in a loop that computes without an end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from engine import processes
from engine.pulse import Pulse


def play(part: str, pulse: Pulse, stop: threading.Event) -> int:
    name, _, seconds = part.partition(":")
    if name == "mistake":
        os.write(1, b"no such thing: expected one, got none")
        return processes.USER_MISTAKE
    if name == "mute":
        stop.wait(1000)
    if name == "warm":
        with pulse.starting():
            stop.wait(float(seconds))
    end_s = time.monotonic() + 0.3
    while not stop.is_set():
        if name == "work" or (name == "spin" and time.monotonic() > end_s):
            compute(0.02 if name == "work" else float("inf"))
        if name != "hang" or time.monotonic() < end_s:
            pulse.beat()
        if name == "talk":
            os.write(2, b"lost packet 17 of rtsp://user:secret@camera/1\n" * 50)
        stop.wait(0.02)
    return 0


def compute(seconds: float) -> None:
    """Take the processor for so long."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def main() -> int:
    processes._die_with_parent()
    pulse = Pulse(int(sys.argv[2]))
    processes._read_line()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=processes._watch_lifeline, args=(stop,), daemon=True).start()
    return play(sys.argv[1], pulse, stop)


if __name__ == "__main__":
    sys.exit(main())
