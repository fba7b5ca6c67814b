"""Your own transcript: what your speech recogniser heard, sent next to a running stream.

Reads lines from standard input; each is taken as said just now, in the stream's own clock. Scores
say ``text given`` where transcripts cover half of the window's speech and the engine has a text
encoder (in the packaged bundle); without one its status counts the transcript as unavailable.

Usage: echo "what a wonderful day" | python examples/own_transcript.py [STREAM [INGEST [SCORES]]]
"""

import sys

from clients import Subscriber
from engine.wire.clock import now_ns
from engine.wire.ingest import IngestSender
from engine.wire.messages import Envelope, Score, Status, Text

SECONDS_PER_WORD = 0.35
stream = sys.argv[1] if len(sys.argv) > 1 else "main"
ingest = sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:5570"

with IngestSender(ingest) as sender, Subscriber(*sys.argv[3:4]) as scores:
    clock = next(s for s in scores if s.envelope.stream == stream).envelope.clock
    last_ns = 0
    for number, line in enumerate(sys.stdin):
        # A recogniser knows when a phrase was said; here it ended now and took its usual time,
        # but began no earlier than the phrase before it ended: one that overlaps is refused.
        end_ns = now_ns()
        start_ns = max(last_ns, end_ns - int(len(line.split()) * SECONDS_PER_WORD * 1e9))
        last_ns = end_ns
        sender.send(Text(Envelope(stream, number, start_ns, end_ns, end_ns, clock), line.strip()))
    seen = 0
    for event in scores.events():
        if isinstance(event, Score) and event.envelope.stream == stream:
            print(f"text {event.text_source}, {event.text.weight:.0%} of the score", flush=True)
            seen += 1
        if isinstance(event, Status) and event.counters.get("text_unavailable"):
            print("the engine has no text encoder for transcripts", flush=True)
        if seen == 6:
            break
