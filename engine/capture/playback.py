"""A clip played as if live: decoded ahead, every message sent when its time has come."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from engine.capture.clip import read_clip, resolve_clip
from engine.capture.device import Media
from engine.capture.stamps import NS_PER_S, Stamper
from engine.settings import EngineSettings
from engine.wire.clock import now_ns, this_clock

log = logging.getLogger(__name__)

AHEAD = 256
"""Messages decoded ahead: some 7 seconds, so that a slow picture delays nothing."""
BURST = 64
"""Messages that are decoded in one go, once there is room for them: two seconds of a clip. One by
one, every picture would find the processor's caches cold."""
PASS_GAP_NS = 25_000_000
"""Between two passes of a clip: more than is taken for jitter, so that this cut counts as a gap. No
encoder's context reaches over it, and windows end where the sound's chunks do again."""
MAX_LAG_NS = 1_000_000_000
"""A clip that is later than this pauses and continues where it is: a machine too slow for it would
otherwise send ever older messages, which the inference worker refuses."""
CLOSE_S = 5.0
WAIT_S = 0.1
"""Between two looks at whether there is room, or an end."""

Item = Media | Exception | None
"""A message, what broke the decoding, or the clip's end."""


def passes(path: Path, stream: str, settings: EngineSettings) -> Iterator[Media]:
    """A clip's messages from time 0, again and again where ``capture.loop`` says so."""
    stamper = Stamper(stream, this_clock())
    start_ns = 0
    while True:
        end_ns = start_ns
        for message in read_clip(path, settings, stamper, start_ns):
            end_ns = max(end_ns, message.envelope.t_end_ns)
            yield message
        if not settings.capture.loop or end_ns == start_ns:
            return
        start_ns = end_ns + PASS_GAP_NS


class Playback:
    """A clip as a device of the capture loop; media time 0 is the moment of the first message.

    Every pause for want of decoded messages is counted (``pauses``).

    Args:
        source: the clip's path, or ``sample``.
        stream: name of its stream.
        settings: of chunks, speech and faces; whether it is looped.
    """

    def __init__(self, source: str, stream: str, settings: EngineSettings) -> None:
        self._source, self._stream, self._settings = source, stream, settings
        self.counters: Counter[str] = Counter()
        self._decoder: _Decoder | None = None
        self._origin_ns: int | None = None
        self._next: Media | None = None

    def open(self) -> None:
        """Start to decode ahead."""
        path = resolve_clip(self._source)
        self._origin_ns = self._next = None
        self._decoder = _Decoder(passes(path, self._stream, self._settings))

    def read(self, timeout_s: float) -> list[Media] | None:
        """The next message, when its time has come."""
        assert self._decoder is not None
        if self._next is None:
            try:
                item = self._decoder.ahead.get(timeout=timeout_s)
            except queue.Empty:
                return []
            if item is None:
                return None
            if isinstance(item, Exception):
                raise item
            self._next = item
        media = self._next.envelope
        origin_ns = self._origin_of(media.t_end_ns)
        end_ns = origin_ns + media.t_end_ns
        wait_s = (end_ns - now_ns()) / NS_PER_S
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        if wait_s > timeout_s:
            return []
        live = replace(media, t_start_ns=origin_ns + media.t_start_ns, t_end_ns=end_ns)
        message, self._next = replace(self._next, envelope=live), None
        return [message]

    def close(self) -> list[Media]:
        """Stop decoding."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        return []

    def _origin_of(self, t_end_ns: int) -> int:
        """Our time of media time 0; it moves on where the clip is too late."""
        if self._origin_ns is None:
            self._origin_ns = now_ns() - t_end_ns
        lag_ns = now_ns() - self._origin_ns - t_end_ns
        if lag_ns > MAX_LAG_NS:
            if not self.counters["pauses"]:
                log.warning("clip: this machine is too slow for it: it pauses now and then")
            self.counters["pauses"] += 1
            self._origin_ns += lag_ns
        return self._origin_ns


class _Decoder:
    """A thread that decodes ahead; a fault is handed over, and None at the end."""

    def __init__(self, messages: Iterator[Media]) -> None:
        self.ahead: queue.Queue[Item] = queue.Queue(AHEAD)
        self._messages = messages
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, at the latest when the message in work is decoded."""
        self._closing.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        last: Exception | None = None
        try:
            for message in self._messages:
                if not self._put(message):
                    return
        except Exception as error:  # the reading thread raises it
            last = error
        self._put(last)

    def _put(self, item: Item) -> bool:
        if self.ahead.full():
            while self.ahead.qsize() > AHEAD - BURST and not self._closing.wait(WAIT_S):
                pass
        while not self._closing.is_set():
            with contextlib.suppress(queue.Full):
                self.ahead.put(item, timeout=WAIT_S)
                return True
        return False
