"""An engine of made-up scores that move: ``stage.py ENDPOINT STREAMS HZ [PAST_S]``.

STREAMS is a comma-separated list of names; one that begins with ``mute`` has no value, for lack
of voice and face. ``PAST_S`` seconds of history are published first: their windows ended in the
past, but they are sent now, or a client would take them for a recording that is replayed. Each
line of standard input is a mark for the next score of every stream.
Prints its endpoint, then every score of the present as a line: stream, seq, valence.
"""

from __future__ import annotations

import math
import select
import sys
import time

from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import (
    Envelope,
    Interval,
    Latency,
    Modalities,
    ModalityState,
    ModelInfo,
    Score,
    Status,
    TextState,
)
from engine.wire.scores import ScorePublisher

S = 1_000_000_000
MODEL = ModelInfo("stage", "1", "0" * 64, "onnx:cpu", "float32", True)
ABSENT = ModalityState(False, 0.0, 0.0)


def around(valence: float) -> Interval:
    return Interval(max(-3, valence - 0.6), min(3, valence + 0.6))


def score(stream: str, place: int, seq: int, t_ns: int, mark: str | None) -> Score:
    t_s = t_ns / S
    envelope = Envelope(stream, seq, t_ns - 4 * S, t_ns, t_ns, this_clock())
    mute = stream.startswith("mute") or t_s % 60 > 52
    speaking, seen = math.sin(t_s * 0.9 + place) > -0.4, math.sin(t_s / 7 + place) > -0.7
    valence = 1.6 * math.sin(t_s / (9 + 2 * place)) + 0.3 * math.sin(t_s * 1.1)
    half = 0.7 + 0.4 * math.sin(t_s / 5)
    smile = 1.4 * math.cos(t_s / (8 + place))
    face = ModalityState(
        seen, float(seen), 0.38 if seen else 0.0, 0.8 if seen else None,
        smile if seen else None, around(smile) if seen else None,
    )  # fmt: skip
    voice = ModalityState(
        True, 0.98, 0.34 if seen else 0.6, 0.7, 0.5 * valence, around(0.5 * valence)
    )
    words = ModalityState(
        True, 0.98, 0.28 if seen else 0.4, None, 1.1 * valence, around(1.1 * valence)
    )
    absent = Modalities(audio=ABSENT, video=ABSENT, text=ABSENT)
    return Score(
        envelope=envelope,
        valence=None if mute else valence,
        valence_window=None if mute else valence,
        interval=None if mute else Interval(max(-3, valence - half), min(3, valence + half)),
        trend=None if mute else 0.17 * math.cos(t_s / (9 + 2 * place)),
        trigger="hop",
        reason="no_voice_and_no_face" if mute else None,
        speaking=not mute and speaking,
        faces=int(seen and not mute),
        modalities=absent if mute else Modalities(audio=voice, video=face, text=words),
        mixed=None if mute else seen and smile * valence < -1.5,
        transcript=TextState(source="none" if mute else "simulated"),
        latency_ms=Latency(1.2, 3.1 + 2 * math.sin(t_s), 4.0, 1.1, 9.4 + 2 * math.sin(t_s)),
        dropped=3 if place == 1 else 0,
        mark=mark,
        model=MODEL,
    )


def main() -> None:
    endpoint, names, rate_hz = sys.argv[1], sys.argv[2].split(","), float(sys.argv[3])
    past_s = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    hop_ns = round(S / rate_hz)
    seq = 0
    with ScorePublisher(endpoint) as publisher:
        print(publisher.endpoint, flush=True)
        if past_s:
            while not publisher.greet():
                publisher.raw.poll(100)
            time.sleep(0.5)
            now = now_ns()
            for t_ns in range(now - int(past_s * S), now, hop_ns):
                for place, name in enumerate(names):
                    publisher.publish(score(name, place, seq, t_ns, None))
                seq += 1
                if seq % max(1, 100 // len(names)) == 0:
                    time.sleep(0.02)  # a subscriber's queue holds 1000
        next_ns, told_ns = now_ns(), 0
        while True:
            mark = None
            if select.select([sys.stdin], [], [], 0)[0]:
                mark = sys.stdin.readline().strip() or None
            publisher.greet()
            for place, name in enumerate(names):
                message = score(name, place, seq, next_ns, mark)
                publisher.publish(message)
                print(name, seq, message.valence, flush=True)
            seq += 1
            if next_ns - told_ns >= S:
                told_ns = next_ns
                envelope = Envelope("inference", seq, next_ns, next_ns, now_ns(), this_clock())
                publisher.publish(Status(envelope, "inference", "running", "stage"))
            next_ns += hop_ns
            time.sleep(max(0, next_ns - now_ns()) / S)


if __name__ == "__main__":
    main()
