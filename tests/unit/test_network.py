"""Live fitness: subsets, masks, padding, companions, bad input, ONNX agreement."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.export import FUSION_OUTPUTS, FusionGraph, export_graph
from models.network import NetworkError, SentimentNetwork
from models.spec import NetworkSpec

SIZES = (6, 10, 4)
PATTERNS = [p for p in product((True, False), repeat=3) if any(p)]


@pytest.fixture(scope="module")
def network() -> SentimentNetwork:
    torch.manual_seed(0)
    a, t, v = SIZES
    spec = NetworkSpec(audio_dim=a, text_dim=t, video_dim=v, hidden_dim=16, fused_dim=8)
    return SentimentNetwork(spec).eval()


def _row(lengths: tuple[int, int, int], pattern: tuple[bool, ...], pad: int = 0) -> list:
    given = []
    for length, size, present in zip(lengths, SIZES, pattern, strict=True):
        values = torch.cat([torch.randn(1, length, size), torch.full((1, pad, size), 50.0)], 1)
        mask = torch.zeros(1, length + pad, dtype=torch.bool)
        mask[:, :length] = present
        given += [values, mask]
    return [*given, torch.tensor([True])]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_subset(network: SentimentNetwork, pattern: tuple[bool, ...]) -> None:
    graph = FusionGraph(network)
    row = _row((5, 3, 7), pattern, pad=4)
    valence, low, high, weights, _ = graph(*row)
    assert -3 <= low.item() <= valence.item() <= high.item() <= 3
    assert all((w == 0) == (not p) for w, p in zip(weights[0].tolist(), pattern, strict=True))
    assert weights.sum().item() == pytest.approx(1)
    lengths = (5, 3, 7)
    short = [x[:, : lengths[i // 2]] for i, x in enumerate(row[:6])]
    torch.testing.assert_close(graph(*short, row[6])[0], valence, atol=1e-5, rtol=0)
    other = [
        torch.cat([torch.randn_like(x), x]) if x.is_floating_point() else torch.cat([~x, x])
        for x in row
    ]
    torch.testing.assert_close(graph(*other)[0][1:], valence, atol=1e-5, rtol=0)


def test_nothing_has_no_value(network: SentimentNetwork) -> None:
    assert all(x.isnan().all() for x in FusionGraph(network)(*_row((2, 2, 2), (False,) * 3))[:3])


def test_bad_input_is_named(network: SentimentNetwork) -> None:
    a, t, v = (torch.randn(1, 2, size) for size in SIZES)
    with pytest.raises(NetworkError, match=r"text: expected \[1, T, 10\], got \[1, 2, 6\]"):
        network(a, a, v)
    with pytest.raises(NetworkError, match=r"audio: expected at least one frame"):
        network(a[:, :0], t, v)
    with pytest.raises(NetworkError, match=r"video: expected finite values, got 8"):
        network(a, t, v * float("nan"))


def test_onnx_agrees(network: SentimentNetwork, tmp_path: Path) -> None:
    export_graph("fusion", network, tmp_path / "fusion.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "fusion.onnx")
    names = [x.name for x in session.get_inputs()]
    for pattern in PATTERNS:
        for lengths in ((1, 1, 1), (1000, 1, 37), (13, 1000, 1000)):
            row = _row(lengths, pattern)
            feed = {n: x.numpy() for n, x in zip(names, row, strict=True)}
            with torch.inference_mode():
                expected = FusionGraph(network)(*row)
            for ours, theirs in zip(expected, session.run(FUSION_OUTPUTS, feed), strict=True):
                np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-4, rtol=0)
