"""Tell when what somebody says and how they look contradict each other: a smile over bad news.

A score says what voice, words and face each say by themselves, with an interval of their own;
``mixed`` is true where two of them have other signs and intervals that do not touch.

Usage: python examples/mixed_signals.py [ENDPOINT]      (ends with Ctrl-C)
"""

import contextlib
import sys

from clients import Subscriber

NAMES = {"audio": "voice", "text": "words", "video": "face"}
mixed_before: set[str] = set()

with Subscriber(*sys.argv[1:]) as scores, contextlib.suppress(KeyboardInterrupt):
    for score in scores:
        name = score.envelope.stream
        if score.mixed and name not in mixed_before:
            parts = {label: getattr(score, modality).valence for modality, label in NAMES.items()}
            said = ", ".join(f"{label} {v:+.1f}" for label, v in parts.items() if v is not None)
            print(f"{name}: mixed signals: {said}", flush=True)
        if score.mixed:
            mixed_before.add(name)
        else:
            mixed_before.discard(name)
