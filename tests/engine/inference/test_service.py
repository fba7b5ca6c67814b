"""The worker without its sockets, driven by hand over a core that is really there."""

from __future__ import annotations

import msgpack
import pytest

from engine.inference.service import CommandError, InferenceService
from engine.settings import EngineSettings
from engine.wire.codec import MAX_HEADER
from engine.wire.messages import Envelope, Score, Status
from tests.engine.inference.test_core import HERE, MS, T0, make_core, sound


class Clock:
    def __init__(self) -> None:
        self.ns = T0

    def __call__(self) -> int:
        return self.ns


def make_service() -> tuple[InferenceService, Clock, list]:
    core, _ = make_core(clock=HERE)
    clock, published = Clock(), []
    service = InferenceService(
        core, EngineSettings(), HERE, published.append, clock, lambda: 123.0, "numpy on the CPU"
    )
    return service, clock, published


def play(service: InferenceService, clock: Clock, first: int, last: int) -> None:
    for index in range(first, last):
        clock.ns = T0 + 40 * (index + 1) * MS
        service.push(sound(index), clock.ns)
        service.step(clock.ns)


def scores(published: list) -> list[Score]:
    return [message for message in published if isinstance(message, Score)]


def test_a_status_comes_once_a_second_and_at_every_change_of_state() -> None:
    service, clock, published = make_service()
    service.set_state("ready")
    play(service, clock, 0, 100)
    statuses = [message for message in published if isinstance(message, Status)]
    assert [status.state for status in statuses] == ["ready"] + ["running"] * 4
    assert [status.envelope.seq for status in statuses] == [0, 1, 2, 3, 4]
    last = statuses[-1]
    assert last.counters["messages"] > 70
    assert last.gauges["streams"] == 1
    assert last.gauges["memory_mb"] == 123.0
    assert last.gauges["latency_p50_ms"] > 0
    assert last.detail == "numpy on the CPU"


def test_a_scores_latency_runs_until_it_is_handed_over() -> None:
    service, clock, published = make_service()
    play(service, clock, 0, 30)
    first, second = (score.latency_ms for score in scores(published))
    clock.ns += 7 * MS
    assert second.total == pytest.approx(
        second.transport + second.wait + second.encode + second.fuse, abs=1e-6
    )
    assert first.total > 0


def test_a_capture_workers_status_is_passed_on_as_it_is() -> None:
    service, _, published = make_service()
    status = Status(Envelope("cam", 3, T0, T0, T0, HERE), "capture", "reconnecting")
    service.push(status, T0)
    assert published == [status]


def test_a_pause_scores_nothing_and_what_came_meanwhile_is_counted() -> None:
    service, clock, published = make_service()
    service.set_state("ready")
    play(service, clock, 0, 20)
    service.pause()
    before = len(scores(published))
    play(service, clock, 20, 60)
    assert len(scores(published)) == before
    service.resume()
    assert service.state == "ready"
    play(service, clock, 60, 100)
    assert service.state == "running"
    after = scores(published)[before:]
    assert after[0].envelope.t_end_ns >= T0 + 2_400 * MS
    assert after[0].envelope.seq == before
    statuses = [message for message in published if isinstance(message, Status)]
    assert statuses[-1].counters["messages_paused"] == 40


def test_the_worker_wakes_for_the_next_window_or_status() -> None:
    service, _, _ = make_service()
    assert service.wake_ns() == T0 + 1_000 * MS
    service.set_state("ready")
    service.push(sound(0), T0 + 40 * MS)
    assert service.wake_ns() == T0 + 650 * MS


def test_commands_describe_and_mark() -> None:
    service, clock, published = make_service()
    play(service, clock, 0, 5)
    assert service.mark("here", "s") == 1
    play(service, clock, 5, 15)
    assert scores(published)[0].mark == "here"
    described = service.describe()
    assert described["streams"] == ["s"]
    assert described["model"]["trained"] is False
    with pytest.raises(CommandError, match="no stream 'nobody'; known: s"):
        service.mark("here", "nobody")


def test_a_description_of_a_thousand_strangers_streams_fits_a_reply() -> None:
    core, _ = make_core(clock=HERE)
    service = InferenceService(
        core, EngineSettings(), HERE, lambda _: None, Clock(), lambda: 1.0, ""
    )
    for number in range(1024):
        service.push(sound(0, stream=f"{number:04d}" + "字" * 60), T0 + 40 * MS)
    told = service.describe()
    assert len(msgpack.packb({"ok": True, **told})) <= MAX_HEADER
    assert told["stream_count"] == 1024
    assert told["streams"][0] == "0000" + "字" * 60
    assert told["model"]["trained"] == core.model.trained
