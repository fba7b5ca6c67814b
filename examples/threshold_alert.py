"""An alert when somebody has been clearly negative for a while: by the interval, not the value.

The whole 90 % interval has to stay below the threshold: a model that is not sure raises no alarm,
and a moment without voice and face starts the count again.

Usage: python examples/threshold_alert.py [THRESHOLD [SECONDS [ENDPOINT]]]      (ends with Ctrl-C)
"""

import contextlib
import sys

from clients import Subscriber

threshold = float(sys.argv[1]) if len(sys.argv) > 1 else -0.5
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
below_since_ns: dict[str, int] = {}

with Subscriber(*sys.argv[3:]) as scores, contextlib.suppress(KeyboardInterrupt):
    for score in scores:
        name, now_ns = score.envelope.stream, score.envelope.t_end_ns
        if score.interval is None or score.interval.high >= threshold:
            below_since_ns.pop(name, None)
        elif now_ns - below_since_ns.setdefault(name, now_ns) >= seconds * 1e9:
            print(f"{name}: below {threshold:+.1f} for {seconds:g} s", flush=True)
            del below_since_ns[name]
