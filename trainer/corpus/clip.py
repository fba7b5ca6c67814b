"""A corpus as the trainer sees it: clips, where their evidence is, and what is wrong."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.spec import MODALITIES

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
VALENCE_RANGE = (-3.0, 3.0)
EMOTIONS = (
    "neutral",
    "calm",
    "happy",
    "surprise",
    "sad",
    "angry",
    "disgust",
    "fear",
    "contempt",
)
"""Names that corpora of acted voices and of faces use, the teacher next to the valence."""
Severity = Literal["note", "lost", "error"]
Floats = NDArray[np.float32]


class CorpusError(Exception):
    """A corpus that cannot be read or trusted: one line, expected and actual."""


@lru_cache(maxsize=4)
def _archive(path: Path) -> zipfile.ZipFile:
    """An archive kept open: reading its directory again for each of 30,000 crops takes an hour."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True, slots=True)
class Media:
    """Sound, a video or a face crop in a file, or in a member of a zip archive."""

    path: Path
    member: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    """Stretch of the file that the clip is; None: to its end."""
    still: bool = False
    """One face crop, not a video."""

    def read_bytes(self) -> bytes:
        """The file's bytes; a member is read without unpacking the archive.

        Raises:
            CorpusError: it cannot be read, or the archive is damaged.
        """
        try:
            if self.member is None:
                return self.path.read_bytes()
            return _archive(self.path).read(self.member)
        except (OSError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
            where = self.path if self.member is None else f"{self.path}:{self.member}"
            reason = getattr(error, "strerror", None) or str(error)
            raise CorpusError(f"{where}: cannot be read: {reason}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Frames [T, D] that a corpus brings along, loaded when asked for."""

    load: Callable[[], NDArray[np.generic]]
    key: str | None = None
    """Names the content without reading it (file, time, place in it); None: by its bytes."""

    def read(self) -> tuple[Floats, int]:
        """Frames [T, D] as float32, and how many values were not finite and are now 0.

        A single vector [D] is one frame.

        Raises:
            CorpusError: not numbers, or not one or two-dimensional.
        """
        raw = np.asarray(self.load())
        if raw.dtype.kind not in "fiub" or raw.ndim not in (1, 2):
            raise CorpusError(
                f"features: expected numbers [T, D], got {raw.dtype} {list(raw.shape)}"
            )
        with np.errstate(over="ignore"):  # a float64 beyond float32 is repaired like infinity
            values = np.array(np.atleast_2d(raw), np.float32)
        bad = ~np.isfinite(values)
        values[bad] = 0.0
        return values, int(bad.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One labelled utterance, recording or picture. Nothing of it is loaded yet."""

    id: str
    corpus: str
    split: Split
    valence: float
    group: str | None = None
    """Speaker or video; all clips of a group belong into one split."""
    audio: Media | Features | None = None
    video: Media | Features | None = None
    text: Features | None = None
    transcript: str | None = None
    duration_s: float | None = None
    weight: float = 1.0
    emotions: tuple[float, ...] | None = None
    """Share of each of ``EMOTIONS``, summing to 1, where the corpus names them."""

    simulated_text: Features | None = None
    """States of a language model that heard the clip, where the corpus brings them."""
    beside: tuple[tuple[str, Features], ...] = ()
    """Features of modalities that the clip has media of, too (``join``)."""

    def features(self, name: str) -> Features | None:
        """The clip's own features of a modality, or of the simulated text."""
        source: Media | Features | None = getattr(self, name)
        return source if isinstance(source, Features) else dict(self.beside).get(name)

    def is_features(self, name: str) -> bool:
        """Whether a modality is features, and no recording."""
        return isinstance(getattr(self, name), Features)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of audio, text and video the clip has."""
        has = {
            "audio": self.audio is not None,
            "text": self.text is not None or self.transcript is not None,
            "video": self.video is not None,
        }
        return tuple(name for name in MODALITIES if has[name])


@dataclass(frozen=True, slots=True)
class Problem:
    """Something found wrong, counted.

    ``note``: worth knowing. ``lost``: something was left out. ``error``: training on it would
    give wrong figures.
    """

    severity: Severity
    kind: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Corpus:
    """All usable clips of a corpus, and everything that was found wrong with it."""

    name: str
    path: Path
    format: str
    clips: tuple[Clip, ...]
    problems: tuple[Problem, ...] = ()

    def split(self, name: Split) -> tuple[Clip, ...]:
        """The clips of a split, in the corpus's order."""
        return tuple(clip for clip in self.clips if clip.split == name)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of audio, text and video any clip has."""
        found = {name for clip in self.clips for name in clip.modalities}
        return tuple(name for name in MODALITIES if name in found)

    def require_sound(self) -> None:
        """Refuse a corpus whose figures would be wrong.

        Raises:
            CorpusError: there are problems of severity ``error``.
        """
        faults = [problem for problem in self.problems if problem.severity == "error"]
        if faults:
            parts = [f"{fault.kind}: {fault.count}" for fault in faults]
            # What was left out, or is nearly a known column, is often the cause.
            parts += [_in_words(p) for p in self.problems if p.severity == "lost"]
            parts += [p.kind for p in self.problems if p.kind.endswith("meant?")]
            listed = "; ".join(parts)
            raise CorpusError(f"{self.path}: {listed} (see `python -m trainer inspect`)")


def _in_words(problem: Problem) -> str:
    example = f" (such as {problem.examples[0]})" if problem.examples else ""
    return f"{problem.kind}: {problem.count}{example}"
