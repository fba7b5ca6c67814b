"""The first score of a running engine (undertone run --source sample), and what is in it.

Usage: python examples/first_score.py [ENDPOINT]
"""

import sys

from clients import Subscriber

with Subscriber(*sys.argv[1:]) as scores:
    score = next(iter(scores))

print(f"stream    {score.envelope.stream}")
if score.valence is None or score.interval is None:
    print(f"valence   none: {score.reason}")
else:
    print(f"valence   {score.valence:+.2f} in [-3, 3]")
    print(f"interval  {score.interval.low:+.2f} to {score.interval.high:+.2f}, 90 %")
for name, part in (("audio", score.audio), ("text", score.text), ("video", score.video)):
    print(f"{name}     {part.weight:4.0%} of the score" if part.present else f"{name}     absent")
print(f"latency   {score.latency_ms.total:.1f} ms after the window's last sample")
if not score.model.trained:
    print("The model is UNTRAINED: these numbers mean nothing.")
