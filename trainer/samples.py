"""Samples and batches: what the network is trained on, masked, shuffled and partly hidden.

A ``Sample`` is one clip's frames per modality as the feature store holds them (memory maps).
``Batches`` orders samples into length buckets, and hides modalities and all but a window of
time, each by a generator seeded from (seed, epoch, sample), so that a resumed run
sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.corpus.clip import EMOTIONS
from trainer.recipe import Augmentation

Array = NDArray[np.generic]
Split = Literal["train", "valid", "test"]
EVIDENCE = ("audio", "text", "video")
BUCKET_BATCHES = 32
"""Batches sorted by length together: enough to save padding, few enough to stay shuffled."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled clip; every array is [T, ...], None where the clip lacks the modality."""

    id: str
    valence: float
    duration_s: float
    audio: Array | None = None
    text: Array | None = None
    simulated_text: Array | None = None
    video: Array | None = None
    corpus: str = ""
    emotions: tuple[float, ...] | None = None
    """Share of each of ``trainer.corpus.clip.EMOTIONS``; None where the corpus names none."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of audio, text and video the clip has."""
        return tuple(name for name in EVIDENCE if getattr(self, name) is not None)

    def keep(self, modalities: Sequence[str]) -> Sample:
        """The sample reduced to some modalities; simulated text goes with the audio it is from."""
        hidden: dict[str, Any] = {m: None for m in EVIDENCE if m not in modalities}
        if "audio" in hidden:
            hidden["simulated_text"] = None
        return replace(self, **hidden)

    def window(self, start: float, share: float) -> Sample:
        """The stretch of time from ``start`` (share of the clip) that lasts ``share`` of it."""
        cut = {}
        for name in (*EVIDENCE, "simulated_text"):
            values = getattr(self, name)
            if values is not None:
                n = len(values)
                first = min(int(start * n), n - 1)
                cut[name] = values[first : max(first + 1, round((start + share) * n))]
        return replace(self, duration_s=self.duration_s * share, **cut)


class Samples(Protocol):
    """A split of a corpus: cheap to measure, read one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] frames of the longest modality, for length buckets."""
        ...

    @property
    def weights(self) -> NDArray[np.float64]:
        """[n] how often an epoch sees each sample, on average."""
        ...

    @property
    def longest_s(self) -> float:
        """Duration of the longest sample."""
        ...


@dataclass(frozen=True)
class SampleList:
    """Samples that are already at hand."""

    items: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        return self.items[index]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] frames of the longest modality."""
        arrays = ("audio", "text", "video")
        return np.array(
            [
                max((len(getattr(s, a)) for a in arrays if getattr(s, a) is not None), default=0)
                for s in self.items
            ],
            dtype=np.int64,
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """[n] ones."""
        return np.ones(len(self.items))

    @property
    def longest_s(self) -> float:
        """Duration of the longest sample."""
        return max((sample.duration_s for sample in self.items), default=0.0)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples padded to one length per modality; an absent modality is one masked row of zeros."""

    audio: Tensor
    audio_mask: Tensor
    text: Tensor
    text_mask: Tensor
    simulated_text: Tensor
    simulated_text_mask: Tensor
    video: Tensor
    video_mask: Tensor
    valence: Tensor
    """[B]"""
    emotions: Tensor
    """[B, E] shares, zeros where unknown."""

    @property
    def has_complete(self) -> Tensor:
        """[B] bool: the real text is there."""
        return self.text_mask.any(1)

    @property
    def has_missing(self) -> Tensor:
        """[B] bool: there is something beside the real text."""
        return self.audio_mask.any(1) | self.video_mask.any(1) | self.simulated_text_mask.any(1)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return Batch(**moved)

    def rows(self, start: int, stop: int) -> Batch:
        """Some rows: one process's share of a batch."""
        return Batch(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})


@dataclass(frozen=True)
class FrameShapes:
    """Shape of one frame per modality, beyond time."""

    audio: tuple[int, ...]
    text: tuple[int, ...]
    video: tuple[int, ...]

    @staticmethod
    def of(samples: Samples, default: int = 1) -> FrameShapes:
        """Read the shapes off the first sample that has each modality.

        Raises:
            ValueError: two samples disagree.
        """
        found: dict[str, tuple[int, ...]] = {}
        for index in range(len(samples)):
            sample = samples[index]
            for name in sample.modalities:
                shape = getattr(sample, name).shape[1:]
                if found.setdefault(name, shape) != shape:
                    raise ValueError(
                        f"{sample.id}: {name} frames have shape {shape}, others {found[name]}"
                    )
        empty = (default,)
        return FrameShapes(*(found.get(name, empty) for name in EVIDENCE))


def collate(samples: Sequence[Sample], shapes: FrameShapes) -> Batch:
    """Pad samples into a batch of float32 tensors and boolean masks."""
    tensors: dict[str, Tensor] = {}
    for name in ("audio", "text", "simulated_text", "video"):
        shape: tuple[int, ...] = shapes.text if name == "simulated_text" else getattr(shapes, name)
        arrays = [getattr(sample, name) for sample in samples]
        longest = max([1, *(len(a) for a in arrays if a is not None)])
        # torch's own memory: how numpy's happens to be aligned changes the last bits of a product.
        tensors[name] = torch.zeros((len(samples), longest, *shape))
        tensors[f"{name}_mask"] = torch.zeros((len(samples), longest), dtype=torch.bool)
        values, mask = tensors[name].numpy(), tensors[f"{name}_mask"].numpy()
        for row, array in enumerate(arrays):
            if array is not None and len(array):
                values[row, : len(array)] = array
                mask[row, : len(array)] = True
    valence = torch.tensor([sample.valence for sample in samples], dtype=torch.float32)
    unknown = (0.0,) * len(EMOTIONS)
    emotions = torch.tensor([sample.emotions or unknown for sample in samples])
    return Batch(**tensors, valence=valence, emotions=emotions)


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one split; iterate an epoch with ``epoch(n)``.

    ``augmentation`` None gives every sample whole and in order: for evaluation.
    """

    samples: Samples
    shapes: FrameShapes
    size: int
    seed: int = 0
    augmentation: Augmentation | None = None
    window_s: float = 4.0
    bucketed: bool = True

    def __len__(self) -> int:
        """Batches of an epoch; with weights, of the average one."""
        count = len(self.samples)
        if self.augmentation is not None:
            count = max(1, round(float(self.samples.weights.sum())))
        return math.ceil(count / self.size)

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Sample indices of each batch of an epoch, like lengths together, batches shuffled."""
        if self.augmentation is None:
            indices = np.arange(len(self.samples))
            return [indices[i : i + self.size] for i in range(0, len(indices), self.size)]
        generator = np.random.default_rng([self.seed, epoch])
        indices = self._drawn(generator)
        if self.bucketed:
            lengths, block = self.samples.lengths, self.size * BUCKET_BATCHES
            blocks = [indices[i : i + block] for i in range(0, len(indices), block)]
            indices = np.concatenate([b[np.argsort(lengths[b], kind="stable")] for b in blocks])
        batches = [indices[i : i + self.size] for i in range(0, len(indices), self.size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def _drawn(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Shuffled indices; a weight's whole part always, the rest of it by chance."""
        weights = self.samples.weights
        times = np.floor(weights + generator.random(len(weights))).astype(np.int64)
        return generator.permutation(np.repeat(np.arange(len(weights)), times))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of an epoch."""
        for number, indices in enumerate(self.order(epoch)):
            chosen = [
                self.sample(int(index), epoch, number * self.size + place)
                for place, index in enumerate(indices)
            ]
            yield collate(chosen, self.shapes)

    def sample(self, index: int, epoch: int, place: int = 0) -> Sample:
        """One sample as an epoch sees it, at its ``place`` in the epoch."""
        sample = self.samples[index]
        if self.augmentation is None:
            return sample
        generator = np.random.default_rng([self.seed, epoch, index, place])
        return augment(sample, self.augmentation, self.window_s, generator)


def augment(
    sample: Sample, settings: Augmentation, window_s: float, generator: np.random.Generator
) -> Sample:
    """Hide part of a sample: all but a window, or some of its modalities.

    Single frames are dropped later, behind the encoders (``trainer.model``): a convolution over
    a spectrogram with holes would learn the holes.
    """
    share = window_s / sample.duration_s if sample.duration_s > 0 else 1.0
    if share < 1 and generator.random() < settings.sub_window:
        sample = sample.window(generator.random() * (1 - share), share)
    present = sample.modalities
    if len(present) > 1 and generator.random() < settings.modality_dropout:
        pattern = int(generator.integers(1, 2 ** len(present)))
        sample = sample.keep([m for i, m in enumerate(present) if pattern >> i & 1])
    return sample
