import math

import pytest

from engine.inference.rolling import Observation, RollingValence


def rolling(half_life_s: float = 2.0, hold_s: float = 6.0) -> RollingValence:
    return RollingValence(half_life_s, hold_s, warm_up_s=4.0)


def seen(valence: float, half_width: float = 1.0) -> Observation:
    return Observation(valence, valence - half_width, valence + half_width)


def test_a_steady_score_is_approached_in_the_half_life() -> None:
    filtered = rolling()
    for step in range(100):
        filtered.update(step * 0.5, seen(-1.0))
    values = [filtered.update(50 + step * 0.5, seen(1.0)).valence for step in range(4)]
    assert values[-1] == pytest.approx(0.0, abs=0.02)
    assert values == sorted(values)


def test_a_window_that_holds_more_than_the_one_before_stands_for_both() -> None:
    def last(evidence: list[float]) -> float:
        filtered = rolling()
        values = [0.0, 0.5, 1.0, 2.0]
        for step, (value, share) in enumerate(zip(values, evidence, strict=True)):
            filtered.update(step * 0.5, Observation(value, value - 1, value + 1, share))
        told = filtered.update(2.0, None).valence
        assert told is not None
        return told

    averaged, growing, doubling = (
        last(evidence) for evidence in ([0.5] * 4, [0.125, 0.25, 0.375, 0.5], [0.1, 0.2, 0.4, 0.8])
    )
    assert averaged < growing < doubling
    assert doubling == pytest.approx(2.0)
    assert last([0.5, 0.4, 0.3, 0.2]) == pytest.approx(averaged)


def test_an_unsure_window_moves_the_valence_less_than_a_sure_one() -> None:
    moved = []
    for half_width in (0.3, 1.0, 3.0):
        filtered = rolling()
        for step in range(20):
            filtered.update(step * 0.5, seen(0.0))
        moved.append(filtered.update(10.0, seen(1.0, half_width)).valence)
    assert moved[0] > moved[1] > moved[2] > 0


def test_the_interval_does_not_shrink_by_averaging_and_grows_in_silence() -> None:
    filtered = rolling()
    for step in range(50):
        steady = filtered.update(step * 0.5, seen(0.5))
    assert steady.interval is not None
    assert steady.interval.high - steady.interval.low == pytest.approx(2.0, abs=1e-6)
    width = 2.0
    for step in range(50, 61):
        silent = filtered.update(step * 0.5, None)
        assert silent.valence == pytest.approx(0.5)
        assert silent.interval is not None
        assert silent.interval.high - silent.interval.low > width
        width = silent.interval.high - silent.interval.low
    heard = filtered.update(30.5, seen(0.5))
    assert heard.interval is not None
    assert heard.interval.high - heard.interval.low < width


def test_after_hold_there_is_no_valence_and_a_new_start_is_fresh() -> None:
    filtered = rolling(hold_s=2.0)
    filtered.update(0.0, seen(2.0))
    assert filtered.update(1.5, None).valence == pytest.approx(2.0)
    gone = filtered.update(2.0, None)
    assert (gone.valence, gone.interval, gone.trend_per_s) == (None, None, None)
    assert gone.reason == "no_voice_and_no_face"
    assert filtered.update(2.5, seen(-1.0)).valence == pytest.approx(-1.0)


def test_at_the_start_it_is_warming_up_but_not_for_ever() -> None:
    filtered = rolling()
    assert filtered.update(100.0, None).reason == "warming_up"
    assert filtered.update(103.9, None).reason == "warming_up"
    assert filtered.update(104.0, None).reason == "no_voice_and_no_face"


@pytest.mark.parametrize("valence", [-3.0, -2.5, 0.0, 2.9, 3.0])
def test_the_interval_contains_the_valence_and_stays_in_range(valence: float) -> None:
    filtered = rolling()
    for step in range(30):
        wobble = math.sin(step) * 0.7
        bounded = min(max(valence + wobble, -3), 3)
        state = filtered.update(step * 0.5, Observation(bounded, bounded - 2, bounded + 0.1))
        assert state.interval is not None
        assert state.valence is not None
        assert -3 <= state.interval.low <= state.valence <= state.interval.high <= 3


def test_trend_has_the_sign_and_size_of_a_ramp_and_fades_in_silence() -> None:
    filtered = rolling(half_life_s=1.0)
    for step in range(20):
        state = filtered.update(step * 0.5, seen(-2 + 0.1 * step))
    assert state.trend_per_s == pytest.approx(0.2, abs=0.03)
    for step in range(20, 28):
        state = filtered.update(step * 0.5, None)
    assert state.trend_per_s == pytest.approx(0.0, abs=0.02)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        rolling().update(0.0, Observation(math.nan, 0.0, 0.0))


@pytest.mark.parametrize(("half_life_s", "stall_s"), [(1.0, 2000.0), (0.005, 0.5)])
def test_a_long_stall_by_the_half_life_leaves_numbers(half_life_s: float, stall_s: float) -> None:
    filtered = RollingValence(half_life_s, hold_s=1e6, warm_up_s=4.0)
    filtered.update(0.0, seen(1.0))
    state = filtered.update(stall_s, seen(-2.0))
    assert state.valence == pytest.approx(-2.0), "nothing is left of what was believed before"
    again = filtered.update(stall_s + 0.5, seen(-2.0))
    assert again.valence == pytest.approx(-2.0)
    assert again.interval is not None
    filtered.update(stall_s * 2 + 1, None)
    late = filtered.update(stall_s * 3 + 1, seen(0.5))
    assert late.valence == pytest.approx(0.5)


def test_the_interval_that_widens_unseen_is_of_the_bundles_own_level() -> None:
    widths = []
    for coverage in (0.5, 0.9):
        filtered = RollingValence(1.0, hold_s=10.0, warm_up_s=4.0, coverage=coverage)
        filtered.update(0.0, seen(0.0))
        state = filtered.update(9.9, None)
        assert state.interval is not None
        widths.append(state.interval.high - state.interval.low)
    assert widths[0] == pytest.approx(widths[1], rel=0.05), "the scale just before it is given up"
