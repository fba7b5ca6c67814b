"""Chunks, sequence numbers and sampled pictures: what gives messages their times."""

from itertools import pairwise

import numpy as np
import pytest

from engine.capture.microphone import Block, SampleClock
from engine.capture.stamps import Chunker, FrameSampler, Stamper, to_int16
from engine.settings import load
from engine.wire.clock import MEMORY_BLOCKS
from engine.wire.messages import Clock

MS = 1_000_000
CLOCK = Clock("here", "boot")


def chunker() -> Chunker:
    return Chunker(load(), Stamper("main", CLOCK))


def test_chunks_have_one_length_and_touch_each_other() -> None:
    chunks, feed = chunker(), np.arange(4000, dtype=np.int16)
    chunks.anchor(1_000 * MS)
    found = [m for part in np.array_split(feed, 13) for m in chunks.push(part)]
    assert [len(message.samples) for message in found] == [800] * 5
    assert np.concatenate([message.samples for message in found]).tolist() == feed.tolist()
    assert [message.envelope.seq for message in found] == [0, 1, 2, 3, 4]
    assert found[0].envelope.t_start_ns == 1_000 * MS
    for before, after in pairwise(found):
        assert after.envelope.t_start_ns == before.envelope.t_end_ns
    assert found[-1].envelope.t_end_ns == 1_250 * MS
    assert len(found[0].speech) == 5


def test_a_gap_is_counted_with_what_waited_for_it() -> None:
    chunks = chunker()
    chunks.push(np.zeros(300, np.int16))
    chunks.anchor(500 * MS, lost_samples=1000)
    (first, second) = chunks.push(np.zeros(1600, np.int16))
    assert (first.gap_samples, second.gap_samples) == (1300, 0)
    assert first.envelope.t_start_ns == 500 * MS


def test_the_end_gives_the_whole_frames_that_remain() -> None:
    chunks = chunker()
    assert chunks.push(np.zeros(500, np.int16)) == []
    (rest,) = chunks.flush()
    assert len(rest.samples) == 480


@pytest.mark.parametrize(
    ("fps", "expected"), [(25, 25 / 3), (24, 12), (30, 10), (60, 10), (10, 10), (6, 6)]
)
def test_every_nth_picture_is_kept(fps: int, expected: float) -> None:
    sampler = FrameSampler(10.0)
    times = [round(i * 1e9 / fps) for i in range(10 * fps)]
    kept = [t for t in times if sampler.wants(t)]
    assert len(kept) / 10 == pytest.approx(expected, rel=0.02)
    assert np.ptp(np.diff(kept)) < MS


def test_after_a_pause_the_sampler_does_not_catch_up() -> None:
    sampler = FrameSampler(10.0)
    for t_ms in range(0, 1_000, 40):
        sampler.wants(t_ms * MS)
    later = [t_ms for t_ms in range(5_000, 6_000, 40) if sampler.wants(t_ms * MS)]
    assert later[0] == 5_000
    assert len(later) <= 13


def blocks(count: int, start: int = 0, late_ms: float = 0, jitter_ms: float = 0) -> list[Block]:
    samples = np.zeros(800, np.int16)
    return [
        Block(int((i * 50 + late_ms + (jitter_ms if i % 3 else 0)) * MS), samples, False)
        for i in range(start, start + count)
    ]


def test_a_microphone_that_delivers_in_bursts_has_no_gap() -> None:
    clock = SampleClock(chunker(), 16_000)
    messages = [m for block in blocks(60, jitter_ms=45) for m in clock.push(block)]
    assert clock.gaps == 0
    ends = [message.envelope.t_end_ns for message in messages]
    assert np.allclose(np.diff(ends), 50 * MS, atol=MS)


def test_a_lasting_delay_is_a_gap_of_its_length() -> None:
    clock = SampleClock(chunker(), 16_000)
    feed = blocks(10) + blocks(MEMORY_BLOCKS + 10, start=10, late_ms=200)
    messages = [m for block in feed for m in clock.push(block)]
    assert clock.gaps == 1
    lost = [message.gap_samples for message in messages if message.gap_samples]
    assert lost == [3200]
    assert messages[-1].envelope.t_end_ns == pytest.approx((44 * 50 + 200 + 50) * MS, abs=MS)


def test_an_overflow_is_a_gap_at_once() -> None:
    clock = SampleClock(chunker(), 48_000)
    samples = np.zeros(2400, np.int16)
    for i in range(4):
        clock.push(Block(i * 50 * MS, samples, False))
    clock.push(Block(400 * MS, samples, True))
    assert clock.gaps == 1


def test_floats_become_integers_without_wrapping() -> None:
    assert to_int16(np.array([1.5, -1.5, 0.5], np.float32)).tolist() == [32767, -32768, 16384]


@pytest.mark.parametrize("ppm", [200, -200])
def test_chunks_of_a_drifting_device_touch_and_none_is_lost(ppm: float) -> None:
    clock, samples = SampleClock(chunker(), 16_000), np.zeros(800, np.int16)
    step_ns = 50 * MS / (1 + ppm / 1e6)
    feed = [Block(int(i * step_ns), samples, False) for i in range(20 * 60)]
    messages = [m for block in feed for m in clock.push(block)]
    assert clock.gaps == 0
    assert len(messages) == len(feed)
    for before, after in pairwise(messages):
        assert after.envelope.t_start_ns == before.envelope.t_end_ns
    assert messages[-1].envelope.t_end_ns == pytest.approx(len(feed) * step_ns, abs=MS)
