"""Time: other clocks against ours, and samples counted on our clock."""

import random

import pytest
from msgspec.structs import replace

from engine.wire.clock import (
    Clocks,
    OffsetEstimator,
    SampleCount,
)
from tests.support.scores import HERE, make_score

MS, S = 1_000_000, 1_000_000_000
FAR = replace(HERE, host="far", boot_id="boot-9")


def test_the_fastest_message_tells_the_offset() -> None:
    estimator, found = OffsetEstimator(), []
    for n, transport_ms in enumerate((30, 5, 80, 0, 12)):
        sent_ns = 1 * S + n * 50 * MS
        found.append(estimator.observe(sent_ns, sent_ns + 4 * S + transport_ms * MS) - 4 * S)
    assert found == [30 * MS, 5 * MS, 5 * MS, 0, 0]


def test_a_clock_that_was_set_is_estimated_from_there() -> None:
    estimator = OffsetEstimator()
    assert estimator.observe(1 * S, 5 * S) == 4 * S
    assert estimator.observe(1 * S + 50 * MS, 65 * S) == 64 * S - 50 * MS
    assert estimator.observe(1 * S + 100 * MS, 65 * S + 50 * MS) == 64 * S - 50 * MS
    assert estimator.observe(200 * S, 100 * S) == -100 * S


@pytest.mark.parametrize("ppm", [500, -500])
def test_a_drifting_clock_is_followed(ppm: float) -> None:
    estimator = OffsetEstimator()
    for n in range(0, 600 * 20):
        sent_ns = n * 50 * MS
        truth_ns = S + round(sent_ns * ppm / 1e6)
        offset_ns = estimator.observe(sent_ns, sent_ns + truth_ns + (n % 7) * MS)
        assert abs(offset_ns - truth_ns) < 20 * MS


def test_a_measured_offset_takes_the_place_of_the_estimate() -> None:
    clocks, envelope = Clocks(HERE), make_score(clock=FAR).envelope
    clocks.learn(FAR, 7)
    assert clocks.observe(envelope, envelope.t_sent_ns + 50 * MS) == 7


def test_one_boot_is_one_clock_however_late_a_message_is() -> None:
    envelope = make_score(t_s=100).envelope
    assert Clocks(HERE).observe(envelope, 900 * S) == 0


def test_a_recording_replayed_on_its_own_host_is_of_another_time() -> None:
    clocks = Clocks(HERE, replays=True)
    for n in range(3):
        envelope = make_score(t_s=100 + n).envelope
        offset_ns = clocks.observe(envelope, (900 + n) * S + n * 50 * MS)
        assert offset_ns is not None
        assert envelope.t_sent_ns + offset_ns == (900 + n) * S
    fresh = make_score(t_s=900).envelope
    assert clocks.observe(fresh, fresh.t_sent_ns + 5 * MS) == 0


def test_a_repetition_tells_nothing_of_a_clock() -> None:
    clocks, envelope = Clocks(HERE, replays=True), make_score(clock=FAR).envelope
    again = replace(envelope, repeated=True)
    assert clocks.observe(again, 500 * S) is None
    clocks.observe(envelope, envelope.t_sent_ns + 3 * S)
    assert clocks.observe(again, 500 * S) == 3 * S
    assert clocks.observe(replace(make_score().envelope, repeated=True), 500 * S) == 0


def test_the_longest_unheard_clock_is_forgotten() -> None:
    clocks, envelope = Clocks(HERE, limit=2), make_score().envelope
    for name in "abac":
        clocks.observe(replace(envelope, clock=replace(FAR, boot_id=name)), envelope.t_sent_ns)
    again = {n: replace(envelope, clock=replace(FAR, boot_id=n), repeated=True) for n in "abc"}
    known = [clocks.observe(again[n], envelope.t_sent_ns) for n in "abc"]
    assert known == [0, None, 0]


def drift(ppm: float, blocks: int, jitter_ms: float) -> tuple[float, int]:
    """Largest error of the count in ms, and what it took for lost, of 50 ms blocks."""
    chance, count, worst, lost = random.Random(1), SampleCount(16_000), 0.0, 0
    step_ns = 50 * MS / (1 + ppm / 1e6)
    for n in range(blocks):
        late_ns = chance.random() * jitter_ms * MS if n % 3 else 0
        step = count.push(int(n * step_ns + late_ns), 800)
        lost += step.lost_ns if step is not None else 0
        worst = max(worst, abs(count.next_ns - (n + 1) * step_ns))
    return worst / MS, lost


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [200, -200])
def test_a_day_of_a_drifting_device_loses_nothing_and_keeps_our_time(ppm: float) -> None:
    worst_ms, lost = drift(ppm, 24 * 3600 * 20, jitter_ms=8)
    assert lost == 0
    assert worst_ms < 20


def test_bursts_are_not_taken_for_losses() -> None:
    assert drift(0, 20 * 60, jitter_ms=45) == (pytest.approx(0, abs=3), 0)
