"""Metrics: counted, bounded in number, parsed by the client library; health by the clock."""

from __future__ import annotations

import math
import sys

import pytest
from msgspec.structs import replace

from clients.bridges import BridgeError
from clients.events import NS_PER_S, Gap, Stale
from clients.metrics import STAGES, Metrics
from engine.wire.messages import Status, WorkerState
from tests.support.scores import make_score, make_status

parser = pytest.importorskip("prometheus_client.parser")
ENDPOINT = "tcp://127.0.0.1:5571"


def take(metrics: Metrics, now_s: float, *events: object) -> None:
    for event in events:
        metrics.take(event, int(now_s * NS_PER_S))  # type: ignore[arg-type]


def read(metrics: Metrics, now_s: float = 0.0) -> dict[tuple[str, ...], float]:
    """Every sample as (name, label values sorted by label) to its value."""
    text = metrics.exposition(int(now_s * NS_PER_S)).decode()
    return {
        (sample.name.removeprefix("undertone_"), *(v for _, v in sorted(sample.labels.items()))):
        sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def test_scores_gaps_and_no_values_are_counted_by_stream() -> None:
    metrics = Metrics(ENDPOINT, 5)
    take(metrics, 10, make_score("a", 0), make_score("a", 1, valence=None), make_score("b", 0))
    take(metrics, 10, Gap("a", 3), make_score("a", 5, valence=-1.25), Gap("a", 1))
    found = read(metrics, 12.5)
    assert found["scores_lost_total", "b"] == 0
    assert (found["scores_total", "a"], found["scores_total", "b"]) == (3, 1)
    assert found["scores_nil_total", "no_voice_and_no_face", "a"] == 1
    assert found["nil_share", "a"] == pytest.approx(1 / 3)
    assert (found["gaps_total", "a"], found["scores_lost_total", "a"]) == (2, 4)
    assert found["valence", "a"] == -1.25
    assert found["last_score_age_seconds", "a"] == pytest.approx(2.5)
    assert found["model_trained",] == 1
    take(metrics, 13, make_score("a", 6, valence=None))
    assert math.isnan(read(metrics)["valence", "a"])


def test_drops_rise_with_the_engine_and_survive_its_restart() -> None:
    metrics = Metrics(ENDPOINT, 5)
    for seq, dropped in enumerate((4, 4, 9, 2, 3)):  # counted before us: 4; restarted: 2
        take(metrics, 0, make_score("a", seq, dropped=dropped))
    assert read(metrics)["engine_dropped_total", "a"] == 5 + 2 + 1


def test_latency_is_a_histogram_per_stage() -> None:
    metrics = Metrics(ENDPOINT, 5)
    for latency_ms in (4.0, 8.0, 700.0):
        take(metrics, 0, make_score("a", latency_ms=latency_ms))
    found = read(metrics)
    assert {key[1] for key in found if key[0] == "latency_seconds_count"} == set(STAGES)
    assert found["latency_seconds_bucket", "0.005", "total"] == 1
    assert found["latency_seconds_bucket", "0.01", "total"] == 2
    assert found["latency_seconds_bucket", "+Inf", "total"] == 3
    assert found["latency_seconds_sum", "total"] == pytest.approx(0.712)
    assert found["latency_seconds_sum", "encode"] == pytest.approx(0.009)


def test_streams_beyond_the_limit_are_pooled_and_counted() -> None:
    metrics = Metrics(ENDPOINT, 5, limit=3)
    for n in range(50):
        take(metrics, 0, make_score(f"s{n}"), make_score(f"s{n}", 1), Gap(f"s{n}", 1))
        take(metrics, 0, make_status(f"w{n}.clip", worker="capture"))
    found = read(metrics)
    assert {key[1] for key in found if key[0] == "scores_total"} == {"s0", "s1", "s2", "other"}
    assert found["scores_total", "other"] == 94
    assert found["scores_lost_total", "other"] == 47
    assert (found["streams_pooled",], found["workers_pooled",]) == (47, 47)
    assert ("valence", "other") not in found
    assert {key[-1] for key in found if key[0] == "worker_state"} == {
        "w0.clip",
        "w1.clip",
        "w2.clip",
    }


def test_names_of_counters_are_bounded_too() -> None:
    metrics = Metrics(ENDPOINT, 5)
    for n in range(10):
        take(metrics, 0, make_status(counters={f"c{n}_{k}": k for k in range(50)}))
    assert sum(key[0] == "worker_counter" for key in read(metrics)) == 64


def test_a_stream_long_gone_is_forgotten_and_makes_room() -> None:
    metrics = Metrics(ENDPOINT, 5, limit=1)
    take(metrics, 0, make_score("old"), make_score("old", 1, valence=None), Gap("old", 1))
    assert ("scores_total", "old") in read(metrics, 599)
    assert not [key for key in read(metrics, 601) if "old" in key]
    take(metrics, 602, make_score("new"))
    assert read(metrics, 602)["scores_total", "new"] == 1


def test_worker_state_counters_and_gauges() -> None:
    metrics = Metrics(ENDPOINT, 5)
    take(metrics, 0, make_status(state="starting"))
    take(metrics, 0, make_status(counters={"messages": 7}, gauges={"memory_mb": 124.5}))
    found = read(metrics)
    states = {key[1]: value for key, value in found.items() if key[0] == "worker_state"}
    assert states.pop("running") == 1
    assert set(states.values()) == {0}
    assert found["worker_counter", "messages", "inference"] == 7
    assert found["worker_gauge", "memory_mb", "inference"] == 124.5


def health(metrics: Metrics, now_s: float) -> tuple[bool, str]:
    found = metrics.health(int(now_s * NS_PER_S))
    assert read(metrics, now_s)["up",] == found.healthy
    return found.healthy, found.reason


def test_without_an_engine_it_is_unhealthy() -> None:
    metrics = Metrics(ENDPOINT, 5)
    assert health(metrics, 0) == (False, f"no engine heard on {ENDPOINT}")
    take(metrics, 0, make_status("main.camera", worker="capture"))
    assert not health(metrics, 0)[0]


@pytest.mark.parametrize(
    ("state", "healthy"),
    [("starting", False), ("ready", True), ("running", True), ("paused", True),
     ("stopping", False), ("ended", False)],
)  # fmt: skip
def test_health_goes_by_the_state(state: WorkerState, healthy: bool) -> None:
    metrics = Metrics(ENDPOINT, 5)
    take(metrics, 0, make_status(state=state))
    assert health(metrics, 1) == (healthy, f"engine {state}")


def test_a_silent_engine_is_unhealthy_until_it_is_heard_again() -> None:
    metrics = Metrics(ENDPOINT, 5)
    take(metrics, 0, make_status())
    assert health(metrics, 4.9)[0]
    assert health(metrics, 6) == (False, "engine silent for 6.0 s")
    take(metrics, 6, make_status())
    assert health(metrics, 6)[0]


def running(streams: int) -> Status:
    return replace(make_status(), gauges={"streams": float(streams)})


def test_an_engine_that_runs_but_scores_nothing_is_unhealthy() -> None:
    metrics = Metrics(ENDPOINT, 5)
    take(metrics, 0, make_score("a"), running(1))
    take(metrics, 9, running(1))
    assert health(metrics, 9)[0], "a clip that ended by itself is not told as stale"
    take(metrics, 9, Stale("a", 9.0))
    assert health(metrics, 9) == (False, "no score for 9.0 s")
    take(metrics, 9, running(0))
    assert health(metrics, 9)[0], "the engine has forgotten the stream: nobody is there"
    take(metrics, 10, running(1), make_score("a", 1))
    assert health(metrics, 10)[0]
    take(metrics, 11, Stale("inference", 5.0, worker=True))
    assert health(metrics, 11)[0]


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(BridgeError, match=r'pip install -e "\.\[metrics\]"'):
        Metrics(ENDPOINT, 5)


def test_one_worker_that_stops_leaves_the_others_healthy() -> None:
    metrics = Metrics(ENDPOINT, stale_s=5)
    for name in ("w1", "w2"):
        metrics.take(make_status(name), 0)
    assert health(metrics, 1) == (True, "engine running")
    metrics.take(make_status("w1", "stopping"), 2 * NS_PER_S)
    metrics.take(make_status("w2"), 2 * NS_PER_S)
    assert health(metrics, 3) == (True, "1 of 2 workers at work")
    metrics.take(make_status("w2", "stopping"), 3 * NS_PER_S)
    assert health(metrics, 4) == (False, "engine stopping")
