"""Predictions of a split: either flow, any subset of modalities, whole clips or live windows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.batches import Batch, collate
from trainer.data.samples import EVIDENCE, FrameShapes, Sample, Samples
from trainer.model import SentimentModel

Flow = Literal["complete", "missing_text"]
Floats = NDArray[np.float64]
SORTED_BATCHES = 16
"""Batches of samples that are held at a time and sorted by length, against padding."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of the samples that have what was asked for; all arrays are [n]."""

    ids: tuple[str, ...]
    corpora: tuple[str, ...]
    labels: Floats
    valence: Floats
    low: Floats
    high: Floats

    def __len__(self) -> int:
        return len(self.ids)

    def by_corpus(self) -> dict[str, Predictions]:
        """The predictions of each corpus, in order of appearance."""
        names = np.array(self.corpora, dtype=object)
        return {name: self._rows(names == name) for name in dict.fromkeys(self.corpora)}

    def _rows(self, kept: NDArray[np.bool_]) -> Predictions:
        ids, corpora = (
            tuple(value for value, keep in zip(column, kept, strict=True) if keep)
            for column in (self.ids, self.corpora)
        )
        columns = (self.labels, self.valence, self.low, self.high)
        return Predictions(ids, corpora, *(column[kept] for column in columns))


@dataclass(frozen=True)
class View:
    """What of a sample the network gets to see."""

    flow: Flow = "complete"
    modalities: tuple[str, ...] = EVIDENCE
    exact: bool = False
    """Only samples that have every one of the modalities."""
    spoken: bool = False
    """Only samples in whose voice words were understood."""
    window_s: float | None = None
    """The middle stretch of this length; None: the whole utterance."""
    text_span_s: float = 0.0
    """The words of that stretch reach so far back, where that is more."""
    missing_rate: float = 0.0
    """Share of frames lost at random, in every modality."""
    modality_rate: float = 0.0
    """Probability with which each modality of a sample is lost; one of them stays."""
    seed: int = 0

    def pattern(self, simulates: bool) -> str:
        """Name of what the network sees, for calibration and tables.

        ``simulates``: the model turns audio into simulated text.
        """
        names = list(self.modalities)
        if self.flow == "missing_text":
            names = [name for name in names if name != "text"]
            if simulates and "audio" in names:
                names.insert(1, "simulated_text")
        return "+".join(names)

    def of(self, sample: Sample) -> Sample | None:
        """The sample as seen, None where it lacks what the view is about."""
        wanted = [m for m in self.modalities if self.flow == "complete" or m != "text"]
        sample = sample.keep(wanted)
        if not sample.modalities or (self.exact and set(wanted) - set(sample.modalities)):
            return None
        if self.spoken and (sample.simulated_text is None or not len(sample.simulated_text)):
            return None
        if self.window_s is not None and sample.duration_s > self.window_s:
            share = self.window_s / sample.duration_s
            sample = sample.window((1 - share) / 2, share, self.text_span_s / sample.duration_s)
        if self.modality_rate > 0:
            sample = _lose_modalities(sample, self.modality_rate, self.seed)
        if self.missing_rate > 0:
            sample = _lose_frames(sample, self.missing_rate, self.seed)
        return sample


@torch.inference_mode()
def predict(
    model: SentimentModel,
    samples: Samples,
    shapes: FrameShapes,
    view: View,
    device: torch.device,
    batch: int = 64,
) -> Predictions:
    """Predict a split in eval mode, in order; like lengths are batched together.

    Samples without evidence in the view are left out: there is no score without a modality.
    """
    was_training = model.training
    model.eval()
    ids: list[str] = []
    corpora: list[str] = []
    columns: list[NDArray[np.float64]] = []
    try:
        for chosen in _chunks(samples, view, batch * SORTED_BATCHES):
            order = np.argsort([_length(sample) for sample in chosen], kind="stable")
            stacked = np.empty((3, len(chosen)))
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                own = collate([chosen[row] for row in rows], shapes).to(device)
                stacked[:, rows] = _outputs(model, own, view.flow)
            labels = np.array([[sample.valence for sample in chosen]])
            ids += [sample.id for sample in chosen]
            corpora += [sample.corpus for sample in chosen]
            columns.append(np.concatenate([labels, stacked]))
    finally:
        model.train(was_training)
    table = np.concatenate(columns, axis=1) if columns else np.zeros((4, 0))
    found = Predictions(tuple(ids), tuple(corpora), *table)
    return found._rows(~np.isnan(table[1]))


def _outputs(model: SentimentModel, batch: Batch, flow: Flow) -> Floats:
    """Valence, low and high, [3, B]."""
    frames = model.encode(batch)
    output = model.complete(frames) if flow == "complete" else model.missing_text(frames)
    valence = output.valence.flatten()
    low = output.low.flatten() if output.low is not None else valence
    high = output.high.flatten() if output.high is not None else valence
    return np.asarray(torch.stack([valence, low, high]).double().cpu().numpy())


def _length(sample: Sample) -> int:
    frames = (getattr(sample, name) for name in EVIDENCE)
    return max((len(values) for values in frames if values is not None), default=0)


def _chunks(samples: Samples, view: View, size: int) -> Iterator[list[Sample]]:
    """Seen samples in lists of at most ``size``, read lazily: a corpus need not fit in memory."""
    chunk: list[Sample] = []
    for index in range(len(samples)):
        sample = view.of(samples[index])
        if sample is not None:
            chunk.append(sample)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _lose_frames(sample: Sample, rate: float, seed: int) -> Sample:
    generator = np.random.default_rng([seed, zlib.crc32(sample.id.encode())])
    thinned = {}
    for name in (*EVIDENCE, "simulated_text"):
        values = getattr(sample, name)
        if values is not None:
            kept = generator.random(len(values)) >= rate
            thinned[name] = values[kept] if kept.any() else values[:1]
    return replace(sample, **thinned)


def _lose_modalities(sample: Sample, rate: float, seed: int) -> Sample:
    generator = np.random.default_rng([seed, 1, zlib.crc32(sample.id.encode())])
    present = sample.modalities
    kept = [name for name in present if generator.random() >= rate]
    return sample.keep(kept or [present[int(generator.integers(len(present)))]])


def subsets() -> Sequence[tuple[str, ...]]:
    """The 7 non-empty subsets of the modalities, single ones first."""
    patterns = range(1, 2 ** len(EVIDENCE))
    found = [tuple(m for i, m in enumerate(EVIDENCE) if p >> i & 1) for p in patterns]
    return sorted(found, key=len)
