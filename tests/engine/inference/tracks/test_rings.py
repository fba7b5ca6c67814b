import numpy as np
import pytest

from engine.inference.tracks.rings import FrameRing, Progress, Spans

MS = 1_000_000


def times(*ms: float) -> np.ndarray:
    return np.array([int(value * MS) for value in ms], np.int64)


def rows(*values: float) -> np.ndarray:
    return np.array([[value, -value] for value in values], np.float32)


def test_ring_returns_the_frames_that_end_within_the_window() -> None:
    ring = FrameRing(dim=2, capacity=8)
    ring.append(rows(1, 2, 3, 4), times(40, 80, 120, 160))
    assert ring.between(40 * MS, 120 * MS)[:, 0].tolist() == [2, 3]
    assert ring.between(0, 10_000 * MS)[:, 0].tolist() == [1, 2, 3, 4]
    assert len(ring.between(160 * MS, 200 * MS)) == 0


def test_ring_keeps_the_newest_frames_through_many_appends() -> None:
    ring = FrameRing(dim=2, capacity=5)
    for index in range(137):
        ring.append(rows(index), times(index))
    assert len(ring) == 5
    assert ring.between(-1, 1_000 * MS)[:, 0].tolist() == [132, 133, 134, 135, 136]
    ring.append(rows(*range(200, 230)), times(*range(200, 230)))
    assert ring.between(-1, 1_000 * MS)[:, 0].tolist() == [225, 226, 227, 228, 229]


def test_ring_refuses_other_shapes_and_times_that_run_backwards() -> None:
    ring = FrameRing(dim=2, capacity=5)
    with pytest.raises(ValueError, match=r"expected \[1, 2\] frames, got \[1, 3\]"):
        ring.append(np.zeros((1, 3), np.float32), times(1))
    ring.append(rows(1), times(10))
    with pytest.raises(ValueError, match="time order"):
        ring.append(rows(1), times(9))
    with pytest.raises(ValueError, match="at least 1"):
        FrameRing(dim=0, capacity=1)


def test_spans_cover_and_leave_holes() -> None:
    spans = Spans()
    spans.add(0, 100 * MS)
    spans.add(100 * MS, 200 * MS)
    spans.add(300 * MS, 400 * MS)
    assert len(spans) == 2
    assert spans.coverage(0, 400 * MS) == pytest.approx(0.75)
    assert spans.coverage(150 * MS, 350 * MS) == pytest.approx(0.5)
    assert spans.ended_in(100 * MS, 300 * MS)
    assert not spans.ended_in(300 * MS, 400 * MS)
    spans.forget(250 * MS)
    assert spans.coverage(0, 400 * MS) == pytest.approx(0.25)


def test_overlapping_spans_are_not_counted_twice() -> None:
    spans = Spans()
    for start in range(0, 1000, 100):
        spans.add(start * MS, (start + 130) * MS)
    assert spans.coverage(0, 1000 * MS) == pytest.approx(1.0)
    assert spans.covered_ns(0, 5000 * MS) == 1030 * MS


def test_progress_waits_for_a_sample_that_may_still_fall_into_the_window() -> None:
    progress = Progress()
    assert not progress.has_reached(0)
    progress.advance(100 * MS)
    assert progress.has_reached(100 * MS)
    assert not progress.has_reached(101 * MS)
    progress.advance(180 * MS)
    progress.advance(300 * MS)
    assert progress.period_ns == 80 * MS
    assert progress.has_reached(371 * MS)
    assert not progress.has_reached(380 * MS)
    assert progress.is_live(400 * MS, 100 * MS)
    assert not progress.is_live(401 * MS, 100 * MS)


def test_a_ring_takes_memory_for_what_has_come_and_gives_it_back() -> None:
    ring = FrameRing(dim=64, capacity=1000)
    ring.append(np.ones((10, 64), np.float32), times(*range(10)))
    assert ring.memory_bytes < 20_000
    for index in range(10, 5000):
        ring.append(np.full((1, 64), index, np.float32), times(index))
    assert len(ring) == 1000
    assert ring.between(4_997 * MS, 4_999 * MS)[:, 0].tolist() == [4998, 4999]
    assert ring.memory_bytes <= 2 * 1000 * (64 * 4 + 8)
    ring.clear()
    assert (len(ring), ring.newest_ns, ring.memory_bytes) == (0, None, 0)
    ring.append(rows_of(64), times(7))
    assert len(ring) == 1


def rows_of(dim: int) -> np.ndarray:
    return np.zeros((1, dim), np.float32)
