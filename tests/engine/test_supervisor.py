from __future__ import annotations

from engine.supervisor import (
    FIRST_DELAY_S,
    HEALTHY_S,
    LAST_DELAY_S,
    SILENCE_S,
    START_S,
    Link,
    RestartPolicy,
)


def test_delays_double_up_to_the_longest() -> None:
    policy = RestartPolicy()
    now_s, delays = 100.0, []
    for _ in range(9):
        policy.started(now_s)
        restart_s = policy.failed(now_s + 1.0)
        delays.append(round(restart_s - now_s - 1.0, 6))
        now_s = restart_s
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays[-1] == LAST_DELAY_S
    assert delays == sorted(delays)


def test_a_healthy_minute_forgives() -> None:
    policy = RestartPolicy()
    for now_s in (0.0, 1.0, 2.0):
        policy.started(now_s)
        policy.failed(now_s)
    policy.started(10.0)
    end_s = 10.0 + HEALTHY_S
    assert policy.failed(end_s) == end_s + FIRST_DELAY_S


def test_silence_after_a_status_is_a_hang() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.heard(1.0)
    assert not policy.hung(1.0 + SILENCE_S, 0.0)
    assert policy.hung(1.1 + SILENCE_S, 0.0)


def test_a_start_is_given_more_time() -> None:
    policy = RestartPolicy()
    policy.started(5.0)
    assert not policy.hung(5.0 + START_S, 0.0)
    assert policy.hung(5.1 + START_S, 0.0)


def test_a_restart_begins_afresh() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.heard(1.0)
    policy.started(20.0)
    assert not policy.hung(25.0, 0.0)


def test_silence_does_not_count_while_nothing_can_be_heard() -> None:
    policy = RestartPolicy()
    policy.started(0.0)
    policy.heard(1.0)
    assert not policy.hung(50.0, None)
    assert not policy.hung(50.0, 48.0)
    assert policy.hung(50.0, 46.0)


def test_a_break_of_the_link_begins_a_new_time() -> None:
    link = Link()
    assert link.since(0.0) is None
    link.heard(1.0)
    link.heard(2.0)
    assert link.since(3.0) == 1.0
    assert link.since(2.1 + SILENCE_S) is None
    link.heard(9.0)
    assert link.since(9.5) == 9.0
