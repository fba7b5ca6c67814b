"""Samples whose frames lie in feature stores: read by memory map, one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.corpus import Split
from trainer.data.samples import Sample
from trainer.features.store import FrameStore

PAIRS = "pairs"
TEXTS = ("text", "simulated_text")


@dataclass(frozen=True)
class StoredClip:
    """A clip whose frames are stored: their keys by ``Sample``'s field."""

    id: str
    corpus: str
    split: Split
    valence: float
    group: str | None
    weight: float
    duration_s: float
    keys: Mapping[str, str]
    emotions: tuple[float, ...] | None = None
    understood: bool = False
    """Simulated text is the real one's: a sentence known by heart."""


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """A split of stored clips."""

    clips: tuple[StoredClip, ...]
    stores: Mapping[str, FrameStore]
    window_s: float = float("inf")
    """Length for the buckets: training mostly sees windows of long clips."""

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        frames = {name: self.stores[name].read(key) for name, key in clip.keys.items()}
        if clip.understood and "text" in frames:
            frames.setdefault("simulated_text", frames["text"])
        return Sample(
            clip.id,
            clip.valence,
            clip.duration_s,
            corpus=clip.corpus,
            emotions=clip.emotions,
            **frames,
        )

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[n] frames of the longest modality, for length buckets."""
        return np.array(
            [
                max(self.stores[name].entry(key).count for name, key in clip.keys.items())
                for clip in self.clips
            ],
            np.int64,
        )

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """[n] how often an epoch sees each clip."""
        return np.array([clip.weight for clip in self.clips])

    @property
    def longest_s(self) -> float:
        """Duration of the longest clip."""
        return max((clip.duration_s for clip in self.clips), default=0.0)

    @property
    def labels(self) -> NDArray[np.float64]:
        """[n] valence."""
        return np.array([clip.valence for clip in self.clips])

    def of_corpus(self, name: str) -> StoredSamples:
        """The clips of one corpus."""
        return replace(self, clips=tuple(clip for clip in self.clips if clip.corpus == name))

    @cached_property
    def digest(self) -> str:
        """Short digest of ids, labels, weights and frames: other data, other digest."""
        state = hashlib.sha256()
        for clip in self.clips:
            facts = (clip.id, clip.corpus, clip.valence, clip.weight, clip.duration_s)
            more = (clip.emotions, clip.understood)
            state.update(repr((facts, sorted(clip.keys.items()), *more)).encode())
        return state.hexdigest()[:16]

    @property
    def corpora(self) -> tuple[str, ...]:
        """Names of the corpora, in order of appearance."""
        return tuple(dict.fromkeys(clip.corpus for clip in self.clips))


def pair(
    clips: Sequence[StoredClip],
    share: float,
    tolerance: float,
    seed: int,
    words_tolerance: float | None = None,
    words_weight: float = 1.0,
) -> tuple[StoredClip, ...]:
    """Pair voices with faces, and with words, where a corpus has one without the others.

    Args:
        clips: of one split.
        share: pairs per clip with a voice and no face.
        tolerance: largest difference of the labels of voice and face.
        seed: of the choice.
        words_tolerance: a voice without words gets those of a clip whose label differs by no more
            than this: a spoken one, or a bare transcript, which then counts as understood; None:
            of none.
        words_weight: how many times as much such words count in the label as voice or face.

    Returns:
        Pairs, each with all that its clips have; its label is the mean of theirs.
    """
    voices = [clip for clip in clips if "audio" in clip.keys and "video" not in clip.keys]
    faces = _Alike([clip for clip in clips if set(clip.keys) == {"video"}])
    if not voices or not faces.clips or share == 0:
        return ()
    said = _Alike([clip for clip in clips if _is_said(clip)])
    generator = np.random.default_rng([seed, len(voices), len(faces.clips)])
    count = round(share * len(voices))
    order = np.concatenate(
        [generator.permutation(len(voices)) for _ in range(-(-count // len(voices)))]
    )
    made = []
    for number, index in enumerate(order[:count]):
        voice = voices[index]
        face = faces.draw(voice.valence, tolerance, generator)
        if face is None:
            continue
        label, keys = (voice.valence + face.valence) / 2, {**voice.keys, **face.keys}
        understood = voice.understood
        if words_tolerance is not None and not set(TEXTS) & set(voice.keys):
            words = said.draw(voice.valence, words_tolerance, generator)
            if words is not None:
                keys |= {name: words.keys[name] for name in TEXTS if name in words.keys}
                understood = "simulated_text" not in keys
                label = (2 * label + words_weight * words.valence) / (2 + words_weight)
        made.append(
            StoredClip(
                id=f"{PAIRS}/{number}",
                corpus=PAIRS,
                split=voice.split,
                valence=label,
                group=None,
                weight=1.0,
                duration_s=voice.duration_s,
                keys=keys,
                understood=understood,
            )
        )
    return tuple(made)


def _is_said(clip: StoredClip) -> bool:
    """Whether a clip's words can be given to another voice: rated words, and no actor's lines."""
    return "text" in clip.keys and not clip.understood and "video" not in clip.keys


class _Alike:
    """Clips by their valence."""

    def __init__(self, clips: Sequence[StoredClip]) -> None:
        self.clips = sorted(clips, key=lambda clip: clip.valence)
        self._labels = np.array([clip.valence for clip in self.clips])

    def draw(
        self, valence: float, tolerance: float, generator: np.random.Generator
    ) -> StoredClip | None:
        """One whose valence differs by at most so much; None where there is none."""
        first = int(np.searchsorted(self._labels, valence - tolerance, "left"))
        last = int(np.searchsorted(self._labels, valence + tolerance, "right"))
        return None if first == last else self.clips[int(generator.integers(first, last))]
