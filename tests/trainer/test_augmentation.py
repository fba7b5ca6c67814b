"""Augmentation keeps what it must: shapes, finite values, and what it was told to leave alone."""

import numpy as np
import torch

from models.preprocessing import log_mel
from trainer.augmentation import FaceJitter, MelNoise


def speech_like(seconds: float, seed: int) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    time = np.arange(int(16_000 * seconds)) / 16_000
    tone = np.sin(2 * np.pi * 200 * time) * (1 + np.sin(2 * np.pi * 3 * time)) * 0.1
    return torch.from_numpy(
        log_mel((tone + generator.normal(0, 1e-3, len(time))).astype(np.float32))
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.stack([speech_like(2.0, seed) for seed in range(6)])
    return mel, torch.ones(mel.shape[:2], dtype=torch.bool)


def test_sound_is_changed_within_reason_and_differs_between_rows() -> None:
    torch.manual_seed(0)
    mel, mask = batch()
    changed, _ = MelNoise(1.0)(mel, mask)
    assert changed.shape == mel.shape
    assert bool(changed.isfinite().all())
    assert changed.min() >= -1.0 - 1e-6
    assert not torch.equal(changed[0] - mel[0], changed[1] - mel[1])
    # The loudest bin of a tone stays among the loudest: words have to stay words.
    loudest = mel.mean(1).argmax(1)
    ranks = (changed.mean(1) > changed.mean(1).gather(1, loudest[:, None])).sum(1)
    assert ranks.float().mean() < 16


def test_sound_is_left_alone_at_probability_0() -> None:
    mel, mask = batch()
    same, same_mask = MelNoise(0.0)(mel, mask)
    assert torch.equal(same, mel)
    assert torch.equal(same_mask, mask)


def test_another_speaker_talks_faster_or_slower_and_says_the_same() -> None:
    torch.manual_seed(1)
    mel, mask = batch()
    mask[0, 120:] = False
    changed, kept = MelNoise(0.0, 1.0)(mel, mask)
    lengths, before = kept.sum(1), mask.sum(1)
    assert kept.shape == changed.shape[:2]
    assert bool((kept.long().diff(dim=1) <= 0).all())  # each row's frames come first
    assert len(set((lengths / before).tolist())) == len(mel)
    assert bool(((lengths >= before / 1.26) & (lengths <= before / 0.79)).all())
    assert bool(changed.isfinite().all())
    # The tone moves by less than the largest change of a vocal tract.
    moved = mel.mean(1).argmax(1) - changed.mean(1).argmax(1)
    assert bool((moved.abs() <= 3).all())


def test_the_same_generator_state_gives_the_same_sound() -> None:
    mel, mask = batch()
    torch.manual_seed(3)
    first, _ = MelNoise(0.8, 0.8)(mel, mask)
    torch.manual_seed(3)
    assert torch.equal(first, MelNoise(0.8, 0.8)(mel, mask)[0])


def test_faces_are_normalised_again_and_some_are_left_alone() -> None:
    torch.manual_seed(0)
    crops = torch.randn(64, 1, 48, 48)
    crops = (crops - crops.mean((1, 2, 3), keepdim=True)) / crops.std((1, 2, 3), keepdim=True)
    changed = FaceJitter(0.5)(crops)
    torch.testing.assert_close(changed.mean((1, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(changed.std((1, 2, 3)), torch.ones(64), atol=1e-3, rtol=0)
    same = (changed - crops).abs().amax((1, 2, 3)) < 1e-3
    assert 10 < int(same.sum()) < 54
