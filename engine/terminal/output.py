"""Printing that never waits: a terminal that nobody reads must not stop the engine.

``| less`` and Ctrl-S stop a terminal; whoever writes to it then waits for ever. Here a thread
writes, and what it cannot get rid of is dropped and counted.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque

LIMIT = 64 * 1024
"""Characters that wait for a reader."""
PIECE = 4096


class Output:
    """A text stream for one descriptor; every ``write`` is printed whole or dropped whole."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, descriptor: int, limit: int = LIMIT) -> None:
        self.dropped = 0
        """Writes that were dropped so far."""
        self._descriptor = descriptor
        self._limit = limit
        self._waiting: deque[str] = deque()
        self._size = 0
        self._reported = 0
        self._busy = False
        self._gone = False
        self._filled = threading.Condition()
        # A daemon: one that waits for a reader must not keep the process from its end.
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def write(self, text: str) -> int:
        """Queue a text; never waits.

        Raises:
            BrokenPipeError: the reader has closed its end, as ``head`` does.
        """
        if self._gone:
            raise BrokenPipeError(errno.EPIPE, "nobody reads the output any more")
        if text:
            with self._filled:
                if self._size + len(text) > self._limit:
                    self.dropped += 1
                else:
                    self._waiting.append(text)
                    self._size += len(text)
                    self._filled.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing to do: the thread writes as soon as it can."""

    def drain(self, patience_s: float) -> bool:
        """Wait until all is printed, at most ``patience_s``; False where nobody reads."""
        end_s = time.monotonic() + patience_s
        with self._filled:
            while self._waiting or self._busy:
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._filled.wait(left_s)
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor, for asking the terminal's size."""
        return self._descriptor

    def _run(self) -> None:
        while True:
            with self._filled:
                self._busy = False
                self._filled.notify_all()
                while not self._waiting:
                    self._filled.wait()
                text = self._waiting.popleft()
                self._size -= len(text)
                self._busy = True
                if self.dropped > self._reported:
                    text += f"({self.dropped - self._reported} texts dropped: nobody read)\n"
                    self._reported = self.dropped
            self._print(text.encode(self.encoding, self.errors))

    def _print(self, data: bytes) -> None:
        # Written past Python's buffered streams: a thread that holds their lock at exit is fatal.
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:PIECE]) :]
            except BlockingIOError:  # another program made the terminal non-blocking
                time.sleep(0.02)
            except BrokenPipeError:
                self._gone = self._descriptor == 1  # a log without a reader ends nothing
                return
            except OSError:  # the terminal is gone
                return
