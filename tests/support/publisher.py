"""A publisher of made-up scores in a process of its own: ``publisher.py ENDPOINT SCRIPT``.

SCRIPT is a comma-separated list: ``NAME:SEQ`` publishes a score, ``NAME:SEQ:nil`` one without a
value, ``wait:MS`` waits, ``noise`` sends something malformed, ``hold`` waits for the end of
standard input, ``beat`` sends a status and a score of ``beat`` for ever.
"""

import sys
import time

from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import (
    Envelope,
    Interval,
    Latency,
    ModalityState,
    ModelInfo,
    Score,
    Status,
)
from engine.wire.sockets import ScorePublisher


def score(stream: str, seq: int, valence: float | None = 0.5) -> Score:
    envelope = Envelope(stream, seq, now_ns() - 10**9, now_ns(), now_ns(), this_clock())
    seen, absent = ModalityState(True, 1.0, 1.0, 0.9), ModalityState(False, 0.0, 0.0)
    return Score(
        envelope,
        valence,
        valence,
        None if valence is None else Interval(valence - 1, valence + 1),
        0.1,
        "hop",
        "no_voice_and_no_face" if valence is None else None,
        seen,
        absent,
        absent,
        "none",
        True,
        1,
        Latency(1, 2, 3, 4, 10),
        0,
        ModelInfo("example", "1", "0" * 64, "onnx:cpu", "float32", True),
    )


def status() -> Status:
    return Status(Envelope("inference", 0, 0, 0, 0, this_clock()), "inference", "running")


def beat(publisher: ScorePublisher) -> None:
    seq = 0
    while True:
        publisher.publish(status())
        publisher.publish(score("beat", seq))
        seq += 1
        publisher.raw.poll(100)
        publisher.greet()


def main() -> None:
    with ScorePublisher(sys.argv[1]) as publisher:
        print(publisher.endpoint, flush=True)
        for step in sys.argv[2].split(","):
            name, _, value = step.partition(":")
            if name == "subscriber":
                while not publisher.greet():
                    publisher.raw.poll(100)
            elif name == "wait":
                time.sleep(float(value) / 1000)
            elif name == "noise":
                publisher.raw.send_multipart([b"score/a/", b"\xff\x00nonsense"])
            elif name == "status":
                publisher.publish(status())
            elif name == "hold":
                sys.stdin.read()
            elif name == "beat":
                beat(publisher)
            else:
                seq, _, nil = value.partition(":")
                publisher.publish(score(name, int(seq), None if nil else 0.5))
            publisher.greet()


if __name__ == "__main__":
    main()
