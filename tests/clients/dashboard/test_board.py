"""What there is to show, judged by what was last heard."""

import json

from msgspec.structs import replace

from clients.dashboard.board import Board, score_json
from clients.events import Gap
from engine.wire.clock import this_clock
from engine.wire.messages import Clock, Envelope, Score, Status
from tests.clients.dashboard.test_history import read_frame
from tests.support.stage import score

S = 1_000_000_000
UNIX_NS = 1_700_000_000 * S


def board(**options: int) -> Board:
    return Board("tcp://here", UNIX_NS, 10 * S, **options)


def at(t_s: float, stream: str = "ann", mark: str | None = None) -> Score:
    return score(stream, 0, int(t_s * 2), int(t_s * S), mark)


def status(t_s: float, state: str = "running") -> Status:
    envelope = Envelope("inference", 0, 0, 0, int(t_s * S), this_clock())
    return Status(envelope, "inference", state, "detail", {"scores": 3}, {"streams": 1.0})  # type: ignore[arg-type]


def test_an_engine_is_awaited_live_gone_and_back() -> None:
    seen = board()
    assert (seen.view(11 * S).engine, seen.view(11 * S).engine_since_ms) == (
        "waiting",
        UNIX_NS / 1e6 + 10_000,
    )
    seen.take(status(12), 12 * S)
    assert seen.view(13 * S).engine == "live"
    gone = seen.view(20 * S)
    assert (gone.engine, gone.engine_since_ms) == ("gone", UNIX_NS / 1e6 + 12_000)
    assert gone.workers[0].silent_since_ms == UNIX_NS / 1e6 + 12_000
    seen.take(status(30), 30 * S)
    back = seen.view(31 * S)
    assert (back.engine, back.engine_since_ms) == ("live", UNIX_NS / 1e6 + 30_000)
    assert back.workers[0].counters == {"scores": 3}


def test_all_times_move_when_the_wall_clock_is_set() -> None:
    seen = board()
    seen.take(at(12, mark="here"), 12 * S)
    assert not seen.set_clock(UNIX_NS + S // 10)
    assert seen.set_clock(UNIX_NS + 3600 * S)
    moved_ms = UNIX_NS / 1e6 + 3_600_000 + 12_000
    header, rows = read_frame(seen.frames(13 * S)[0])
    assert rows["t"].tolist() == [moved_ms]
    assert header["marks"] == [[moved_ms, "here"]]
    (newest,) = seen.newest()
    assert json.loads(newest)["t_ms"] == moved_ms
    assert seen.view(13 * S).now_ms == moved_ms + 1000
    later = seen.take(at(14), 14 * S)
    assert later is not None
    assert json.loads(later)["t_ms"] == moved_ms + 2000


def test_a_worker_that_ended_is_not_called_silent() -> None:
    seen = board()
    seen.take(status(12, "ended"), 12 * S)
    assert seen.view(40 * S).workers[0].silent_since_ms is None


def test_a_streams_silence_and_losses() -> None:
    seen = board()
    seen.take(at(12), 12 * S)
    seen.take(Gap("ann", 4), 12 * S)
    seen.take(Gap("nobody", 4), 12 * S)
    (fresh,) = seen.view(13 * S).streams
    assert (fresh.name, fresh.silent_since_ms, fresh.lost) == ("ann", None, 4)
    assert seen.running(13 * S) == {"ann"}
    (silent,) = seen.view(16 * S).streams
    assert silent.silent_since_ms == UNIX_NS / 1e6 + 12_000
    assert seen.running(16 * S) == frozenset()


def test_a_stream_with_a_long_hop_is_not_silent_between_its_scores() -> None:
    seen = board()
    for t_s in (10, 18):
        seen.take(at(t_s), t_s * S)
    assert seen.running(24 * S) == {"ann"}


def test_a_score_is_the_wires_numbers_and_its_own_time() -> None:
    one = at(12.5, mark="begin")
    text = board().take(one, 13 * S)
    assert text is not None
    values = json.loads(text)
    assert values["t_ms"] == UNIX_NS / 1e6 + 12_500
    assert (values["valence"], values["low"], values["high"]) == (
        one.valence,
        one.interval.low,
        one.interval.high,
    )
    assert values["video_weight"] == one.video.weight
    assert (values["mark"], values["trained"], values["latency_wait_ms"]) == (
        "begin",
        True,
        one.latency_ms.wait,
    )
    assert json.loads(score_json(at(1, "mute"), 0))["valence"] is None


def test_another_hosts_score_is_put_where_it_arrived() -> None:
    one = at(12.5)
    elsewhere = replace(one, envelope=replace(one.envelope, clock=Clock("far", "other")))
    text = board().take(elsewhere, 90 * S)
    assert json.loads(text or "")["t_ms"] == UNIX_NS / 1e6 + 90_000


def test_a_recording_replayed_in_the_same_boot_is_shown_as_it_comes() -> None:
    shown = board()
    for n in range(100):  # recorded at 12 s of this boot, replayed at 5000 s
        one = at(12 + n / 2)
        again = replace(one, envelope=replace(one.envelope, seq=n))
        assert shown.take(again, int((5000 + n / 2) * S)) is not None
    now_ns = 5050 * S
    (frame,) = shown.frames(now_ns)
    assert read_frame(frame)[0]["count"] == 100


def test_a_repetition_is_shown_and_is_no_sign_of_life() -> None:
    shown, old = board(), at(12)
    again = replace(old, envelope=replace(old.envelope, repeated=True))
    assert shown.take(again, 90 * S) is not None
    assert shown.view(90 * S).engine == "waiting"
    assert shown.take(again, 91 * S) is None
    assert shown.take(at(92), 92 * S) is not None
    assert shown.view(92 * S).engine == "live"


def test_streams_are_bounded_and_a_silent_one_makes_room() -> None:
    seen = board(max_streams=2)
    seen.take(at(12, "a"), 12 * S)
    seen.take(at(12, "b"), 13 * S)
    assert seen.take(at(12, "c"), 14 * S) is None
    assert seen.view(14 * S).streams_refused == 1
    assert seen.take(at(16, "c"), 16 * S) is not None
    assert [stream.name for stream in seen.view(16 * S).streams] == ["b", "c"]


def test_what_was_silent_for_the_whole_span_is_forgotten() -> None:
    seen = board()
    seen.take(at(12), 12 * S)
    seen.take(status(12), 12 * S)
    seen.prune(3_611 * S)
    assert len(seen.view(3_611 * S).streams) == 1
    seen.prune(3_613 * S)
    assert seen.view(3_613 * S).streams == ()
    assert seen.view(3_613 * S).workers == ()


def test_the_view_is_json() -> None:
    seen = board()
    seen.take(status(12), 12 * S)
    seen.take(at(12), 12 * S)
    values = json.loads(seen.view(13 * S).to_json())
    assert values["engine"] == "live"
    assert values["workers"][0]["gauges"] == {"streams": 1.0}
    assert values["now_ms"] == UNIX_NS / 1e6 + 13_000
    assert len(seen.frames(13 * S)) == len(seen.newest()) == 1
