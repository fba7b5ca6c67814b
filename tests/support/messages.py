"""Strategies that make any message the protocol allows."""

import numpy as np
from hypothesis import strategies as st

from engine.wire.messages import (
    Audio,
    Box,
    Clock,
    Envelope,
    Interval,
    Latency,
    ModalityState,
    ModelInfo,
    Score,
    Status,
    Text,
    Video,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True)
plain = st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)
shares = st.floats(0, 1)
valences = st.floats(-3, 3)
counts = st.integers(0, 2**40)
short = st.text(max_size=40)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    start = draw(counts)
    clock = Clock(draw(short), draw(short))
    return Envelope(draw(names), draw(counts), start, start + draw(counts), draw(counts), clock)


@st.composite
def audio(draw: st.DrawFn) -> Audio:
    samples = draw(st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
    flags = tuple(draw(st.lists(st.booleans(), max_size=10)))
    level = draw(st.floats(-120, 0))
    array = np.array(samples, np.int16)
    return Audio(draw(envelopes()), array, flags, 20, level, draw(counts))


@st.composite
def video(draw: st.DrawFn) -> Video:
    crop = None
    if draw(st.booleans()):
        height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        crop = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    sides = st.integers(-100, 5000)
    box = draw(st.none() | st.builds(Box, sides, sides, sides, sides))
    score = draw(st.none() | shares)
    return Video(
        draw(envelopes()), draw(st.integers(0, 50)), crop, box, draw(st.none() | counts), score
    )


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    return Interval(*sorted((draw(valences), draw(valences))))


states = st.builds(ModalityState, st.booleans(), shares, shares, st.none() | shares)
milliseconds = st.floats(-1e6, 1e6)
scores = st.builds(
    Score,
    envelopes(),
    st.none() | valences,
    st.none() | valences,
    st.none() | intervals(),
    st.none() | st.floats(-100, 100),
    st.sampled_from(["hop", "speech_end"]),
    st.sampled_from([None, "warming_up", "no_voice_and_no_face"]),
    states,
    states,
    states,
    st.sampled_from(["simulated", "given", "none"]),
    st.booleans(),
    st.integers(0, 9),
    st.builds(Latency, *[milliseconds] * 5),
    counts,
    st.builds(ModelInfo, short, short, short, short, short, st.booleans()),
    st.none() | short,
)
statuses = st.builds(
    Status,
    envelopes(),
    st.sampled_from(["capture", "inference"]),
    st.sampled_from(["starting", "running", "reconnecting", "ended"]),
    short,
    st.dictionaries(plain, counts, max_size=4),
    st.dictionaries(plain, st.floats(-1e9, 1e9), max_size=4),
)
texts = st.builds(Text, envelopes(), st.text(max_size=200))
messages = st.one_of(audio(), video(), scores, statuses, texts)
