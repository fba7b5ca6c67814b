"""A rehearsal before ``ready``: a second of made-up input through a core of its own.

A backend's warm-up runs the graphs; the rest of the way (the mel filters, OpenCV's and numpy's
first calls) is as slow at its first use, and the first window of a stream would pay for it.
"""

from __future__ import annotations

import numpy as np

from engine.backends.protocol import Backend
from engine.inference.core import InferenceCore
from engine.settings import InferenceSettings
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Clock, Envelope, Video
from models.bundle import Bundle

CHUNK_NS = 40_000_000
CHUNKS = 26


def rehearse(bundle: Bundle, backend: Backend) -> int:
    """Score a second of silence, flagged as speech, and black faces; return how many scores."""
    core = InferenceCore(bundle, backend, InferenceSettings())
    samples = np.zeros(SAMPLE_RATE_HZ * CHUNK_NS // 1_000_000_000, np.int16)
    crop = np.zeros((112, 112, 3), np.uint8)
    scores = 0
    for index in range(CHUNKS):
        start_ns = index * CHUNK_NS
        now_ns = start_ns + CHUNK_NS
        envelope = Envelope("rehearsal", index, start_ns, now_ns, now_ns, Clock("", ""))
        core.push(Audio(envelope, samples, (True, True), 20, -120.0), now_ns)
        core.push(Video(envelope, 1, crop), now_ns)
        scores += len(core.pop_ready(now_ns))
    return scores
