"""A bridge to Lab Streaming Layer: an outlet per stream, on LSL's own clock.

On one host LSL's clock and the wire's are both the monotonic clock, up to a constant that is
measured. Another host's stamps are translated by ``engine.wire.clock``: late by the transport of
the message that was fastest on its way lately.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from clients.bridges import MAX_STREAMS, BridgeError, Names
from clients.events import NS_PER_S, Event
from engine.wire.clock import Clocks, now_ns, this_clock
from engine.wire.messages import ModelInfo, Score

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


class Outlets:
    """An outlet per stream, opened at its first score and again when its model changes."""

    def __init__(self, pylsl: Any, say: Callable[[str], None] = lambda text: None) -> None:
        self._pylsl = pylsl
        self._say = say
        self._outlets: dict[str, tuple[ModelInfo, Any]] = {}
        self._clocks = Clocks(this_clock(), replays=True)
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
        offset_ns = self._clocks.observe(event.envelope, now)
        since_ns = 0 if offset_ns is None else now - event.envelope.t_end_ns - offset_ns
        since_s = since_ns / NS_PER_S
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
        valence.append_child_value("interval", score.model.coverage_text)
        valence.append_child_value("no_value", "NaN: no voice and no face, or warming up")
        return info
