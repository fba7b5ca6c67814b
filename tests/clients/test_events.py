"""What a subscriber is told: gaps, repetitions, and silence where something is expected."""

from __future__ import annotations

from msgspec.structs import replace

from clients.events import NS_PER_S, Event, Gap, Stale, Tracker
from engine.wire.messages import Score, Status
from tests.support.scores import make_score, make_status


def tell(tracker: Tracker, now_s: float, *messages: object) -> list[Event]:
    return [e for m in messages for e in tracker.take(m, int(now_s * NS_PER_S))]  # type: ignore[arg-type]


def silent(tracker: Tracker, now_s: float) -> list[str]:
    found = tracker.silent(int(now_s * NS_PER_S))
    assert all(isinstance(event, Stale) for event in found)
    return sorted(event.source for event in found)  # type: ignore[union-attr]


def capture(name: str, state: str = "running") -> object:
    return make_status(name, state, worker="capture")  # type: ignore[arg-type]


def test_a_jump_is_a_gap_a_repetition_nothing_and_a_fall_a_restart() -> None:
    tracker = Tracker(1.0)
    events = tell(tracker, 0, *(make_score(seq=n) for n in (3, 4, 4, 7, 0)))
    assert [e.missing if isinstance(e, Gap) else e.envelope.seq for e in events] == [3, 4, 2, 7, 0]  # type: ignore[union-attr]
    assert isinstance(events[2], Gap)


def test_a_repetition_is_news_to_a_newcomer_alone_and_no_sign_of_life() -> None:
    def again(message: Score | Status) -> Score | Status:
        return replace(message, envelope=replace(message.envelope, repeated=True))

    tracker = Tracker(1.0)
    assert len(tell(tracker, 0, again(make_score(seq=4)), again(make_status()))) == 2
    assert tell(tracker, 0.9, again(make_score(seq=4)), again(make_status())) == []
    assert silent(tracker, 1.1) == ["inference", "main"]
    assert tell(tracker, 2, again(make_score(seq=4)), again(make_status())) == []
    assert silent(tracker, 9) == [], "told once already"
    assert len(tell(tracker, 9, make_score(seq=5))) == 1


def test_whoever_falls_silent_is_told_of_once_until_it_is_heard_again() -> None:
    tracker = Tracker(1.0)
    tell(tracker, 0, make_score(), make_status())
    assert silent(tracker, 0.9) == []
    assert silent(tracker, 1.1) == ["inference", "main"]
    assert silent(tracker, 5) == []
    tell(tracker, 5, make_score(seq=1))
    assert silent(tracker, 6.1) == ["main"]


def test_nothing_is_expected_of_an_engine_that_took_its_leave() -> None:
    tracker = Tracker(1.0)
    tell(tracker, 0, make_status(), capture("main.clip"), make_score(), make_score("b"))
    tell(tracker, 0.5, make_status(state="stopping"))
    assert silent(tracker, 10) == []
    tell(tracker, 20, make_status(), make_score(seq=0))
    assert silent(tracker, 30) == ["inference", "main"]


def test_the_stream_of_a_clip_that_ended_is_not_told_as_silent() -> None:
    tracker = Tracker(1.0)
    tell(tracker, 0, make_status(), capture("a.clip"), capture("b.clip"))
    tell(tracker, 0, make_score("a"), make_score("b"))
    tell(tracker, 0.5, capture("a.clip", "ended"))
    events = tell(tracker, 0.7, make_score("a", seq=1))  # its last window, scored after its end
    assert isinstance(events[0], Score)
    assert silent(tracker, 2) == ["b", "b.clip", "inference"]
    tell(tracker, 3, capture("a.clip"), make_score("a", seq=2))
    assert silent(tracker, 5) == ["a", "a.clip"]


def test_a_stream_ends_with_the_last_of_its_workers() -> None:
    tracker = Tracker(1.0)
    tell(tracker, 0, capture("a.microphone"), capture("a.camera"), make_score("a"))
    tell(tracker, 0, capture("a.camera", "ended"))
    assert silent(tracker, 2) == ["a", "a.microphone"]
    tell(tracker, 2, make_score("a", seq=1), capture("a.microphone", "ended"))
    assert silent(tracker, 9) == []


def moved(seq: int, t_s: float, epoch: int) -> Score:
    score = make_score(seq=seq, t_s=t_s)
    return replace(score, envelope=replace(score.envelope, epoch=epoch))


def test_a_stream_that_moves_is_followed_by_its_numbers_or_else_by_its_time() -> None:
    tracker = Tracker(1.0)
    assert len(tell(tracker, 0, moved(7, 1.0, 5), moved(8, 1.5, 5))) == 2
    (score,) = tell(tracker, 0, moved(9, 2.0, 6))  # its next worker knows the number
    assert isinstance(score, Score)
    gap, _ = tell(tracker, 0, moved(0, 4.0, 7))  # the one after that does not
    assert isinstance(gap, Gap)
    assert gap.missing == 3
    # The same number under another placement is no repetition.
    assert len(tell(tracker, 0, moved(0, 4.5, 8))) == 1
    assert tell(tracker, 0, moved(0, 4.5, 8)) == []


def test_one_worker_of_several_that_stops_takes_no_stream_with_it() -> None:
    tracker = Tracker(1.0)
    tell(tracker, 0, make_status("w1"), make_status("w2"), make_score("a"), make_score("b"))
    tell(tracker, 0.5, make_status("w1", "stopping"))
    assert silent(tracker, 2) == ["a", "b", "w2"]
    tell(tracker, 3, make_status("w2"), make_score("a", seq=1))
    tell(tracker, 3.5, make_status("w2", "stopping"))
    assert silent(tracker, 9) == []
