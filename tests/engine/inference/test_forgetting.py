"""Streams that end are forgotten; marks and losses are told right."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.inference import roster as module
from engine.settings import InferenceSettings
from engine.wire.messages import Audio, Text
from tests.engine.inference.test_core import MS, T0, envelope, make_core, play, sound


def test_a_stream_is_told_once_when_it_is_forgotten() -> None:
    core, _ = make_core(settings=InferenceSettings(stream_timeout_s=2.0))
    play(core, [sound(seq, stream="short") for seq in range(20)])
    assert core.pop_forgotten() == []
    now_ns = T0 + 800 * MS
    while core.streams:
        core.pop_ready(now_ns)
        now_ns += 100 * MS
    assert core.pop_forgotten() == ["short"]
    assert core.pop_forgotten() == []


def test_score_numbers_of_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NUMBERED", 3)
    core, _ = make_core()
    for name in "abcdef":
        play(core, [sound(seq, stream=name) for seq in range(20)])
    assert len(core._roster._score_seq) == 3


def test_every_mark_is_in_a_score_or_refused() -> None:
    core, _ = make_core()
    accepted, scores = [], play(core, [sound(seq) for seq in range(20)])
    for number in range(40):
        label = f"question number {number}"
        if core.mark(label):
            accepted.append(label)
    scores += play(core, [sound(seq) for seq in range(20, 60)])
    published = [label for score in scores if score.mark for label in score.mark.split("; ")]
    assert published == accepted
    assert 5 < len(accepted) < 40
    assert core.mark("later") == 1


def test_senders_that_take_turns_lose_nothing_by_it() -> None:
    core, _ = make_core()
    for seq in range(60):
        message = sound(seq)
        # A second sender took over with numbers of its own, and the first still says a word.
        number = seq if seq < 20 or seq == 25 else 700 + seq
        core.push(
            replace(message, envelope=replace(message.envelope, seq=number)),
            message.envelope.t_end_ns,
        )
    assert core.counters.get("messages_lost", 0) == 0


def test_what_is_lost_in_a_real_gap_is_still_counted() -> None:
    core, _ = make_core()
    play(core, [sound(seq) for seq in (*range(20), *range(70, 90))])
    assert core.counters["messages_lost"] == 50


def test_a_transcript_that_makes_the_encoder_raise_is_counted_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(text: str) -> None:
        raise IndexError("token 99999 is out of range")

    core, _ = make_core(encode_text=broken)
    messages: list[Audio | Text] = [sound(seq) for seq in range(50)]
    messages.append(Text(envelope(0, 1000, 0), "words"))
    assert play(core, messages)
    assert core.counters["text_failed"] == 1
    assert core.counters["text_unavailable"] == 1
    assert "out of range" in caplog.text


def test_a_stream_that_falls_silent_gives_its_memory_back_and_may_go_on() -> None:
    core, _ = make_core(settings=InferenceSettings(stream_timeout_s=60.0))
    before = play(core, [sound(seq) for seq in range(50)])
    track = core._roster["s"].audio
    assert track.frames is not None
    assert track.frames.memory_bytes > 0
    now_ns = T0 + 2_000 * MS
    while now_ns < T0 + 12_000 * MS:
        core.pop_ready(now_ns)
        now_ns += 100 * MS
    assert track.frames.memory_bytes == 0
    assert not track._segments
    after = play(core, [sound(seq, at_ms=12_000 + 40 * seq) for seq in range(50, 100)])
    assert before[-1].valence is not None
    assert after[-1].valence is not None


def test_a_step_scores_a_bounded_number_of_streams_and_the_next_one_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 4)
    core, _ = make_core()
    names = [f"s{number}" for number in range(10)]
    for seq in range(13):
        for name in names:
            core.push(sound(seq, stream=name), T0 + 40 * (seq + 1) * MS)
    now_ns, batches = T0 + 1_000 * MS, []
    while (deadline_ns := core.next_deadline_ns()) is not None and deadline_ns <= now_ns:
        batches.append([score.envelope.stream for score in core.pop_ready(now_ns)])
    assert [len(batch) for batch in batches if batch] == [4, 4, 2]
    assert sorted(name for batch in batches for name in batch) == names


def test_streams_that_were_here_first_are_scored_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 3)
    monkeypatch.setattr(module, "FIRST", 1)
    core, _ = make_core()
    for seq in range(13):
        for name in ("zoe", "a", "b", "c", "d"):
            core.push(sound(seq, stream=name), T0 + 40 * (seq + 1) * MS)
    now_ns = T0 + 1_000 * MS
    assert [score.envelope.stream for score in core.pop_ready(now_ns)] == ["zoe", "a", "b"]
