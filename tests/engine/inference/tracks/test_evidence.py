"""Frames that wait for their projection, and the projected ones by time."""

import numpy as np
import pytest

from engine.inference.tracks.evidence import Evidence

MS = 1_000_000


def frames(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], 3, axis=1)


def times(*ends_ms: int) -> np.ndarray:
    return np.array(ends_ms, np.int64) * MS


def project(evidence: Evidence) -> None:
    waiting = evidence.pending()
    assert waiting is not None
    evidence.accept(np.repeat(10 * waiting[:, :1], 7, axis=1))


def test_frames_wait_together_and_are_found_by_their_end_once_projected() -> None:
    evidence = Evidence(projected_dim=7, capacity=10)
    assert evidence.pending() is None
    evidence.add(frames(1, 2), times(40, 80))
    evidence.add(frames(), times())
    evidence.add(frames(3), times(120))
    waiting = evidence.pending()
    assert waiting is not None
    np.testing.assert_array_equal(waiting, frames(1, 2, 3))
    assert not len(evidence.between(0, 200 * MS)), "a frame counts when it is projected"
    project(evidence)
    assert evidence.pending() is None
    found = evidence.between(40 * MS, 120 * MS)
    assert found.shape == (2, 7)
    np.testing.assert_array_equal(found[:, 0], [20, 30])


def test_times_that_a_clocks_jitter_took_back_stay_in_order() -> None:
    evidence = Evidence(projected_dim=7, capacity=10)
    evidence.add(frames(1, 2), times(40, 80))
    evidence.add(frames(3), times(79))
    project(evidence)
    evidence.add(frames(4), times(78))
    project(evidence)
    np.testing.assert_array_equal(evidence.between(79 * MS, 80 * MS)[:, 0], [20, 30, 40])


def test_the_newest_are_kept_and_a_projection_of_other_rows_is_refused() -> None:
    evidence = Evidence(projected_dim=7, capacity=2)
    evidence.add(frames(1, 2, 3), times(40, 80, 120))
    project(evidence)
    np.testing.assert_array_equal(evidence.between(0, 120 * MS)[:, 0], [20, 30])
    evidence.add(frames(4, 5), times(160, 200))
    with pytest.raises(ValueError, match=r"expected \[2, 7\] frames, got \[1, 7\]"):
        evidence.accept(np.ones((1, 7), np.float32))
