"""Samples: one clip's frames per modality as the feature store holds them (memory maps)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.recipe import Augmentation

Array = NDArray[np.generic]
Split = Literal["train", "valid", "test"]
EVIDENCE = ("audio", "text", "video")


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

    def window(self, start: float, share: float, text_share: float | None = None) -> Sample:
        """The stretch of time from ``start`` (share of the clip) that lasts ``share`` of it.

        Text is that of the last ``text_share`` of the clip before the stretch's end: words are
        read together for longer than a voice is heard.
        """
        cut = {}
        end = start + share
        text_start = start if text_share is None else max(0.0, end - max(share, text_share))
        for name in (*EVIDENCE, "simulated_text"):
            values = getattr(self, name)
            if values is not None:
                n = len(values)
                begin = text_start if name in ("text", "simulated_text") else start
                first = min(int(begin * n), n - 1)
                cut[name] = values[first : max(first + 1, round(end * n))]
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


def augment(
    sample: Sample, settings: Augmentation, window_s: float, generator: np.random.Generator
) -> Sample:
    """Hide part of a sample: all but a window, or some of its modalities.

    Single frames are dropped later, behind the encoders (``trainer.model``): a convolution over
    a spectrogram with holes would learn the holes.
    """
    if sample.duration_s > 0 and generator.random() < settings.sub_window:
        length_s = window_s * generator.uniform(settings.shortest_window, 1)
        share = length_s / sample.duration_s
        if share < 1:
            text_share = settings.text_span_s / sample.duration_s
            sample = sample.window(generator.random() * (1 - share), share, text_share)
    present = sample.modalities
    if len(present) > 1 and generator.random() < settings.modality_dropout:
        pattern = int(generator.integers(1, 2 ** len(present)))
        sample = sample.keep([m for i, m in enumerate(present) if pattern >> i & 1])
    if sample.audio is not None and 0 < settings.audio_frames < len(sample.audio):
        drawn = np.sort(generator.permutation(len(sample.audio))[: settings.audio_frames])
        sample = replace(sample, audio=sample.audio[drawn])
    return sample
