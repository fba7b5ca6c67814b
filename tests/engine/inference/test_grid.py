import numpy as np

from engine.inference.batch import length_bucket, pad_left, pad_right
from engine.inference.grid import HopGrid
from engine.inference.tracks.rings import Progress

MS = 1_000_000
T0 = 7_000 * MS


def progress(*ms: float) -> Progress:
    track = Progress()
    for value in ms:
        track.advance(T0 + int(value * MS))
    return track


def grid() -> HopGrid:
    return HopGrid(T0, hop_ns=500 * MS, window_ns=4_000 * MS, skew_ns=150 * MS)


def test_a_window_is_due_when_every_live_modality_has_reached_its_end() -> None:
    audio, video = progress(460, 500), progress(300, 400)
    windows = grid()
    assert windows.take([audio, video], T0 + 501 * MS) is None
    video.advance(T0 + 500 * MS)
    due = windows.take([audio, video], T0 + 502 * MS)
    assert due is not None
    assert (due.start_ns, due.end_ns, due.skipped) == (T0 - 3_500 * MS, T0 + 500 * MS, 0)
    assert windows.take([audio, video], T0 + 503 * MS) is None


def test_a_modality_that_lags_is_waited_for_no_longer_than_the_skew() -> None:
    audio, video = progress(460, 500), progress(100, 200)
    windows = grid()
    assert windows.deadline_ns == T0 + 650 * MS
    assert windows.take([audio, video], T0 + 649 * MS) is None
    assert windows.take([audio, video], T0 + 650 * MS) is not None


def test_a_modality_that_has_gone_is_not_waited_for() -> None:
    windows = grid()
    assert windows.take([progress(460, 500), progress(-900, -600)], T0 + 501 * MS) is not None


def test_a_late_stream_gets_its_newest_window_and_the_rest_are_counted() -> None:
    windows = grid()
    due = windows.take([progress(2_060, 2_100)], T0 + 2_101 * MS)
    assert due is not None
    assert (due.end_ns, due.skipped) == (T0 + 2_000 * MS, 3)
    due = windows.take([], T0 + 3_650 * MS)
    assert due is not None
    assert (due.end_ns, due.skipped) == (T0 + 3_500 * MS, 2)


def test_lengths_fall_into_few_buckets() -> None:
    assert [length_bucket(n, 100) for n in (0, 1, 2, 3, 33, 65, 99, 100, 101, 201)] == [
        1, 1, 2, 4, 64, 100, 100, 100, 200, 300,
    ]  # fmt: skip
    assert len({length_bucket(n, 100) for n in range(101)}) == 8


def test_padding_is_masked_and_absent_rows_are_masked_throughout() -> None:
    stacked, mask = pad_right([np.ones((3, 2), np.float32), None], dim=2, full=20)
    assert stacked.shape == (2, 4, 2)
    assert mask.tolist() == [[True, True, True, False], [False] * 4]
    assert stacked.sum() == 6
    stacked, mask = pad_right([None], dim=2, full=20)
    assert stacked.shape == (1, 1, 2)
    assert not mask.any()


def test_encoder_inputs_are_aligned_at_their_end() -> None:
    stacked = pad_left([np.ones((2, 1), np.float32), np.full((3, 1), 2, np.float32)])
    assert stacked[:, :, 0].tolist() == [[0, 1, 1], [2, 2, 2]]
