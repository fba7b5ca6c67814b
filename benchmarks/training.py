"""Training step against a plain implementation of the published recipe: time, loading, memory.

Plain: random batches padded to their longest clip, the published network's arithmetic, both flows
by themselves, Rank-N-Contrast as a loop over anchors and positives, torch's dropout. Ours:
length-bucketed batches, the same network sizes, both flows in one pass over audio and video that
are projected once and without their padding, Rank-N-Contrast at once, dropout drawn by bits;
``ours, a draw per flow`` projects them twice, as the recipe ``paper`` does. All take batch 128 in
float32, with lengths drawn from the real durations of CMU-MOSEI's segments, each in a process of
its own, in turn. Ours reads its batches from a feature store on disk, in float16, as training does:
the loader's share is how long the loop waits for a batch. With ``OMP_NUM_THREADS=1`` the CPU
seconds hold on a machine that others use, too.

    python benchmarks/training.py [--rounds 2] [--audio-dim 256] [--text-dim 512] [--video-dim 256]

The feature sizes default to a quarter (text: an eighth) of the paper's, so that a laptop can run
it; ``--audio-dim 1024 --text-dim 4096 --video-dim 1024`` are the paper's own.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models.fusion import NetworkOutput
from models.network import SentimentNetwork
from models.spec import NetworkSpec
from trainer.data.batches import Batch, Batches
from trainer.data.clips import StoredClip, StoredSamples
from trainer.data.samples import FrameShapes, Sample, SampleList
from trainer.distributed import Team
from trainer.features.store import FrameStore
from trainer.fit import batch_loss
from trainer.losses import rank_n_contrast
from trainer.model import SentimentModel
from trainer.recipe import Augmentation, Loss

SEGMENTS = Path(__file__).parents[2] / "shared" / "data" / "mosei" / "segments.csv"
BATCH, CLIPS = 128, 1536
VARIANTS = {"plain": "plain", "ours": "ours", "twice": "ours, a draw per flow"}
AUDIO_RATE_HZ, VIDEO_RATE_HZ, WORD_RATE_HZ = 50, 15, 2.6


def durations() -> np.ndarray:
    """Seconds of the training segments of CMU-MOSEI, or a log-normal of the same median."""
    if SEGMENTS.is_file():
        with SEGMENTS.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["split"] == "0"]
        seconds = np.array([float(row["end"]) - float(row["start"]) for row in rows])
        return seconds[(seconds > 0.3) & (seconds < 60)]
    return np.random.default_rng(0).lognormal(np.log(6.4), 0.65, 16_000).clip(0.5, 60)


def make_samples(dims: tuple[int, int, int]) -> SampleList:
    """Clips of real lengths with random frames; arrays are shared to keep memory for the step."""
    generator = np.random.default_rng(1)
    longest = 61
    pools = [
        generator.normal(size=(int(longest * rate) + 2, dim)).astype(np.float32)
        for rate, dim in zip((AUDIO_RATE_HZ, WORD_RATE_HZ, VIDEO_RATE_HZ), dims, strict=True)
    ]
    items = []
    for index, seconds in enumerate(generator.choice(durations(), CLIPS)):
        audio, text, video = (
            pool[: max(1, int(seconds * rate))]
            for pool, rate in zip(pools, (AUDIO_RATE_HZ, WORD_RATE_HZ, VIDEO_RATE_HZ), strict=True)
        )
        valence = float(np.round(generator.normal(0, 1.1) * 3) / 3)
        items.append(
            Sample(str(index), max(-3, min(3, valence)), float(seconds), audio, text, text, video)
        )
    return SampleList(tuple(items))


def store_samples(samples: SampleList, shapes: FrameShapes, folder: Path) -> StoredSamples:
    """The same clips as a run stores them: float16, in one file per modality."""
    names = {"audio": "audio", "text": "text", "simulated_text": "text", "video": "video"}
    stores = {
        name: FrameStore(folder / name, f"benchmark/{name}", getattr(shapes, modality))
        for name, modality in names.items()
    }
    clips = []
    for sample in samples.items:
        for name, store in stores.items():
            store.add(sample.id, getattr(sample, name), sample.duration_s)
        keys = dict.fromkeys(stores, sample.id)
        clips.append(
            StoredClip(
                sample.id, "benchmark", "train", sample.valence, None, 1.0, sample.duration_s, keys
            )
        )
    return StoredSamples(tuple(clips), stores)


def looped_rank_n_contrast(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The contrast as the published recipe computes it: a loop over the other samples."""
    n = len(labels)
    off = ~torch.eye(n, dtype=torch.bool)
    gaps = (labels[:, None] - labels[None, :]).abs()[off].view(n, n - 1)
    logits = -(features[:, None] - features[None, :]).norm(2, dim=-1) / temperature
    logits = logits[off].view(n, n - 1)
    exponents = logits.exp()
    loss = logits.new_zeros(())
    for k in range(n - 1):
        negatives = (gaps >= gaps[:, k : k + 1]).float()
        log_probability = logits[:, k] - (negatives * exponents).sum(-1).log()
        loss = loss - log_probability.sum() / (n * (n - 1))
    return loss


def plainly_dropped(network: nn.Module) -> None:
    """Put torch's own dropout, as the published recipe has it, in place of the network's."""
    for module in list(network.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                setattr(module, name, nn.Dropout(part.p))


def plain_loss(network: SentimentNetwork, batch: Batch) -> Tensor:
    """Both flows with the published recipe's losses, without masks."""

    def rmse(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().mean() + 1e-8).sqrt()

    full: NetworkOutput = network(batch.audio, batch.text, batch.video)
    missing: NetworkOutput = network(
        batch.audio, batch.simulated_text, batch.video, missing_text=True
    )
    labels = batch.valence[:, None]
    errors = (full.valence - labels).square().mean() + (missing.valence - labels).square().mean()
    views = torch.cat([full.rnc, missing.rnc])
    contrast = looped_rank_n_contrast(views, torch.cat([batch.valence] * 2), 2.0)
    return (
        0.5 * errors
        + 0.1 * rmse(missing.text_query, full.text_query.detach())
        + 0.7 * rmse(missing.text_cross, full.text_cross.detach())
        + 0.13 * rmse(missing.fused, full.fused)
        + 0.5 * contrast
    )


def run(variant: str, dims: tuple[int, int, int], steps: int) -> None:
    """One variant in this process; prints its figures as JSON."""
    torch.manual_seed(0)
    shapes = FrameShapes(*((dim,) for dim in dims))
    published = {"weights": "raw", "mia": "text", "bounded": False, "quantiles": None}
    sizes = dict(zip(("audio_dim", "text_dim", "video_dim"), dims, strict=True))
    spec = NetworkSpec.model_validate({**sizes, **published} if variant == "plain" else sizes)
    none = Augmentation(frame_drop=0, modality_dropout=0, sub_window=0, one_draw=variant != "twice")
    model = SentimentModel(SentimentNetwork(spec), augmentation=none)
    if variant == "plain":
        plainly_dropped(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(dims)
        if variant == "plain":
            batches = Batches(samples, shapes, BATCH, 0, none, bucketed=False)
        else:
            stored = store_samples(samples, shapes, Path(folder))
            batches = Batches(stored, shapes, BATCH, 0, none)
        del samples
        waited, seconds, busy = [], [], []
        for step, (wait_s, batch) in enumerate(timed(batches.epoch(0))):
            started, started_cpu = time.perf_counter(), time.thread_time()
            if variant == "plain":
                loss = plain_loss(model.network, batch)
            else:
                loss = batch_loss(model, batch, Loss(), Team()).total
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if step:  # the first step pays for allocations
                seconds.append(time.perf_counter() - started)
                busy.append(time.thread_time() - started_cpu)
                waited.append(wait_s)
            if step == steps:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    share = sum(waited) / (sum(waited) + sum(seconds))
    means = {"step_s": statistics.mean(seconds), "cpu_s": statistics.mean(busy)}
    print(json.dumps({**means, "loader": 100 * share, "peak_mb": peak}))


def timed(batches: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
    """Each batch, and how many seconds it was waited for."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield time.perf_counter() - started, batch


def contrast_alone() -> tuple[float, float]:
    """Milliseconds of forward and backward of both contrasts at 2 x 128 views."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2 * BATCH, 64, generator=generator, requires_grad=True)
    labels = torch.randint(-9, 10, (2 * BATCH,), generator=generator) / 3
    figures = []
    for function in (looped_rank_n_contrast, rank_n_contrast):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            function(features, labels, 2.0).backward()
            times.append(time.perf_counter() - started)
        figures.append(1000 * statistics.median(times))
    return figures[0], figures[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=11, help="11: all batches but the first")
    parser.add_argument("--plain-steps", type=int, default=3, help="its batches are all alike")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each variant, in turn")
    parser.add_argument("--audio-dim", type=int, default=256)
    parser.add_argument("--text-dim", type=int, default=512)
    parser.add_argument("--video-dim", type=int, default=256)
    parser.add_argument("--variant", choices=list(VARIANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    dims = (arguments.audio_dim, arguments.text_dim, arguments.video_dim)
    if arguments.variant:
        plain = arguments.variant == "plain"
        run(arguments.variant, dims, arguments.plain_steps if plain else arguments.steps)
        return
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.rounds):
        for variant, figures in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
    table = Table(title=f"Training step, batch {BATCH}, feature sizes {dims}")
    for column in ("", *VARIANTS.values(), "plain / ours"):
        table.add_column(column, justify="right")
    for label, key, digits in (
        ("step, s", "step_s", 2),
        ("CPU s of the loop's thread", "cpu_s", 2),
        ("loader's share of the time, %", "loader", 1),
        ("peak memory, MB", "peak_mb", 0),
    ):
        medians = {v: statistics.median(f[key] for f in found[v]) for v in VARIANTS}
        ratio = "" if key == "loader" else f"{medians['plain'] / medians['ours']:.2f}"
        table.add_row(label, *(f"{value:.{digits}f}" for value in medians.values()), ratio)
    plain, ours = contrast_alone()
    table.add_row("contrast alone, ms", f"{plain:.0f}", f"{ours:.1f}", "", f"{plain / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
