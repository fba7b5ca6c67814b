"""A stream that moves: two workers' cores and the tape between them, without a socket."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.capture.tape import KEEP_NS, Tape
from engine.inference.core import InferenceCore
from engine.wire.messages import Audio, Score, Video
from tests.engine.inference.test_core import MS, T0, face, make_core, play, sound

HOP_MS = 500
Media = Audio | Video


def chunk(seq: int, shift_ms: float = 0.0) -> Audio:
    """50 ms chunks would divide the hop; these of 40 ms do where it counts: every 500 ms of 2."""
    return sound(seq, at_ms=40 * seq + shift_ms)


def numbered(messages: list[Media], epoch: int) -> list[Media]:
    return [replace(m, envelope=replace(m.envelope, epoch=epoch)) for m in messages]


def played(tape: Tape, epoch: int) -> list[Media]:
    """Everything that the tape has to send now, as the route would stamp it."""
    found = []
    while (item := tape.next()) is not None:
        message, resume = item
        stamped = replace(message.envelope, epoch=epoch, resume=resume)
        found.append(replace(message, envelope=stamped))
        tape.sent()
    return found


def take_over(core: InferenceCore, messages: list[Media], now_ns: int) -> list[Score]:
    """Messages of the past arrive at once; then the worker's loop turns until it has caught up."""
    scores: list[Score] = []
    for message in messages:
        core.push(message, now_ns)
        scores += core.pop_ready(now_ns)
    while turn := core.pop_ready(now_ns):
        scores += turn
    return scores


def ends(scores: list[Score]) -> list[int]:
    return [(score.envelope.t_end_ns - T0) // MS for score in scores]


def test_the_next_worker_scores_the_very_next_window_and_counts_on() -> None:
    messages: list[Media] = [sound(i) for i in range(250)]  # 10 s
    first, _ = make_core()
    second, _ = make_core()
    tape = Tape()
    before = play(first, numbered(messages[:200], 1))
    for message in messages[:212]:  # the first worker died at 8 s, its loss is seen 0.48 s later
        tape.push(message)
    last = before[-1].envelope
    assert tape.rewind(HOP_MS * MS, last.t_end_ns, last.seq) > 0
    now_ns = messages[211].envelope.t_end_ns
    after = take_over(second, played(tape, 2), now_ns)
    after += play(second, numbered(messages[212:], 2))
    assert ends(before + after) == list(range(500, 10_001, 500))
    assert [s.envelope.seq for s in before + after] == list(range(20))
    assert [s.envelope.epoch for s in before + after] == [1] * 16 + [2] * 4
    assert after[0].audio.coverage == pytest.approx(1.0, abs=0.15)
    assert after[0].valence == pytest.approx(play_whole(messages)[16].valence, abs=0.1)


def play_whole(messages: list[Media]) -> list[Score]:
    core, _ = make_core()
    return play(core, messages)


def test_windows_that_are_owed_are_scored_one_by_one_and_older_ones_are_counted() -> None:
    messages: list[Media] = [sound(i) for i in range(250)]
    second, _ = make_core()
    tape = Tape()
    for message in messages:
        tape.push(message)
    scored_ns = T0 + 6_000 * MS
    tape.rewind(HOP_MS * MS, scored_ns, 11)
    after = take_over(second, played(tape, 2), messages[-1].envelope.t_end_ns)
    assert ends(after) == [8_000, 8_500, 9_000, 9_500, 10_000]
    assert [s.envelope.seq for s in after] == [15, 16, 17, 18, 19]  # a client sees that 3 are lost
    assert second.counters["windows_dropped"] == 3


def test_nothing_is_scored_while_the_past_is_still_arriving() -> None:
    messages: list[Media] = [sound(i) for i in range(200)]
    core, _ = make_core()
    tape = Tape()
    for message in messages:
        tape.push(message)
    tape.rewind(HOP_MS * MS, T0 + 7_500 * MS, 14)
    past = played(tape, 2)
    now_ns = messages[-1].envelope.t_end_ns
    for message in past[:-1]:
        core.push(message, now_ns)
        assert core.pop_ready(now_ns) == []
    deadline_ns = core.next_deadline_ns()
    assert deadline_ns is not None
    assert deadline_ns > now_ns, "a loop that waits for the rest must not spin"
    core.push(past[-1], now_ns)
    assert ends(core.pop_ready(now_ns)) == [8_000]


def test_a_past_that_stays_away_is_waited_for_a_second() -> None:
    core, _ = make_core()
    tape = Tape()
    for i in range(200):
        tape.push(sound(i))
    tape.rewind(HOP_MS * MS, T0 + 7_500 * MS, 14)
    past = played(tape, 2)
    now_ns = T0 + 8_000 * MS
    for message in past[:-30]:
        core.push(message, now_ns)
    assert core.pop_ready(now_ns + 999 * MS) == []
    assert core.pop_ready(now_ns + 1_001 * MS) != []


@pytest.mark.parametrize("moved_at_ms", [9_300, 10_400, 11_800])
def test_a_cut_in_the_sound_neither_loses_nor_repeats_a_window_across_a_move(
    moved_at_ms: int,
) -> None:
    """A clip that begins again after a pause: the grid is laid anew, also on the tape."""
    late = [chunk(i, shift_ms=25.0) for i in range(250, 400)]
    messages: list[Media] = [*(chunk(i) for i in range(250)), *late]
    whole = play_whole(list(messages))
    first, _ = make_core()
    second, _ = make_core()
    tape = Tape()
    early = [m for m in messages if m.envelope.t_end_ns <= T0 + moved_at_ms * MS]
    for message in early:
        tape.push(message)
    before = play(first, numbered(early, 1))
    held = first.release("s", 1)
    tape.rewind(HOP_MS * MS, held.t_end_ns, held.seq)
    after = take_over(second, played(tape, 2), early[-1].envelope.t_end_ns)
    after += play(second, numbered(messages[len(early) :], 2))
    assert ends(before + after) == ends(whole)
    assert [s.envelope.seq for s in before + after] == [s.envelope.seq for s in whole]


def test_a_released_stream_is_scored_no_more_and_says_how_far_it_came() -> None:
    core, _ = make_core()
    scores = play(core, numbered([sound(i) for i in range(100)], 3))
    held = core.release("s", 3)
    assert (held.t_end_ns, held.seq) == (scores[-1].envelope.t_end_ns, scores[-1].envelope.seq)
    assert core.release("s", 3) == held
    assert core.streams == ()
    assert core.next_deadline_ns() is None
    assert play(core, numbered([sound(i) for i in range(100, 150)], 3)) == []
    assert core.counters["messages_of_old_epoch"] == 50
    # It comes back under a later placement.
    assert play(core, numbered([sound(i) for i in range(150, 200)], 4)) != []
    assert core.release("s", 3) == held
    assert core.streams == ("s",)


def test_what_comes_late_by_an_older_way_is_not_mixed_in() -> None:
    core, _ = make_core()
    play(core, numbered([sound(i) for i in range(50)], 5))
    assert not core.push(numbered([sound(50)], 4)[0], T0 + 2_040 * MS)
    assert core.counters["messages_of_old_epoch"] == 1
    assert core.held()["s"].epoch == 5


def test_a_tape_keeps_the_span_of_a_window_and_begins_at_a_hop() -> None:
    tape = Tape()
    for i in range(400):
        tape.push(sound(i))
        if i < 100:
            tape.sent()
    assert tape.dropped > 0
    assert tape.rewind(HOP_MS * MS, -1, -1) <= KEEP_NS // (40 * MS)
    item = tape.next()
    assert item is not None
    message, resume = item
    assert (message.envelope.t_start_ns - T0) % (HOP_MS * MS) < 40 * MS
    assert resume is not None
    assert (resume.t_end_ns, resume.until_ns) == (-1, sound(399).envelope.t_end_ns)


def test_what_follows_the_past_has_no_word_of_resuming() -> None:
    tape = Tape()
    for i in range(10):
        tape.push(face(i))
    tape.rewind(HOP_MS * MS, -1, -1)
    tape.push(face(10))
    resumes = [m.envelope.resume for m in played(tape, 1)]
    assert all(resume is not None for resume in resumes[:-1])
    assert resumes[-1] is None
