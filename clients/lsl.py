"""A bridge to Lab Streaming Layer: an outlet per stream, on LSL's own clock.

On one host LSL's clock and the wire's are both the monotonic clock, up to a constant that is
measured. For another host's stamps the constant is that of the message that was fastest on its way:
late by that message's transport, as long as the two clocks run alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from clients.bridges import MAX_STREAMS, BridgeError, Names
from clients.events import NS_PER_S, Event
from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Clock, Envelope, ModelInfo, Score

CHANNELS = (
    ("valence", "valence"),
    ("low", "valence"),
    ("high", "valence"),
    ("weight_audio", "fraction"),
    ("weight_text", "fraction"),
    ("weight_video", "fraction"),
    ("valence_audio", "valence"),
    ("valence_text", "valence"),
    ("valence_video", "valence"),
    ("mixed", "boolean"),
)
"""Labels and units of the outlet's channels."""
TYPE = "Sentiment"
MAKER = "Undertone"


def load() -> Any:
    """Import pylsl, which brings or finds liblsl.

    Raises:
        BridgeError: it is not installed, or finds no liblsl.
    """
    try:
        import pylsl
    except ImportError:
        raise BridgeError('LSL needs pylsl: pip install -e ".[lsl]"') from None
    except RuntimeError:
        raise BridgeError("pylsl finds no liblsl: install it, or name it in PYLSL_LIB") from None
    return pylsl


def sample_of(score: Score) -> list[float]:
    """Values of ``CHANNELS``; NaN where the score has none."""
    interval = score.interval
    parts = (score.audio, score.text, score.video)
    return [
        math.nan if score.valence is None else score.valence,
        math.nan if interval is None else interval.low,
        math.nan if interval is None else interval.high,
        *(part.weight if part.present else math.nan for part in parts),
        *(math.nan if part.valence is None else part.valence for part in parts),
        math.nan if score.mixed is None else float(score.mixed),
    ]


class Offsets:
    """What to add to a stamp for this host's time. Pure: the time is an argument."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._shortest_ns: dict[Clock, int] = {}

    def time_ns(self, envelope: Envelope, received_ns: int) -> int:
        """The end of a message's span on this host's monotonic clock."""
        clock = envelope.clock
        if clock.boot_id == self._own.boot_id:
            return envelope.t_end_ns
        offset = received_ns - envelope.t_sent_ns
        shortest = min(offset, self._shortest_ns.get(clock, offset))
        if clock in self._shortest_ns or len(self._shortest_ns) < MAX_STREAMS:
            self._shortest_ns[clock] = shortest
        return envelope.t_end_ns + shortest


class Outlets:
    """An outlet per stream, opened at its first score and again when its model changes."""

    def __init__(self, pylsl: Any, say: Callable[[str], None] = lambda text: None) -> None:
        self._pylsl = pylsl
        self._say = say
        self._outlets: dict[str, tuple[ModelInfo, Any]] = {}
        self._offsets = Offsets(this_clock())
        self._names = Names()

    def take(self, event: Event) -> None:
        """Push a score; all else is not for LSL."""
        if not isinstance(event, Score):
            return
        name, refused = event.envelope.stream, self._names.refused
        if not self._names.admit(name):
            if not refused:
                self._say(f"more than {MAX_STREAMS} streams: the others get no outlet")
            return
        if name not in self._outlets or self._outlets[name][0] != event.model:
            self._outlets.pop(name, None)  # closes it: two of one source would confuse a recorder
            self._outlets[name] = (event.model, self._pylsl.StreamOutlet(self._info(event)))
            self._say(f"outlet {MAKER} {name}: {event.model.name} {event.model.version}")
        now = now_ns()
        since_s = (now - self._offsets.time_ns(event.envelope, now)) / NS_PER_S
        outlet = self._outlets[name][1]
        outlet.push_sample(sample_of(event), self._pylsl.local_clock() - since_s)

    def _info(self, score: Score) -> Any:
        lsl, envelope, model = self._pylsl, score.envelope, score.model
        # A recorder finds a stream that comes back by its source, not by its name.
        source = f"{MAKER}-{envelope.clock.host}-{envelope.stream}"
        info = lsl.StreamInfo(
            f"{MAKER} {envelope.stream}",
            TYPE,
            len(CHANNELS),
            lsl.IRREGULAR_RATE,  # pauses, restarts and dropped windows make it so
            lsl.cf_float32,
            source,
        )
        desc = info.desc()
        desc.append_child_value("manufacturer", MAKER)
        desc.append_child_value("stream", envelope.stream)
        channels = desc.append_child("channels")
        for label, unit in CHANNELS:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", unit)
            channel.append_child_value("type", TYPE)
        described = desc.append_child("model")
        for key in ("name", "version", "sha256", "backend", "precision"):
            described.append_child_value(key, getattr(model, key))
        described.append_child_value("trained", "true" if model.trained else "false")
        clock = desc.append_child("clock")
        clock.append_child_value("host", envelope.clock.host)
        clock.append_child_value("boot_id", envelope.clock.boot_id)
        valence = desc.append_child("valence")
        valence.append_child_value("minimum", "-3")
        valence.append_child_value("maximum", "3")
        valence.append_child_value("interval", "90 %")
        valence.append_child_value("no_value", "NaN: no voice and no face, or warming up")
        return info
