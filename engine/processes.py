"""One worker as a child process: started by the supervisor, run by ``python -m engine.processes``.

The parent writes the settings to the child's standard input and keeps that pipe open: its end
is the lifeline, so a child outlives neither a tidy nor a killed parent; on Linux the kernel also
kills it, or a frozen one would stay. A second pipe takes the child's pulse. The child tells a
user's mistake as one line on its standard output and ends with code 2.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO, get_args

from engine.pulse import Pulse, PulseReader
from engine.settings import DeviceKind, EngineSettings, Section, StreamSettings
from engine.wire.notices import Limiter, redact
from models.errors import UserError

USER_MISTAKE = 2
"""Exit code of a worker (and of the command line) for a mistake that a restart cannot mend."""
LIFELINE_GRACE_S = 1.0
KILL_WAIT_S = 2.0
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Of a worker. numpy's products here are small, and its idle threads spin: with them one stream
takes six times the processor. The heaps of many threads would keep what many streams have freed.
What the user has set counts."""
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Of a worker that infers: each step of a recogniser reads all of its 40 MB of weights, and to look
up where every 4 kB of them lie takes up to a fifth of its time. Older C libraries and others than
glibc (2.35) do not know it; capture gains nothing by it."""
PR_SET_PDEATHSIG = 1

Sink = Callable[[str], None]


class Part(Section):
    """One of a cluster's own processes (``engine.cluster``)."""

    role: Literal["directory", "relay", "control", "host"]
    name: str
    intake: str = ""
    """Of a relay: where workers send their scores."""
    scores: str = ""
    """Of a relay: where clients subscribe."""
    workers: int = 0
    """Of a host."""


class WorkerSpec(Section):
    """What one process does: infer, capture ``device`` for ``stream``, or serve a cluster."""

    settings: EngineSettings
    stream: StreamSettings | None = None
    device: DeviceKind | None = None
    part: Part | None = None
    again: bool = False
    """It has run before: a device that is not there now may come back."""

    @property
    def name(self) -> str:
        """The worker's name in its status messages."""
        if self.part is not None:
            return self.part.name
        if self.stream is None:
            return self.settings.cluster.name
        return f"{self.stream.name}.{self.device}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the worker's process, where the user has not set them."""
        infers = self.stream is None and self.part is None
        return ENVIRONMENT | HUGE_PAGES if infers else dict(ENVIRONMENT)

    @property
    def ends(self) -> bool:
        """Whether the worker may end by itself: a clip that is played once."""
        return self.device == "source" and not self.settings.capture.loop


def capture_specs(settings: EngineSettings) -> list[WorkerSpec]:
    """One process for every device, and one for every clip."""
    specs = []
    for stream in settings.streams:
        for device in get_args(DeviceKind):
            if getattr(stream, device) is not None:
                specs.append(WorkerSpec(settings=settings, stream=stream, device=device))
    return specs


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended: its exit code (negative: killed by that signal), and its last word."""

    code: int
    message: str


class WorkerProcess:
    """A running child; ``log`` gets what it writes to standard error, line by line."""

    PROGRAM = (sys.executable, "-m", "engine.processes")

    def __init__(self, spec: WorkerSpec, log: Sink, program: Sequence[str] = PROGRAM) -> None:
        self.spec = spec
        pulse, beaten = os.pipe()
        self._pulse = PulseReader(pulse)
        self._process = subprocess.Popen(
            [*program, str(beaten)],
            pass_fds=(beaten,),
            env=spec.environment | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C reaches the whole foreground group: the parent alone decides what it means.
            start_new_session=True,
        )
        os.close(beaten)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a child dead already tells by its exit code
            self._process.stdin.write(spec.model_dump_json() + "\n")
            self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read_log, args=(log,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def beats(self) -> bytes:
        """Return what the worker has beaten since the last call (``engine.pulse``)."""
        return self._pulse.read()

    def signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def ended(self) -> Exit | None:
        """Return how the process ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        assert self._process.stdout is not None
        message = "" if self._process.stdout.closed else self._process.stdout.read().strip()
        self._close()
        return Exit(code, message)

    def stop(self) -> None:
        """Ask the process to end: SIGTERM, and the lifeline cut."""
        if self._process.poll() is None:
            self._process.terminate()
        self._close_lifeline()

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel
            self._process.wait(KILL_WAIT_S)
        self._close()

    def _close(self) -> None:
        self._close_lifeline()
        self._pulse.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._reader.join(1.0)
        if not self._reader.is_alive() and self._process.stderr is not None:
            self._process.stderr.close()

    def _close_lifeline(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _read_log(self, log: Sink) -> None:
        assert self._process.stderr is not None
        limiter = Limiter()
        for line in self._process.stderr:
            # Native libraries print past the worker's own log, addresses and all.
            if (text := limiter.line(redact(line.rstrip("\n")))) is not None:
                log(text)


def run_worker(spec: WorkerSpec, stop: threading.Event, pulse: Pulse) -> None:
    """Run the worker's body until ``stop``."""
    if spec.part is not None:
        from engine.cluster.parts import run_part

        run_part(spec.part, spec.settings, stop.is_set, pulse.beat)
    elif spec.stream is None or spec.device is None:
        from engine.inference.worker import run_inference

        run_inference(spec.settings, stop, pulse)
    else:
        from engine.capture.worker import run_capture

        run_capture(spec.stream, spec.device, spec.settings, stop, pulse, spec.again)


def _watch_lifeline(stop: threading.Event) -> None:
    # Read past Python's buffered stdin: a daemon thread that holds its lock at exit is fatal.
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(LIFELINE_GRACE_S)
    os._exit(1)


def _die_with_parent() -> None:
    """Let the kernel end this process with its parent: a frozen one watches no lifeline."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_line() -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return line.decode()


def _report_channel() -> TextIO:
    # Libraries print to descriptor 1; keep it for the last word and send them to the log.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return report


def main() -> int:
    """Body of the child process; the exit code is 0, or 2 for a user's mistake."""
    from engine import logs

    _die_with_parent()
    report = _report_channel()
    pulse = Pulse(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    spec = WorkerSpec.model_validate_json(_read_line())
    logs.configure(spec.settings.log_level, spec.name)
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_watch_lifeline, args=(stop,), daemon=True).start()
    try:
        run_worker(spec, stop, pulse)
    except UserError as error:
        if spec.settings.log_level == "debug":
            logging.getLogger(__name__).exception("%s", spec.name)
        report.write(redact(" ".join(str(error).split())))
        report.close()
        return USER_MISTAKE
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    # Not by the interpreter's end: it would stop a daemon thread that is busy within C++ code of a
    # recogniser, which answers with "terminate called" and an abort. Nothing is left to tidy.
    os._exit(code)
