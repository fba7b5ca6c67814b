"""Dropout that draws bits: the share, the scale, gradients, seeds, and where it does nothing."""

from __future__ import annotations

import pytest
import torch

from models.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_share_is_dropped_and_the_rest_scaled_so_that_the_mean_stays(share: float) -> None:
    torch.manual_seed(0)
    found = Dropout(share)(torch.ones(999, 1001))
    dropped = (found == 0).float()
    assert dropped.mean().item() == pytest.approx(share, abs=0.002)
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    assert found.max().item() == pytest.approx(1 / (1 - share), rel=1e-3)
    # Values of one random number do not hang together, nor rows, nor columns.
    for other in (dropped.roll(1, 1), dropped.roll(1, 0), dropped.roll(4, 1)):
        both = (dropped * other).mean().item()
        assert both == pytest.approx(share * share, abs=0.002)


def test_gradients_are_those_of_the_values_that_are_kept() -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 7, requires_grad=True)  # no multiple of four
    found = Dropout(0.5)(values)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(found, values * values.grad)
    assert set(values.grad.flatten().tolist()) == {0.0, 2.0}


def test_a_seed_draws_the_same_again_and_keeps_the_type() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(Dropout(0.3)(torch.ones(64, dtype=torch.bfloat16)))
    assert torch.equal(*drawn)
    assert drawn[0].dtype == torch.bfloat16


def test_nothing_is_drawn_in_eval_mode_or_with_a_share_of_nothing() -> None:
    values = torch.randn(8)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(torch.get_rng_state(), state)


def test_almost_everything_may_be_dropped() -> None:
    torch.manual_seed(0)
    found = Dropout(1 - 1e-9)(torch.ones(2**18))
    assert found.isfinite().all()
    assert (found != 0).float().mean().item() < 1e-4
