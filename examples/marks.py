"""Ask three questions, mark each on the timeline, and average the valence of what follows.

Usage: python examples/marks.py [SCORES CONTROL [SECONDS]]
Needs a running engine. A mark is on the first score after it, so that every recording knows it too.
"""

from __future__ import annotations

import sys
import time

from clients import Control, Subscriber

QUESTIONS = ("how was your day", "what went wrong", "what do you look forward to")


def main(scores: str, control: str, seconds: float) -> None:
    with Control(control) as engine, Subscriber(scores) as subscriber:
        next(iter(subscriber))  # a stream is there
        for question in QUESTIONS:
            engine.mark(question)
            values = []
            end = time.monotonic() + seconds
            for score in subscriber:
                if score.mark is not None:
                    print(f"{score.envelope.stream}: {score.mark}")
                if score.valence is not None:
                    values.append(score.valence)
                if time.monotonic() > end:
                    break
            mean = sum(values) / len(values) if values else float("nan")
            print(f"  mean valence {mean:+.2f} of {len(values)} scores")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        given[0] if given else "tcp://127.0.0.1:5571",
        given[1] if len(given) > 1 else "tcp://127.0.0.1:5572",
        float(given[2]) if len(given) > 2 else 10.0,
    )
