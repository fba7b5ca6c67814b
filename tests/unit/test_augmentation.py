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
    changed = MelNoise(1.0)(mel, mask)
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
    torch.testing.assert_close(MelNoise(0.0)(mel, mask), mel, atol=1e-5, rtol=0)


def test_the_same_generator_state_gives_the_same_sound() -> None:
    mel, mask = batch()
    torch.manual_seed(3)
    first = MelNoise(0.8)(mel, mask)
    torch.manual_seed(3)
    assert torch.equal(first, MelNoise(0.8)(mel, mask))


def test_faces_are_normalised_again_and_some_are_left_alone() -> None:
    torch.manual_seed(0)
    crops = torch.randn(64, 1, 48, 48)
    crops = (crops - crops.mean((1, 2, 3), keepdim=True)) / crops.std((1, 2, 3), keepdim=True)
    changed = FaceJitter(0.5)(crops)
    torch.testing.assert_close(changed.mean((1, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(changed.std((1, 2, 3)), torch.ones(64), atol=1e-3, rtol=0)
    same = (changed - crops).abs().amax((1, 2, 3)) < 1e-3
    assert 10 < int(same.sum()) < 54
