"""A signal ends a run even where the interpreter swallows the interrupt."""

import subprocess
import sys

SWALLOWING = """
import os, signal, time, weakref
from trainer.stop import Stop

class Thing: pass

def gone(_):
    os.kill(os.getpid(), signal.{signal})
    for _ in range(1000): pass

with Stop() as stop:
    thing = Thing()
    kept = weakref.ref(thing, gone)
    try:
        del thing
        time.sleep(20)
        print("went on")
    except KeyboardInterrupt:
        print("stopped", stop.asked())
"""


def _run(signal: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SWALLOWING.format(signal=signal)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_a_signal_in_a_callback_of_the_interpreter_stops_all_the_same() -> None:
    for signal, asked in (("SIGTERM", True), ("SIGINT", False)):
        done = _run(signal)
        assert done.stdout == f"stopped {asked}\n"
        assert done.stderr == ""
