"""One run of the engine: the workers, their messages and the display, until it is over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.processes import WorkerSpec
from engine.settings import EngineSettings
from engine.supervisor import POLL_S, Supervisor
from engine.terminal.display import Display
from engine.wire.scores import ScoreReceiver
from engine.wire.security import CLIENT, SERVER, ClientSecurity

MAX_SHOWN = 1000
"""Messages shown in one round."""
NO_STREAM = "-"
"""No stream's name begins with it (``STREAM_NAME_PATTERN``)."""
LAST_SCORES_S = 0.5
"""Beyond hop and skew: the time in which the last window of an ended clip is scored."""


def run_session(
    settings: EngineSettings,
    specs: Sequence[WorkerSpec],
    display: Display,
    shows_scores: bool = True,
) -> None:
    """Run the workers until a signal, or until every clip that is played once has ended.

    Captures on their own show their own streams, where an engine may score many others. Without
    ``shows_scores`` it listens to nothing, as one of many machines of a cluster: its key is the
    pool's, for it may have no client's.

    Raises:
        SupervisorError: a worker met a user's mistake.
        WireError: the scores' endpoint cannot be reached, or refused this process's key.
    """
    security = None
    if settings.security.mode == "curve":
        name = CLIENT if shows_scores else SERVER
        security = ClientSecurity.read(settings.security.keys_dir, name)
    streams = {spec.stream.name if spec.stream else "" for spec in specs}
    if not shows_scores:
        streams = {NO_STREAM}
    elif "" in streams:
        streams = set()
    last_s = LAST_SCORES_S + (settings.inference.hop_ms + settings.inference.skew_ms) / 1000
    supervisor = Supervisor(specs, display.log)
    with (
        _signals() as stopped,
        ScoreReceiver(settings.scores, streams, shows_scores, security) as receiver,
    ):
        try:
            with display:
                _run(supervisor, receiver, display, stopped, last_s)
        finally:
            supervisor.stop()


def _run(
    supervisor: Supervisor,
    receiver: ScoreReceiver,
    display: Display,
    stopped: list[int],
    last_s: float,
) -> None:
    """Show what comes in, until a signal or until ``last_s`` after the captures have ended."""
    end_s: float | None = None
    while end_s is None or time.monotonic() < end_s:
        if signal.SIGTSTP in stopped:
            stopped.clear()
            _stop_until_continued(supervisor)
        if stopped:
            break
        supervisor.poll()
        first = receiver.receive(int(POLL_S * 1000))
        # Bounded: the supervisor looks after its workers whatever comes in.
        for message in (first, *receiver.receive_all(MAX_SHOWN)):
            if message is not None:
                display.show(message)
        display.refresh(supervisor.workers)
        if end_s is None and supervisor.captures_ended:
            end_s = time.monotonic() + last_s


def _stop_until_continued(supervisor: Supervisor) -> None:
    """Stop all of it: the terminal reaches this process only, the workers have their own groups."""
    supervisor.signal(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    supervisor.signal(signal.SIGCONT)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and Ctrl-Z instead of obeying them at once."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
