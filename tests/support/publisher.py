"""A publisher of made-up scores in a process of its own: ``publisher.py ENDPOINT SCRIPT``.

SCRIPT is a comma-separated list: ``NAME:SEQ`` publishes a score, ``NAME:SEQ:nil`` one without a
value, ``wait:MS`` waits, ``noise`` sends something malformed, ``hold`` waits for the end of
standard input, ``beat`` sends a status and a score of ``beat`` for ever. The endpoint is printed at
the start, or at ``tell``: nobody can hear what was said before.
"""

import sys
import time

from msgspec.structs import replace

from engine.wire.clock import now_ns, this_clock
from engine.wire.messages import Envelope, Score, Status
from engine.wire.scores import ScorePublisher
from tests.support.scores import make_score


def score(stream: str, seq: int, valence: float | None = 0.5) -> Score:
    now = now_ns()
    envelope = Envelope(stream, seq, now - 10**9, now, now, this_clock())
    return replace(make_score(valence=valence), envelope=envelope)


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
        steps = sys.argv[2].split(",")
        if "tell" not in steps:
            print(publisher.endpoint, flush=True)
        for step in steps:
            name, _, value = step.partition(":")
            if name == "subscriber":
                while not publisher.greet():
                    publisher.raw.poll(100)
            elif name == "tell":
                print(publisher.endpoint, flush=True)
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
