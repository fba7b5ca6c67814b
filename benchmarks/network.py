"""Forward pass: ours in PyTorch and ONNX Runtime against the published arithmetic in PyTorch.

The plain network below does what the published one does, module by module, with the same
weights; before anything is timed, all three are checked to agree to 1e-4. Runs are interleaved,
one thread each, figures are medians and ratios of one run.

    python benchmarks/network.py [--repeats 30]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models.export import export_graph
from models.network import SentimentNetwork
from models.spec import NetworkSpec

FRAMES = {"audio": 200, "text": 12, "video": 100}
"""Of a 4 s window at the paper's rates: 50 Hz, a few words, 25 fps."""
SIZES = {
    "paper (1024/4096/1024)": ((1024, 4096, 1024), 256, 128),
    "embedded (128/384/128)": ((128, 384, 128), 128, 64),
}
MIXTURES = ((0, 1, 2), (0, 1), (1, 2), (0, 2))


class PlainNetwork(nn.Module):
    """The published arithmetic, one small module after the other (complete flow, no masks)."""

    def __init__(self, ours: SentimentNetwork) -> None:
        super().__init__()
        spec = ours.spec
        d = spec.hidden_dim
        self.projections, self.utterance = ours.projections, ours.utterance
        self.pooling, self.cross = ours.pooling, ours.cross
        self.weighting, self.query_weighting = ours.weighting, ours.query_weighting
        self.valence = ours.valence
        self.queries = nn.ModuleList()
        for weight, bias in zip(ours.queries.weight, ours.queries.bias, strict=True):
            layer = nn.Linear(d, d)
            layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
            self.queries.append(nn.Sequential(layer, nn.ReLU(), nn.Dropout(spec.dropout)))

    def forward(self, audio: Tensor, text: Tensor, video: Tensor) -> Tensor:
        x = [p(v) for p, v in zip(self.projections, (audio, text, video), strict=True)]
        pooled = []
        for pool, frames in zip(self.pooling, x, strict=True):
            scores = torch.tanh(pool.input(frames)) @ pool.context
            alpha = torch.softmax(0.3 * scores, dim=1).unsqueeze(2)
            pooled.append((alpha * frames).sum(1))
        h = [layers(p) for layers, p in zip(self.utterance, pooled, strict=True)]
        w = self.weighting(torch.cat(h, dim=1)).unsqueeze(2)
        mixed = [torch.stack([h[m] for m in ms], 1) * w[:, list(ms)] for ms in MIXTURES]
        given = [*(m.sum(1) for m in mixed), *h]
        q = torch.stack([layer(g) for layer, g in zip(self.queries, given, strict=True)], dim=1)
        crossed = []
        for attend, frames in zip(self.cross, x, strict=True):
            keys = torch.tanh(attend.key(frames))
            scores = torch.matmul(keys, attend.query(q).transpose(1, 2))
            alpha = torch.softmax(0.3 * scores, dim=1)
            crossed.append(attend.output(torch.matmul(alpha.transpose(1, 2), frames)))
        z = (torch.stack(crossed, 1) * w.unsqueeze(3)).sum(1)
        u = self.query_weighting(z.flatten(1)).unsqueeze(2)
        valence: Tensor = self.valence((u * z).sum(1))
        return valence


def median_ms(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 3):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if number >= 3:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    dims: tuple[int, int, int], hidden: int, fused: int, repeats: int
) -> tuple[int, int, list[tuple[int, dict[str, float]]]]:
    torch.manual_seed(0)
    audio, text, video = dims
    spec = NetworkSpec(
        audio_dim=audio, text_dim=text, video_dim=video, hidden_dim=hidden, fused_dim=fused,
        weights="raw", mia="off", bounded=False, quantiles=None,
    )  # fmt: skip
    ours = SentimentNetwork(spec).eval()
    plain = PlainNetwork(ours).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fusion.onnx"
        export_graph("fusion", ours, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options)
        size = path.stat().st_size
    figures = []
    for batch in (1, 8, 64):
        given = [
            torch.randn(batch, FRAMES[name], dim) for name, dim in zip(FRAMES, dims, strict=True)
        ]
        inputs: dict[str, np.ndarray] = {}
        for name, values in zip(FRAMES, given, strict=True):
            inputs[name] = values.numpy()
            inputs[f"{name}_mask"] = np.ones(values.shape[:2], bool)
        inputs["text_simulated"] = np.zeros(batch, bool)
        runs: dict[str, Callable[[], object]] = {
            "plain": lambda given=given: plain(*given),
            "ours": lambda given=given: ours(*given).valence,
            "onnx": lambda inputs=inputs: session.run(["valence"], inputs)[0],
        }
        with torch.inference_mode():
            expected = runs["plain"]().numpy().ravel()  # type: ignore[attr-defined]
            for name in ("ours", "onnx"):
                found = np.asarray(runs[name]()).ravel()
                np.testing.assert_allclose(found, expected, atol=1e-4)
            figures.append((batch, median_ms(runs, repeats)))
    return sum(p.numel() for p in ours.parameters()), size, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    console = Console(width=110)
    for title, (dims, hidden, fused) in SIZES.items():
        parameters, size, figures = measure(dims, hidden, fused, repeats)
        table = Table(title=f"{title}: {parameters:,} parameters, graph {size / 1e6:.1f} MB")
        for column in ("batch", "plain PyTorch, ms", "ours PyTorch, ms", "ours ONNX, ms",
                       "plain / ours", "plain / ONNX"):  # fmt: skip
            table.add_column(column, justify="right")
        for batch, ms in figures:
            table.add_row(
                str(batch),
                *(f"{ms[name]:.2f}" for name in ("plain", "ours", "onnx")),
                *(f"{ms['plain'] / ms[name]:.2f}" for name in ("ours", "onnx")),
            )
        console.print(table)


if __name__ == "__main__":
    main()
