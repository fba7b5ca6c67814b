"""The LSL bridge's values and times, without LSL."""

from __future__ import annotations

import math
import sys

import pytest
from msgspec.structs import replace

from clients.bridges import BridgeError, Names
from clients.lsl import CHANNELS, Outlets, load, sample_of
from engine.wire.messages import Clock, Interval
from tests.support.scores import MODEL, PRESENT, make_score, make_status

FAR = Clock("far", "boot-9")
MS = 1_000_000


def test_a_sample_holds_the_channels_in_order_and_nan_for_what_is_absent() -> None:
    score = make_score(valence=1.0)
    text = replace(PRESENT, weight=0.25)
    audio = replace(PRESENT, valence=-1.5, interval=Interval(-2.0, -1.0))
    parts = replace(score.modalities, text=text, audio=audio)
    score = replace(score, modalities=parts, mixed=True)
    sample = dict(zip((label for label, _ in CHANNELS), sample_of(score), strict=True))
    absent = [name for name, value in sample.items() if math.isnan(value)]
    assert absent == ["valence_text", "valence_video"]
    assert {name: value for name, value in sample.items() if name not in absent} == {
        "valence": 1.0, "low": 0.0, "high": 2.0,
        "weight_audio": 0.5, "weight_text": 0.25, "weight_video": 0.5,
        "valence_audio": -1.5, "mixed": 1.0,
    }  # fmt: skip
    assert all(map(math.isnan, sample_of(make_score(valence=None))))


def test_names_are_bounded_counted_and_may_go() -> None:
    names = Names(2)
    assert [names.admit(name) for name in "abacdc"] == [True, True, True, False, False, False]
    assert names.refused == 2
    names.forget("a")
    assert names.admit("e")
    assert not names.admit("a")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(BridgeError, match=r'pip install -e "\.\[lsl\]"'):
        load()


def test_a_new_model_gets_a_new_outlet_and_streams_beyond_the_limit_none() -> None:
    lsl, said = FakeLsl(), []
    outlets = Outlets(lsl, said.append)
    outlets.take(make_score("a", 0))
    outlets.take(make_score("a", 1, model=replace(MODEL, version="2")))
    outlets.take(make_status())
    assert [(o.name, len(o.samples)) for o in lsl.opened] == [("Undertone a", 1)] * 2
    for n in range(80):
        outlets.take(make_score(f"s{n}"))
    assert len(lsl.opened) == 2 + 63
    assert [text for text in said if text.startswith("more than 64 streams")] == [said[-1]]


class FakeLsl:
    """As much of pylsl as an outlet needs; the real one is in the integration test."""

    IRREGULAR_RATE, cf_float32 = 0.0, 1

    def __init__(self) -> None:
        self.opened: list[FakeOutlet] = []

    def StreamInfo(self, name: str, *_: object) -> FakeInfo:
        return FakeInfo(name)

    def StreamOutlet(self, info: FakeInfo) -> FakeOutlet:
        self.opened.append(FakeOutlet(info.name))
        return self.opened[-1]

    def local_clock(self) -> float:
        return 0.0


class FakeInfo:
    def __init__(self, name: str) -> None:
        self.name = name

    def desc(self) -> FakeInfo:
        return self

    def append_child(self, _: str) -> FakeInfo:
        return self

    def append_child_value(self, name: str, value: str) -> None:
        assert isinstance(value, str), f"LSL's metadata is text: {name}"


class FakeOutlet:
    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: list[list[float]] = []

    def push_sample(self, sample: list[float], _: float) -> None:
        self.samples.append(sample)
