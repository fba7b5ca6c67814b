"""Recordings by stream: one axis of time, losses, bins and the summary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as model_replace

from clients.sessions import Loss, sessions, summary
from engine.wire.messages import Clock
from engine.wire.rows import Row, row_of
from tests.support.scores import MODEL, make_score

EPOCH = 1e9


def row(t_s: float, seq: int, **changes: object) -> Row:
    """Received 10 ms after it was sent, which is 10 ms after its window's end."""
    return row_of(make_score(seq=seq, t_s=t_s, **changes), EPOCH + t_s + 0.02)  # type: ignore[arg-type]


def test_streams_of_one_clock_share_an_axis() -> None:
    rows = [row(100, 0, stream="a"), row(102, 0, stream="b"), row(100.5, 1, stream="a")]
    a, b = sessions(rows)
    assert (a.stream, b.stream) == ("a", "b")
    assert a.t_s == pytest.approx([0, 0.5], abs=1e-6)
    assert b.t_s == pytest.approx([2], abs=1e-6)


def test_clocks_of_two_boots_meet_on_the_wall_clock_by_the_fastest_message() -> None:
    other = Clock("here", "boot-2")
    rows = [
        row(1000, 0),
        replace(row(1001, 1), received_unix_s=EPOCH + 1001.5),  # was late
        replace(row(50, 0, clock=other), received_unix_s=EPOCH + 1010.02),
        replace(row(51, 1, clock=other), received_unix_s=EPOCH + 1011.02),
    ]
    (session,) = sessions(rows)
    assert session.t_s == pytest.approx([0, 1, 10, 11], abs=1e-6)


def test_losses_are_jumps_of_seq_and_rises_of_the_counter() -> None:
    rows = [
        row(100, 0, dropped=7),
        row(101, 4, dropped=7),
        row(102, 5, dropped=9),
        row(103, 0, dropped=0),  # a restarted engine lost nothing that is known
    ]
    (session,) = sessions(rows)
    assert [(round(loss.t_s), loss.count, loss.kind) for loss in session.losses] == [
        (1, 3, "lost"),
        (2, 2, "dropped"),
    ]
    assert isinstance(session.losses[0], Loss)


def test_a_curve_is_broken_at_a_pause_and_at_no_value() -> None:
    valences = {0: 1.0, 1: None, 2: 1.0, 3: 1.0, 13: 2.0, 14: 2.0, 15: 2.0}
    rows = [row(100 + t, n, valence=v) for n, (t, v) in enumerate(valences.items())]
    (session,) = sessions(rows)
    assert session.pauses().tolist() == [4]
    t_s, values = session.curve("valence")
    assert t_s == pytest.approx([0, 1, 2, 3, 12, 13, 14, 15], abs=1e-6)
    assert np.isnan(values).tolist() == [False, True, False, False, True, False, False, False]


def test_bins_hold_mean_and_extremes_and_leave_gaps_empty() -> None:
    valences = [0.0, 1.0, None, None, 2.0, 3.0, 2.5]
    (session,) = sessions(row(100 + n, n, valence=v) for n, v in enumerate(valences))
    binned = session.binned("valence", 2.0)
    assert binned.t_s == pytest.approx([1, 3, 5, 7], abs=1e-6)
    np.testing.assert_allclose(binned.mean, [0.5, np.nan, 2.5, 2.5])
    np.testing.assert_allclose(binned.low, [0, np.nan, 2, 2.5])
    np.testing.assert_allclose(binned.high, [1, np.nan, 3, 2.5])


def test_the_summary_counts_shares() -> None:
    valences = [1.0, 2.0, -1.0, 0.0, None]
    rows = [row(100 + n, n, valence=v, latency_ms=10.0 + n) for n, v in enumerate(valences)]
    untrained = model_replace(MODEL, trained=False)
    rows[1] = row(101, 1, valence=valences[1], latency_ms=11.0, mark="here", model=untrained)
    (session,) = sessions(rows)
    found = summary(session)
    assert (found.scores, found.seconds) == (5, pytest.approx(4))
    assert found.mean == pytest.approx(0.5)
    assert (found.positive, found.negative, found.nil) == (0.5, 0.25, 0.2)
    assert found.width == pytest.approx(2.0)
    assert (found.speaking, found.face) == (0.8, 0.8)
    assert found.latency_p50_ms == pytest.approx(12)
    assert (found.lost, found.dropped, found.marks, found.trained) == (0, 0, 1, False)
    assert found.model == f"{MODEL.name} {MODEL.version} on {MODEL.backend}"


def test_a_stream_without_any_value_has_no_mean() -> None:
    found = summary(sessions([row(100, 0, valence=None)])[0])
    assert (found.mean, found.positive, found.width, found.nil) == (None, None, None, 1.0)
    assert sessions([]) == []
