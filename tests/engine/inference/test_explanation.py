"""What each modality says by itself: the same as if the others had never been there."""

from __future__ import annotations

import pytest

from engine.inference.explanation import LAST_STRIDE, Said, contradict, is_due
from engine.settings import InferenceSettings
from engine.wire.messages import Score
from tests.engine.inference.test_core import MS, T0, face, make_core, sound


def scores(sounds: bool, faces: bool, **options: object) -> list[Score]:
    """Ten seconds of a stream; the newest scores first."""
    core, _ = make_core(**options)
    found: list[Score] = []
    for step in range(100):
        now_ns = T0 + (step + 1) * 100 * MS
        if sounds:
            for seq in range(step * 5 // 2, (step + 1) * 5 // 2):
                core.push(sound(seq), now_ns)
        if faces:
            core.push(face(step), now_ns)
        found += core.pop_ready(now_ns + 300 * MS)
    return found


def test_a_modality_says_by_itself_what_it_says_where_the_others_are_absent() -> None:
    both, seen = scores(True, True), scores(False, True)
    by_end = {score.envelope.t_end_ns: score for score in seen}
    compared = 0
    for score in both:
        alone = by_end.get(score.envelope.t_end_ns)
        if alone is None or alone.valence_window is None or score.video.valence is None:
            continue
        assert score.video.valence == pytest.approx(alone.valence_window, abs=1e-6)
        assert score.valence_window != pytest.approx(alone.valence_window, abs=1e-6)
        compared += 1
    assert compared > 5


def test_the_only_modality_says_what_the_score_says() -> None:
    for score in scores(False, True):
        if score.valence_window is not None:
            assert score.video.valence == score.valence_window
            assert score.mixed is None


def test_absent_modalities_say_nothing_and_the_others_have_intervals() -> None:
    last = scores(True, True)[-1]
    for part in (last.audio, last.video, last.text):
        assert (part.valence is None) == (not part.present)
        if part.valence is not None:
            assert part.interval is not None
            assert part.interval.low <= part.valence <= part.interval.high
    assert last.mixed is not None


def test_it_can_be_switched_off_and_costs_no_row_then() -> None:
    core, backend = make_core(settings=InferenceSettings(explain=False))
    asked, asking = make_core()
    for each in (core, asked):
        for seq in range(100):
            each.push(sound(seq), T0 + 40 * seq * MS)
        for seq in range(40):
            each.push(face(seq), T0 + 100 * seq * MS)
    without = core.pop_ready(T0 + 4_500 * MS)[-1]
    with_it = asked.pop_ready(T0 + 4_500 * MS)[-1]
    assert (without.video.valence, without.mixed) == (None, None)
    assert without.valence_window == with_it.valence_window
    rows = [
        max(shape[0] for graph, shape in network.calls if graph == "fusion")
        for network in (backend, asking)
    ]
    assert rows[0] == 1
    assert rows[1] > 1


def test_with_many_streams_each_is_asked_less_often() -> None:
    shares = [
        sum(is_due(place, streams) for place in range(0, 10 * LAST_STRIDE)) / (10 * LAST_STRIDE)
        for streams in (1, 2, 4, 16)
    ]
    assert shares == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((Said(2, 1, 2.5), Said(-1, -2, -0.5)), True),
        ((Said(2, 1, 2.5), Said(-1, -2, 1.2)), False),  # the intervals touch
        ((Said(2, 1.5, 2.5), Said(0.5, 0.2, 0.9)), False),  # both positive
        ((Said(2, 1, 2.5),), False),
        ((Said(0.1, -1, 1), Said(2, 1.5, 2.5), Said(-2, -2.5, -1.5)), True),
    ],
)
def test_a_contradiction_needs_other_signs_and_intervals_apart(
    said: tuple[Said, ...], expected: bool
) -> None:
    assert contradict(said) is expected
