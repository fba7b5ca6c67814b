"""The network at work: ours in PyTorch and ONNX Runtime against the published arithmetic.

The plain network below does what the published one does, module by module, in PyTorch, with the
same weights; before anything is timed, all are checked to agree to 1e-4. *Whole* is a forward of
a whole window. *Fusion* runs on projected frames, as the engine keeps them; *hop* is that and
the projection of the frames that came since the last score: what a running stream pays. The
published network can only do the whole. Runs are interleaved, one thread each, figures are
medians and ratios of one run.

    python benchmarks/network.py [--repeats 30]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from engine.backends.onnx import OnnxBackend
from models import bundle as bundles
from models.calibration import Calibration
from models.export import Label, Parts, write_bundle
from models.network import SentimentNetwork
from models.spec import MODALITIES, PROJECTIONS, NetworkSpec

FRAMES = {"audio": 200, "text": 12, "video": 100}
"""Of a 4 s window at the paper's rates: 50 Hz, a few words, 25 fps."""
NEW = {"audio": 25, "text": 2, "video": 13}
"""Of a hop of 0.5 s."""
Array = NDArray[np.float32]
Window = dict[str, Array]
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
        self.projections, fusion = ours.projections, ours.fusion
        self.utterance, self.cross, self.valence = fusion.utterance, fusion.cross, fusion.valence
        self.weighting, self.query_weighting = fusion.weighting, fusion.query_weighting
        self.queries = nn.ModuleList()
        for weight, bias in zip(fusion.queries.weight, fusion.queries.bias, strict=True):
            layer = nn.Linear(d, d)
            layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
            self.queries.append(nn.Sequential(layer, nn.ReLU(), nn.Dropout(spec.dropout)))

    def forward(self, audio: Tensor, text: Tensor, video: Tensor) -> Tensor:
        x = [p.value(v) for p, v in zip(self.projections, (audio, text, video), strict=True)]
        pooled = []
        for own, frames in zip(self.projections, x, strict=True):
            scores = torch.tanh(own.relevance(frames)) @ own.context
            alpha = torch.softmax(0.3 * scores, dim=1).unsqueeze(2)
            pooled.append((alpha * frames).sum(1))
        h = [layers(p) for layers, p in zip(self.utterance, pooled, strict=True)]
        w = self.weighting(torch.cat(h, dim=1)).unsqueeze(2)
        mixed = [torch.stack([h[m] for m in ms], 1) * w[:, list(ms)] for ms in MIXTURES]
        given = [*(m.sum(1) for m in mixed), *h]
        q = torch.stack([layer(g) for layer, g in zip(self.queries, given, strict=True)], dim=1)
        crossed = []
        for own, attend, frames in zip(self.projections, self.cross, x, strict=True):
            keys = torch.tanh(own.key(frames))
            scores = torch.matmul(keys, attend.query(q).transpose(1, 2))
            alpha = torch.softmax(0.3 * scores, dim=1)
            crossed.append(attend.output(torch.matmul(alpha.transpose(1, 2), frames)))
        z = (torch.stack(crossed, 1) * w.unsqueeze(3)).sum(1)
        u = self.query_weighting(z.flatten(1)).unsqueeze(2)
        valence: Tensor = self.valence((u * z).sum(1))
        return valence


class Graphs:
    """Our ONNX graphs on one thread, as the engine runs them."""

    def __init__(self, ours: SentimentNetwork) -> None:
        label = Label("benchmark", "0", trained=False, licence="Apache-2.0")
        with tempfile.TemporaryDirectory() as folder:
            write_bundle(Path(folder), Parts(ours), label, Calibration(), "# benchmark\n")
            self.size = sum(path.stat().st_size for path in Path(folder).glob("*.onnx"))
            self._backend = OnnxBackend(bundles.open(folder), threads=1)

    def project(self, given: Window) -> Window:
        """Project [B, T, D] frames per modality."""
        projected = {}
        for name, graph in zip(MODALITIES, PROJECTIONS, strict=True):
            batch, length, dim = given[name].shape
            rows = given[name].reshape(batch * length, dim)
            found = self._backend.run(graph, {"input": rows})["frames"]
            projected[name] = found.reshape(batch, length, -1)
        return projected

    def fuse(self, projected: Window) -> Array:
        """Valence [B] of projected windows."""
        inputs: dict[str, np.ndarray] = {**projected}
        for name, values in projected.items():
            inputs[f"{name}_mask"] = np.ones(values.shape[:2], bool)
        inputs["text_simulated"] = np.zeros(len(projected["audio"]), bool)
        return self._backend.run("fusion", inputs)["valence"]


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
    graphs = Graphs(ours)
    figures = []
    for batch in (1, 8, 64):
        tensors = [
            torch.randn(batch, FRAMES[name], dim)
            for name, dim in zip(MODALITIES, dims, strict=True)
        ]
        window = {name: t.numpy() for name, t in zip(MODALITIES, tensors, strict=True)}
        new = {name: np.ascontiguousarray(window[name][:, -NEW[name] :]) for name in MODALITIES}
        kept = graphs.project(window)

        def hop(new: Window = new, kept: Window = kept) -> Array:
            graphs.project(new)
            return graphs.fuse(kept)

        runs: dict[str, Callable[[], Any]] = {
            "plain": lambda tensors=tensors: plain(*tensors),
            "ours": lambda tensors=tensors: ours(*tensors).valence,
            "whole": lambda window=window: graphs.fuse(graphs.project(window)),
            "fusion": lambda kept=kept: graphs.fuse(kept),
            "hop": hop,
        }
        with torch.inference_mode():
            expected = runs["plain"]().numpy().ravel()
            for name in ("ours", "whole", "fusion", "hop"):
                found = np.asarray(runs[name]()).ravel()
                np.testing.assert_allclose(found, expected, atol=1e-4)
            figures.append((batch, median_ms(runs, repeats)))
    return sum(p.numel() for p in ours.parameters()), graphs.size, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    console = Console(width=110)
    for title, (dims, hidden, fused) in SIZES.items():
        parameters, size, figures = measure(dims, hidden, fused, repeats)
        table = Table(title=f"{title}: {parameters:,} parameters, graphs {size / 1e6:.1f} MB")
        for column in ("batch", "plain, ms", "PyTorch whole", "ONNX whole", "fusion", "hop",
                       "plain / whole", "plain / fusion", "plain / hop"):  # fmt: skip
            table.add_column(column, justify="right")
        for batch, ms in figures:
            table.add_row(
                str(batch),
                *(f"{ms[name]:.2f}" for name in ("plain", "ours", "whole", "fusion", "hop")),
                *(f"{ms['plain'] / ms[name]:.2f}" for name in ("whole", "fusion", "hop")),
            )
        console.print(table)


if __name__ == "__main__":
    main()
