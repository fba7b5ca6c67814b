"""Batches: samples padded and masked, shuffled, and partly hidden.

``Batches`` orders samples into length buckets, and hides modalities and all but a window of
time, each by a generator seeded from (seed, epoch, sample), so that a resumed run
sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.corpus.clip import EMOTIONS
from trainer.data.loading import Loader
from trainer.data.samples import FrameShapes, Sample, Samples, augment
from trainer.distributed import Team
from trainer.recipe import Augmentation

Task = tuple[int, int, NDArray[np.int64]]
"""Epoch, number of the batch in it, indices of its samples."""
BUCKET_BATCHES = 32
"""Batches sorted by length together: enough to save padding, few enough to stay shuffled."""


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
    total: int
    """Rows of the whole batch, of which these may be one process's part."""

    @property
    def has_complete(self) -> Tensor:
        """[B] bool: the real text is there."""
        return self.text_mask.any(1)

    @property
    def has_missing(self) -> Tensor:
        """[B] bool: there is something besides the real text."""
        return self.audio_mask.any(1) | self.video_mask.any(1) | self.simulated_text_mask.any(1)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return self._mapped(lambda values: values.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies while it computes."""
        return self._mapped(torch.Tensor.pin_memory)

    def rows(self, start: int, stop: int) -> Batch:
        """Some rows."""
        return self._mapped(lambda values: values[start:stop])

    def lengthened(self, audio: int) -> Batch:
        """With so many audio frames [B, audio, ...], the new ones masked."""
        missing = audio - self.audio.shape[1]
        pad = (0, 0) * (self.audio.ndim - 2) + (0, missing)
        longer = nn.functional.pad(self.audio, pad)
        return replace(
            self, audio=longer, audio_mask=nn.functional.pad(self.audio_mask, (0, missing))
        )

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {n: change(v) for n, v in known.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


def collate(samples: Sequence[Sample], shapes: FrameShapes, total: int | None = None) -> Batch:
    """Pad samples into a batch of float32 tensors and boolean masks.

    Args:
        samples: of the batch, or of one process's part of it.
        shapes: of their frames.
        total: samples of the whole batch; None: these are all.
    """
    tensors: dict[str, Tensor] = {}
    for name in ("audio", "text", "simulated_text", "video"):
        shape: tuple[int, ...] = shapes.text if name == "simulated_text" else getattr(shapes, name)
        arrays = [getattr(sample, name) for sample in samples]
        longest = max([1, *(len(a) for a in arrays if a is not None)])
        # torch's own memory: how numpy's happens to be aligned changes the last bits of a product.
        tensors[name] = torch.zeros((len(samples), longest, *shape))
        tensors[f"{name}_mask"] = torch.zeros((len(samples), longest), dtype=torch.bool)
        values, mask = tensors[name], tensors[f"{name}_mask"]
        for row, array in enumerate(arrays):
            if array is not None and len(array):
                # torch widens float16 several times faster than numpy does.
                values[row, : len(array)].copy_(torch.from_numpy(array))
                mask[row, : len(array)] = True
    valence = torch.tensor([sample.valence for sample in samples], dtype=torch.float32)
    unknown = (0.0,) * len(EMOTIONS)
    emotions = torch.tensor([sample.emotions or unknown for sample in samples])
    whole = len(samples) if total is None else total
    return Batch(**tensors, valence=valence, emotions=emotions, total=whole)


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
    team: Team = field(default_factory=Team)
    """A batch is collated, and its frames are read, only as far as this process trains on it."""

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

    def loader(self, workers: int = 0, pinned: bool = False) -> Loader[Task, Batch]:
        """Makes the batches of ``epoch``, for as many epochs as there are.

        Args:
            workers: processes; 0: a thread.
            pinned: in page-locked memory, for a GPU.
        """
        return Loader(self._made, workers, pinned)

    def epoch(
        self, epoch: int, first: int = 0, loader: Loader[Task, Batch] | None = None
    ) -> Iterator[Batch]:
        """All batches of an epoch, made while the one before is trained on.

        Args:
            epoch: number.
            first: batches that ran already.
            loader: of these batches; None: a thread.
        """
        order = self.order(epoch)
        tasks = [(epoch, number, order[number]) for number in range(first, len(order))]
        return (loader or self.loader()).run(tasks)

    def _made(self, task: Task) -> Batch:
        epoch, number, indices = task
        own = self.team.share(len(indices))
        chosen = [
            self.sample(int(indices[place]), epoch, number * self.size + place)
            for place in range(own.start, own.stop)
        ]
        return collate(chosen, self.shapes, len(indices))

    def sample(self, index: int, epoch: int, place: int = 0) -> Sample:
        """One sample as an epoch sees it, at its ``place`` in the epoch."""
        sample = self.samples[index]
        if self.augmentation is None:
            return sample
        generator = np.random.default_rng([self.seed, epoch, index, place])
        return augment(sample, self.augmentation, self.window_s, generator)
