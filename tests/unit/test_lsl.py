"""The LSL bridge's values and times, without LSL."""

from __future__ import annotations

import math
from dataclasses import replace

from clients.bridges import Names
from clients.lsl import CHANNELS, Offsets, sample_of
from engine.wire.messages import Clock
from tests.unit.scores import HERE, PRESENT, make_score

FAR = Clock("far", "boot-9")
MS = 1_000_000


def test_a_sample_holds_the_channels_in_order_and_nan_for_what_is_absent() -> None:
    score = replace(make_score(valence=1.0), text=replace(PRESENT, weight=0.25))
    sample = dict(zip((label for label, _ in CHANNELS), sample_of(score), strict=True))
    assert sample == {
        "valence": 1.0, "low": 0.0, "high": 2.0,
        "weight_audio": 0.5, "weight_text": 0.25, "weight_video": 0.5,
    }  # fmt: skip
    assert all(map(math.isnan, sample_of(make_score(valence=None))))


def test_this_hosts_stamps_are_taken_as_they_are() -> None:
    envelope = make_score(t_s=100).envelope
    assert Offsets(HERE).time_ns(envelope, 999 * 10**9) == 100 * 10**9


def test_another_hosts_stamps_are_moved_by_the_fastest_message() -> None:
    offsets, found = Offsets(HERE), []
    for n, transport_ms in enumerate((30, 5, 400)):
        envelope = make_score(t_s=100 + n, clock=FAR).envelope  # sent 10 ms after its end
        received_ns = envelope.t_sent_ns + 7_000 * 10**9 + transport_ms * MS
        found.append(offsets.time_ns(envelope, received_ns) - 7_000 * 10**9)
    assert [(f - (100 + n) * 10**9) // MS for n, f in enumerate(found)] == [30, 5, 5]


def test_names_are_bounded_counted_and_may_go() -> None:
    names = Names(2)
    assert [names.admit(name) for name in "abacdc"] == [True, True, True, False, False, False]
    assert names.refused == 2
    names.forget("a")
    assert names.admit("e")
    assert not names.admit("a")
