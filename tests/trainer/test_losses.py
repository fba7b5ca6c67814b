"""The losses against plain, slow statements of what they should be."""

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.losses import (
    distillation,
    masked_mean,
    naming,
    pinball,
    probing,
    rank_n_contrast,
    rmse,
)


def plain_rank_n_contrast(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Rank-N-Contrast as its paper states it, in a loop; close distances are equal."""
    n = len(labels)
    terms = []
    for i in range(n):
        for j in range(n):
            if j == i:
                continue
            gap = (labels[i] - labels[j]).abs()
            negatives = [
                k for k in range(n) if k != i and (labels[i] - labels[k]).abs() > gap - 1e-4
            ]
            similarity = -torch.stack([(features[i] - features[k]).norm() for k in negatives])
            positive = -(features[i] - features[j]).norm()
            terms.append(torch.logsumexp(similarity / temperature, dim=0) - positive / temperature)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("levels", [3, 100])
def test_rank_n_contrast_equals_the_loop_with_and_without_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    features = torch.randn(14, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(levels, (14,), generator=generator) / levels * 6 - 3
    ours = rank_n_contrast(features, labels, 2.0)
    plain = plain_rank_n_contrast(features, labels, 2.0)
    assert ours.item() == pytest.approx(plain.item(), abs=1e-10)
    (ours_gradient,) = torch.autograd.grad(ours, features)
    (plain_gradient,) = torch.autograd.grad(plain, features)
    assert torch.allclose(ours_gradient, plain_gradient, atol=1e-9)


def test_labels_in_thirds_lose_no_negative_to_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    thirds = torch.randint(-9, 10, (64,), generator=generator)
    features = torch.randn(64, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = rank_n_contrast(features, (thirds / 3).float())
    exact = plain_rank_n_contrast(features, thirds.double(), 2.0)  # whole numbers: no rounding
    assert ours.item() == pytest.approx(exact.item(), abs=1e-9)
    (our_gradient,) = torch.autograd.grad(ours, features)
    (exact_gradient,) = torch.autograd.grad(exact, features)
    assert torch.allclose(our_gradient, exact_gradient, atol=1e-9)


def test_rank_n_contrast_of_identical_views_has_finite_gradients() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    rank_n_contrast(features, torch.tensor([0.0, 1.0, 1.0, 2.0])).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_rank_n_contrast_prefers_features_in_the_order_of_labels() -> None:
    labels = torch.linspace(-3, 3, 12)
    ordered = labels[:, None] * 4
    shuffled = ordered[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    assert rank_n_contrast(ordered, labels) < rank_n_contrast(shuffled, labels)


def test_a_single_sample_contrasts_with_nothing() -> None:
    assert rank_n_contrast(torch.ones(1, 3), torch.zeros(1)).item() == 0


def test_rmse_counts_valid_samples_only_and_has_no_nan_gradient() -> None:
    prediction = torch.tensor([[1.0, 3.0], [9.0, 9.0]], requires_grad=True)
    valid = torch.tensor([True, False])
    assert rmse(prediction, torch.zeros(2, 2), valid).item() == pytest.approx(5**0.5)
    rmse(prediction, prediction.detach().clone(), valid).backward()
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


def test_masked_mean_ignores_nan_of_what_is_not_valid() -> None:
    values = torch.tensor([[1.0], [float("nan")]])
    assert masked_mean(values, torch.tensor([True, False])).item() == 1.0
    assert masked_mean(values, torch.tensor([False, False])).item() == 0.0


def test_naming_is_least_at_the_true_shares_and_ignores_the_unnamed() -> None:
    shares = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 0.0]])
    named = torch.tensor([True, False])
    true = (0.95 * shares + 0.05 / 3).log()
    least = naming(true, shares, named).item()
    assert naming(true + torch.tensor([0.2, 0.0, 0.0]), shares, named).item() > least
    assert naming(torch.zeros(2, 3), shares, named).item() == pytest.approx(np.log(3), abs=1e-6)
    assert naming(true * torch.tensor([[1.0], [9.0]]), shares, named).item() == least
    assert naming(true, shares, torch.tensor([False, False])).item() == 0


def test_probing_is_of_the_clips_that_have_the_modality_and_of_named_emotions() -> None:
    labels = torch.tensor([1.0, -1.0, 2.0])
    shares = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    answers = torch.tensor([[1.0, 0.0, 0.0], [0.0, 9.0, 0.0], [99.0, 9.0, 0.0]])
    heard = torch.tensor([True, True, False])
    # Squared errors 0 and 1; one emotion of two, guessed blindly.
    assert probing(answers, labels, shares, heard).item() == pytest.approx(0.5 + np.log(2))


def test_pinball_is_least_at_the_quantiles() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).normal(size=20_000))
    candidates = torch.linspace(-3, 3, 121)
    high = torch.full_like(labels, 3.0)
    losses = [pinball(torch.full_like(labels, c), high, labels, (0.05, 0.95)) for c in candidates]
    best = candidates[torch.stack([loss.mean() for loss in losses]).argmin()]
    assert best.item() == pytest.approx(-1.645, abs=0.06)


def test_distillation_is_zero_for_the_text_states_spread_over_the_frames() -> None:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(2, 4, 6, generator=generator)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    exact, heard = text.clone(), torch.ones(2, 4, dtype=torch.bool)
    first = torch.tensor([True, False])
    assert distillation(exact, heard, text, mask, first).item() == pytest.approx(0, abs=1e-6)
    assert distillation(exact + 0.5, heard, text, mask, first).item() > 0.1
    nobody = torch.tensor([False, False])
    assert distillation(exact, heard, text, mask, nobody).item() == 0


def test_distillation_does_not_count_the_padding_behind_a_clip() -> None:
    generator = torch.Generator().manual_seed(1)
    simulated, text = (torch.randn(2, n, 6, generator=generator) for n in (9, 5))
    heard = torch.arange(9) < torch.tensor([[9], [4]])
    read = torch.arange(5) < torch.tensor([[5], [3]])
    both = torch.tensor([True, True])
    alone = [
        distillation(simulated[i : i + 1, :n], heard[i : i + 1, :n], text[i : i + 1, :m],
                     read[i : i + 1, :m], both[:1])
        for i, (n, m) in enumerate([(9, 5), (4, 3)])
    ]  # fmt: skip
    simulated.requires_grad_()
    together = distillation(simulated, heard, text, read, both)
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-6)
    together.backward()
    assert simulated.grad is not None
    assert not simulated.grad[~heard].any()
    assert simulated.grad[heard].any()
    unheard = torch.zeros(2, 9, dtype=torch.bool)
    assert distillation(simulated, unheard, text, read, both).item() == 0
