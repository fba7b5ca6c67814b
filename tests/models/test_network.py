"""Live fitness: subsets, masks, padding, companions, bad input, ONNX agreement."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models.export import FUSION_OUTPUTS, export_graph, graph_modules
from models.network import NetworkError, SentimentNetwork
from models.spec import NetworkSpec
from tests.support.network_graphs import run_network

pytestmark = pytest.mark.slow

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


def _scored(network: SentimentNetwork, row: list) -> tuple[torch.Tensor, ...]:
    a, a_mask, t, t_mask, v, v_mask, simulated = row
    out = network(a, t, v, a_mask, t_mask, v_mask, simulated)
    return out.valence.flatten(), out.low.flatten(), out.high.flatten(), out.weights, out.fused


@pytest.mark.parametrize("pattern", PATTERNS)
def test_subset(network: SentimentNetwork, pattern: tuple[bool, ...]) -> None:
    row = _row((5, 3, 7), pattern, pad=4)
    valence, low, high, weights, _ = _scored(network, row)
    assert -3 <= low.item() <= valence.item() <= high.item() <= 3
    assert all((w == 0) == (not p) for w, p in zip(weights[0].tolist(), pattern, strict=True))
    assert weights.sum().item() == pytest.approx(1)
    lengths = (5, 3, 7)
    short = [x[:, : lengths[i // 2]] for i, x in enumerate(row[:6])]
    torch.testing.assert_close(_scored(network, [*short, row[6]])[0], valence, atol=1e-5, rtol=0)
    other = [
        torch.cat([torch.randn_like(x), x]) if x.is_floating_point() else torch.cat([~x, x])
        for x in row
    ]
    torch.testing.assert_close(_scored(network, other)[0][1:], valence, atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [{}, {"fusion": "concat"}, {"mia": "text"}, {"mia": "off"}])
def test_both_flows_in_one_pass_are_each_flow_by_itself(change: dict) -> None:
    torch.manual_seed(0)
    a, t, v = SIZES
    sizes = {"audio_dim": a, "text_dim": t, "video_dim": v, "hidden_dim": 16, "fused_dim": 8}
    network = SentimentNetwork(NetworkSpec(**sizes, dropout=0, input_dropout=0, **change))
    lengths = {"audio": 9, "text": 4, "simulated": 6, "video": 5}
    given = {}
    for name, length in lengths.items():
        modality = "text" if name == "simulated" else name
        values = torch.randn(5, length, getattr(network.spec, f"{modality}_dim"))
        mask = torch.rand(5, length) < 0.8
        mask[:3, 0], mask[4] = True, name != "video"  # the last row lacks a face
        given[name] = network.project(modality, values, mask, 5)
    audio, text, simulated, video = given.values()
    together = network.fuse_both(audio, text, simulated, video)
    apart = (
        network.fuse((audio, text, video), False),
        network.fuse((audio, simulated, video), True),
    )
    for one, other in zip(together, apart, strict=True):
        for field in fields(one):
            values, wanted = getattr(one, field.name), getattr(other, field.name)
            torch.testing.assert_close(values, wanted, atol=1e-6, rtol=1e-6, equal_nan=True)
    weights = list(network.parameters())
    gradients = [
        torch.autograd.grad(
            sum(flow.fused.square().sum() for flow in flows),
            weights,
            allow_unused=True,
            retain_graph=True,
        )
        for flows in (together, apart)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_nothing_has_no_value(network: SentimentNetwork) -> None:
    assert all(x.isnan().all() for x in _scored(network, _row((2, 2, 2), (False,) * 3))[:3])


def test_bad_input_is_named(network: SentimentNetwork) -> None:
    a, t, v = (torch.randn(1, 2, size) for size in SIZES)
    with pytest.raises(NetworkError, match=r"text: expected \[1, T, 10\], got \[1, 2, 6\]"):
        network(a, a, v)
    with pytest.raises(NetworkError, match=r"audio: expected at least one frame"):
        network(a[:, :0], t, v)
    with pytest.raises(NetworkError, match=r"video: expected finite values, got 8"):
        network(a, t, v * float("nan"))


def test_onnx_agrees(network: SentimentNetwork, tmp_path: Path) -> None:
    sessions = {}
    for graph, module in graph_modules({"fusion": network}).items():
        export_graph(graph, module, tmp_path / f"{graph}.onnx")
        sessions[graph] = onnxruntime.InferenceSession(tmp_path / f"{graph}.onnx")
    names = [x.name for x in sessions["fusion"].get_inputs()]

    def run(graph: str, inputs: dict) -> dict:
        outputs = [x.name for x in sessions[graph].get_outputs()]
        return dict(zip(outputs, sessions[graph].run(outputs, inputs), strict=True))

    for pattern in PATTERNS:
        for lengths in ((1, 1, 1), (1000, 1, 37), (13, 1000, 1000)):
            row = _row(lengths, pattern)
            feed = {n: x.numpy() for n, x in zip(names, row, strict=True)}
            with torch.inference_mode():
                expected = _scored(network, row)
            found = run_network(run, feed)
            for ours, name in zip(expected, FUSION_OUTPUTS, strict=True):
                np.testing.assert_allclose(found[name], ours.numpy(), atol=1e-4, rtol=0)
