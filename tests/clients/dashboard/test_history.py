"""The last hour of a stream: bounded, thinned, and read back by its own frame layout."""

import json
import math
import struct

import numpy as np
import pytest
from msgspec.structs import replace

from clients.dashboard.history import FACE, MIXED, NUMBERS, SPEAKING, UNTRAINED, History
from engine.wire.messages import Score
from tests.support.stage import score

S = 1_000_000_000


def at(t_s: float, stream: str = "ann", mark: str | None = None) -> Score:
    return score(stream, 0, 0, int(t_s * S), mark)


def read_frame(frame: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    (length,) = struct.unpack_from("<I", frame)
    header = json.loads(frame[4 : 4 + length])
    place, columns = 4 + length, {}
    assert place % 8 == 0
    kinds = [("t", "<f8"), *((name, "<f4") for name in NUMBERS), ("flags", "u1")]
    for name, dtype in kinds:
        columns[name] = np.frombuffer(frame, dtype, header["count"], place)
        place += columns[name].nbytes
    assert place == len(frame)
    return header, columns


def test_a_frame_holds_what_was_added() -> None:
    history = History()
    scores = [at(5.0 + i / 2) for i in range(20)]
    for i, one in enumerate(scores):
        history.add(1e12 + 500 * i, one)
    header, columns = read_frame(history.frame("ann", 1e12 + 10_000))
    assert (header["kind"], header["stream"], header["count"]) == ("history", "ann", 20)
    assert columns["t"].tolist() == [1e12 + 500 * i for i in range(20)]
    assert columns["v"].tolist() == pytest.approx([one.valence for one in scores], abs=1e-6)
    assert columns["low"][3] == pytest.approx(scores[3].interval.low, abs=1e-6)
    said = [one.video.valence for one in scores]
    assert columns["video"].tolist() == pytest.approx(
        [np.nan if value is None else value for value in said], abs=1e-6, nan_ok=True
    )
    assert [bool(flags & MIXED) for flags in columns["flags"]] == [bool(s.mixed) for s in scores]
    speaking = [bool(flags & SPEAKING) for flags in columns["flags"]]
    assert speaking == [one.speaking for one in scores]
    assert set(speaking) == {True, False}


def test_no_value_keeps_its_reason_and_is_nan() -> None:
    history = History()
    mute = at(1.0, "mute")
    history.add(1000, mute)
    warming = replace(mute, reason="warming_up", model=replace(mute.model, trained=False))
    history.add(2000, warming)
    _, columns = read_frame(history.frame("mute", 2000))
    assert np.isnan(columns["v"]).all()
    assert (columns["flags"] >> 4).tolist() == [1, 2]
    assert (columns["flags"] & UNTRAINED).tolist() == [0, UNTRAINED]
    assert not (columns["flags"] & FACE).any()


def test_memory_is_bounded_and_the_newest_hour_is_kept() -> None:
    history = History()
    for i in range(3 * 7200):
        history.add(500.0 * i, at(1.0))
    assert len(history) == 7200
    assert history.memory_bytes == 7200 * 33
    times = history.rows(500.0 * 3 * 7200)["t"]
    assert times[0] == 500.0 * 2 * 7200
    assert (np.diff(times) == 500).all()


def test_a_fast_stream_keeps_the_newest_point_of_each_slot() -> None:
    history = History()
    for i in range(100):
        history.add(50.0 * i, at(i / 20))
    rows = history.rows(5000)
    assert len(rows) == 10
    assert rows["t"].tolist() == [500.0 * i + 450 for i in range(10)]
    assert rows["v"][-1] == pytest.approx(at(99 / 20).valence, abs=1e-6)


def test_an_older_point_is_left_out_and_old_ones_are_not_shown() -> None:
    history = History(span_ms=10_000)
    for t_ms in (0, 4000, 3000, 12_000):
        history.add(t_ms, at(1.0, mark=str(t_ms)))
    assert history.rows(12_500)["t"].tolist() == [4000, 12_000]
    assert [mark.label for mark in history.marks(12_500)] == ["4000", "12000"]
    assert math.isclose(history.newest_ms or 0, 12_000)
