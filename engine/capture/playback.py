"""A clip played as if live: decoded ahead, every message sent when its time has come."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from engine.capture.clip import read_clip, resolve_clip
from engine.capture.stamps import NS_PER_S, Stamper
from engine.settings import EngineSettings
from engine.stop import Stop
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Audio, Video

log = logging.getLogger(__name__)

AHEAD = 256
"""Messages decoded ahead: some 7 seconds, so that a slow picture delays nothing."""
PASS_GAP_NS = 25_000_000
"""Between two passes of a clip: more than is taken for jitter, so that this cut counts as a gap. No
encoder's context reaches over it, and windows end where the sound's chunks do again."""
MAX_LAG_NS = 1_000_000_000
"""A clip that is later than this pauses, and goes on where it is: a machine too slow for it would
otherwise send ever older messages, which the inference worker refuses."""

Item = Audio | Video | Exception | None


def passes(path: Path, stream: str, settings: EngineSettings) -> Iterator[Audio | Video]:
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


def play(
    source: str,
    stream: str,
    settings: EngineSettings,
    stop: Stop,
    emit: Callable[[Audio | Video], None],
    counters: Counter[str],
) -> None:
    """Play a clip until its end or ``stop``; media time 0 is the moment of the first message.

    Every pause for want of decoded messages is counted (``pauses``).

    Raises:
        CaptureError: the clip cannot be read.
    """
    path = resolve_clip(source)
    ahead: queue.Queue[Item] = queue.Queue(AHEAD)
    over = threading.Event()

    def put(item: Item) -> bool:
        while not over.is_set():
            try:
                ahead.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def decode() -> None:
        try:
            for message in passes(path, stream, settings):
                if not put(message):
                    return
        except Exception as error:  # handed to the playing thread, which raises it
            put(error)
            return
        put(None)

    decoder = threading.Thread(target=decode, name="decode", daemon=True)
    decoder.start()
    try:
        _send_in_time(ahead, stop, emit, counters)
    finally:
        over.set()
        decoder.join(timeout=5)


def _send_in_time(
    ahead: queue.Queue[Item],
    stop: Stop,
    emit: Callable[[Audio | Video], None],
    counters: Counter[str],
) -> None:
    origin_ns: int | None = None
    while not stop.is_set():
        try:
            item = ahead.get(timeout=0.1)
        except queue.Empty:
            continue
        if item is None:
            return
        if isinstance(item, Exception):
            raise item
        media = item.envelope
        if origin_ns is None:
            origin_ns = now_ns() - media.t_end_ns
        if (lag_ns := now_ns() - origin_ns - media.t_end_ns) > MAX_LAG_NS:
            if not counters["pauses"]:
                log.warning("clip: this machine cannot keep up with it: it pauses now and then")
            counters["pauses"] += 1
            origin_ns += lag_ns
        end_ns = origin_ns + media.t_end_ns
        if stop.wait(max(0.0, (end_ns - now_ns()) / NS_PER_S)):
            return
        live = replace(media, t_start_ns=origin_ns + media.t_start_ns, t_end_ns=end_ns)
        emit(replace(item, envelope=live))
