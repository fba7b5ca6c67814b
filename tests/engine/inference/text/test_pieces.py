"""Speech is cut by what is heard, not by how it arrives, and is read at fixed points of time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.inference.text.pieces import PieceCutter, Reading
from engine.wire.messages import Audio, Clock, Envelope

MS = 1_000_000
FRAME_MS = 10
DELAY_MS = 750


def level(pattern: str, frame_ms: int = FRAME_MS) -> tuple[list[bool], np.ndarray]:
    """``s500 .300`` is half a second of speech, then .3 s of silence; ``q`` is quiet speech."""
    flags: list[bool] = []
    sound: list[np.ndarray] = []
    generator = np.random.default_rng(0)
    for part in pattern.split():
        frames = int(part[1:]) // frame_ms
        amplitude = {"s": 3000, "q": 100, ".": 5}[part[0]]
        flags += [part[0] != "."] * frames
        noise = generator.normal(size=frames * 16 * frame_ms) * amplitude
        sound.append(noise.astype(np.int16))
    return flags, np.concatenate(sound)


def readings(
    pattern: str,
    chunk_frames: int = 5,
    t0_ms: int = 0,
    gap_at: int | None = None,
    longest_ms: int = 4000,
) -> list[Reading]:
    flags, sound = level(pattern)
    cutter = PieceCutter(longest_ms * MS, DELAY_MS * MS)
    found: list[Reading] = []
    for first in range(0, len(flags), chunk_frames):
        part = flags[first : first + chunk_frames]
        start_ns = (t0_ms + first * FRAME_MS) * MS
        end_ns = start_ns + len(part) * FRAME_MS * MS
        message = Audio(
            envelope=Envelope("s", first, start_ns, end_ns, end_ns, Clock("", "")),
            samples=sound[first * 160 : (first + len(part)) * 160],
            speech=tuple(part),
            frame_ms=FRAME_MS,
            level_dbfs=-20.0,
        )
        cutter.push(message, gap_at == first, t0_ms * MS)
        found += cutter.pop_ready()
    return found


def times(found: list[Reading]) -> list[tuple[bool, int, int, int]]:
    return [(r.final, r.t_start_ns // MS, r.t_end_ns // MS, r.counts_from_ns // MS) for r in found]


def test_a_piece_ends_with_its_pause_and_counts_after_the_delay() -> None:
    found = [r for r in readings(".500 s700 .600") if r.final]
    assert times(found) == [(True, 300, 1200, 1200 + DELAY_MS)]
    # With 200 ms before the voice and 150 ms after it.
    assert len(found[0].samples) == (1200 - 300 + 150) * 16
    assert found[0].voiced_ns == 700 * MS


def test_the_words_of_an_open_piece_come_to_count_where_windows_end() -> None:
    tentative = [r for r in readings("s3500 .400") if not r.final]
    assert [r.counts_from_ns // MS for r in tentative] == [2000, 3000, 4000]
    assert [r.t_end_ns // MS for r in tentative] == [1250, 2250, 3250]
    assert len({r.piece for r in tentative}) == 1


def test_a_piece_is_not_read_just_before_it_ends() -> None:
    cut_soon = [r.counts_from_ns // MS for r in readings(".500 s6000") if not r.final]
    # From 300 on, with its lead: cut at 4300, and read then in place of 4250.
    assert [ms for ms in cut_soon if ms <= 5000] == [2000, 3000, 4000]
    # From 850 on: 4250 is 600 ms before its cut, and its end counts from 5450 on in place of 5000.
    later = [r for r in readings(".1050 s6000") if r.t_end_ns <= 4850 * MS]
    assert [r.counts_from_ns // MS for r in later] == [3000, 4000, 5450]
    assert [r.final for r in later] == [False, False, True]
    paused = readings("s1200 .600")
    assert [(r.final, r.t_end_ns // MS) for r in paused] == [(True, 1200)]
    assert paused[0].counts_from_ns <= (1250 + DELAY_MS) * MS


@pytest.mark.parametrize("chunk_frames", [1, 3, 7, 40])
def test_the_cut_does_not_depend_on_the_chunks(chunk_frames: int) -> None:
    pattern = ".230 s900 .350 s6000 .400 s130 .500 s2000 .400"
    expected, found = readings(pattern), readings(pattern, chunk_frames)
    assert times(found) == times(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


def test_a_long_piece_is_cut_at_its_quiet_point_and_nothing_is_lost() -> None:
    found = [r for r in readings("s2900 q200 s3000 .400") if r.final]
    assert next(r.t_end_ns // MS for r in found) in range(2900, 3101)
    assert found[1].t_start_ns == found[0].t_end_ns
    spoken = sum(len(r.samples) for r in found) / 16
    assert spoken == 2900 + 200 + 3000 + 150
    # The cut was decided when the piece was full; its words are not asked for in the past.
    assert found[0].counts_from_ns // MS >= 4000


def test_speech_without_a_pause_is_cut_on_and_on() -> None:
    found = [r for r in readings("s60000") if r.final]
    assert len(found) >= 15
    assert all(r.t_end_ns - r.t_start_ns <= 4000 * MS for r in found)
    assert all(a.t_end_ns == b.t_start_ns for a, b in itertools.pairwise(found))


def test_a_gap_ends_a_piece() -> None:
    found = [r for r in readings("s1000 s1000 .400", gap_at=100) if r.final]
    assert [(r.t_start_ns // MS, r.t_end_ns // MS) for r in found] == [(0, 1000), (1000, 2000)]


def test_a_click_holds_no_word() -> None:
    assert readings(".500 s50 .600") == []


def test_readings_are_numbered_in_order() -> None:
    found = readings("s2500 .400 s2500 .400")
    assert [r.order for r in found] == list(range(len(found)))
    assert [r.piece for r in found if r.final] == [0, 1]


def test_a_piece_whose_sender_is_gone_is_read_and_let_go() -> None:
    flags, sound = level("s1000")
    cutter = PieceCutter(4000 * MS, DELAY_MS * MS)
    envelope = Envelope("s", 0, 0, 1000 * MS, 1000 * MS, Clock("", ""))
    cutter.push(Audio(envelope, sound, tuple(flags), FRAME_MS, -20.0), False, 0)
    assert [reading for reading in cutter.pop_ready() if reading.final] == []
    cutter.break_off(999 * MS)
    assert cutter.pop_ready() == [], "its sound may still go on"
    cutter.break_off(1000 * MS)
    assert times(cutter.pop_ready()) == [(True, 0, 1000, 1000 + DELAY_MS)]
    cutter.break_off(5000 * MS)
    later = Envelope("s", 1, 9000 * MS, 10_000 * MS, 10_000 * MS, Clock("", ""))
    cutter.push(Audio(later, sound, tuple(flags), FRAME_MS, -20.0), True, 0)
    assert [reading for reading in cutter.pop_ready() if reading.final] == []
