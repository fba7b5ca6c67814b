"""Samples, what augmentation hides of them, and the order in which they come."""

import numpy as np
import psutil
import pytest
import torch

from trainer.data.batches import Batches, collate
from trainer.data.samples import FrameShapes, Sample, SampleList, augment
from trainer.recipe import Augmentation

SHAPES = FrameShapes(audio=(4,), text=(3,), video=(2,))


def make(index: int, frames: int = 10, **absent: None) -> Sample:
    values = {
        "audio": np.full((frames, 4), index + 1, np.float32),
        "text": np.full((3, 3), index + 1, np.float32),
        "simulated_text": np.full((2, 3), index + 1, np.float32),
        "video": np.full((frames // 2, 2), index + 1, np.float32),
        **absent,
    }
    return Sample(id=f"clip{index}", valence=index / 10, duration_s=frames / 10, **values)


def test_an_absent_modality_is_one_masked_row() -> None:
    batch = collate([make(0), make(1, 6, video=None, text=None)], SHAPES)
    assert batch.audio.shape == (2, 10, 4)
    assert batch.audio_mask.sum(1).tolist() == [10, 6]
    assert batch.video_mask.sum(1).tolist() == [5, 0]
    assert batch.has_complete.tolist() == [True, False]
    only_text = collate([make(0, audio=None, video=None, simulated_text=None)], SHAPES)
    assert only_text.audio.shape == (1, 1, 4)
    assert only_text.has_missing.tolist() == [False]


def test_an_epoch_holds_every_sample_once_and_orders_like_lengths_together() -> None:
    samples = SampleList(tuple(make(i, 2 + i % 40) for i in range(1000)))
    settings = Augmentation()
    batches = Batches(samples, SHAPES, 16, seed=3, augmentation=settings)
    order = batches.order(0)
    assert sorted(int(i) for batch in order for i in batch) == list(range(1000))
    assert len(order) == len(batches)
    plain = Batches(samples, SHAPES, 16, seed=3, augmentation=settings, bucketed=False).order(0)

    def padding(chosen: list[np.ndarray]) -> int:
        lengths = samples.lengths
        return sum(int(lengths[b].max() * len(b) - lengths[b].sum()) for b in chosen)

    assert padding(order) < 0.2 * padding(plain)
    assert any((a != b).any() for a, b in zip(order, batches.order(1), strict=True) if len(a) == 16)


def test_an_epoch_is_repeatable_sample_by_sample() -> None:
    samples = SampleList(tuple(make(i, 80) for i in range(20)))
    batches = Batches(samples, SHAPES, 4, seed=1, augmentation=Augmentation(), window_s=2)
    first, second = batches.sample(7, 2), batches.sample(7, 2)
    assert first.modalities == second.modalities
    assert first.duration_s == second.duration_s
    seen = {batches.sample(i, e).modalities for i in range(20) for e in range(20)}
    assert len(seen) == 7


def test_dropping_audio_drops_the_text_simulated_from_it() -> None:
    sample = make(0).keep(["video"])
    assert sample.modalities == ("video",)
    assert sample.simulated_text is None


def test_a_window_is_the_same_stretch_of_every_modality() -> None:
    frames = np.arange(100, dtype=np.float32)[:, None]
    sample = Sample("a", 0.0, 10.0, audio=frames, video=frames[::2])
    window = sample.window(0.5, 0.2)
    assert window.audio is not None
    assert window.video is not None
    assert window.audio[:, 0].tolist() == list(range(50, 70))
    assert window.video[:, 0].tolist() == list(range(50, 70, 2))
    assert window.duration_s == pytest.approx(2.0)


def test_no_augmentation_setting_leaves_a_sample_empty() -> None:
    settings = Augmentation(modality_dropout=0.99, sub_window=1.0)
    generator = np.random.default_rng(0)
    for _ in range(300):
        sample = augment(make(0, 2), settings, 0.01, generator)
        assert sample.modalities
        assert all(len(getattr(sample, name)) for name in sample.modalities)


def test_frames_of_two_shapes_are_refused() -> None:
    odd = Sample("odd", 0.0, 1.0, audio=np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"odd: audio frames have shape \(5,\), others \(4,\)"):
        FrameShapes.of(SampleList((make(0), odd)))


def test_worker_processes_make_the_same_batches_and_live_from_epoch_to_epoch() -> None:
    samples = SampleList(tuple(make(i, 2 + i % 9) for i in range(20)))
    batches = Batches(samples, SHAPES, 8, seed=1, augmentation=Augmentation())
    loader = batches.loader(workers=1)
    children: list[set[int]] = []
    for epoch in range(2):
        alone = list(batches.epoch(epoch))
        by_process = list(batches.epoch(epoch, loader=loader))
        assert len(by_process) == len(alone) == 3
        for one, other in zip(by_process, alone, strict=True):
            assert torch.equal(one.audio, other.audio)
            assert torch.equal(one.video_mask, other.video_mask)
        children.append({child.pid for child in psutil.Process().children(recursive=True)})
    assert children[0] <= children[1]
    (rest,) = batches.epoch(1, first=2, loader=loader)
    assert torch.equal(rest.audio, alone[2].audio)
