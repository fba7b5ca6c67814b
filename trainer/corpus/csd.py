"""CMU-MultimodalSDK ``.csd`` files: features and labels on intervals of videos (HDF5).

``/<root>/data/<video>/features`` [n, d] with ``intervals`` [n, 2] in seconds. One clip is one
segment of the label file; its features are the rows whose middle is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_hash, split_by_name
from trainer.corpus.clip import Clip, Corpus, CorpusError, Features, Split
from trainer.corpus.pickles import fingerprint
from trainer.corpus.tables import table

ROOTS = {
    "audio": ("COVAREP", "OpenSMILE"),
    "text": ("glove_vectors",),
    "video": ("FACET", "OpenFace"),
}
"""Preferred first, by the beginning of the root's name."""
LABELS, WORDS = "All Labels", "words"
SPLIT_FILE = "split.csv"
PAUSE = "sp"


@dataclass(frozen=True)
class Segment:
    """A labelled stretch of a video."""

    video: str
    index: int
    start_s: float
    end_s: float
    valence: float


class Sequence:
    """One open ``.csd`` file."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            CorpusError: h5py is missing, or it is no such file.
        """
        try:
            import h5py
        except ImportError:
            raise CorpusError(f'{path}: needs h5py: pip install -e ".[train]"') from None
        self.path = path
        try:
            self._file: Any = h5py.File(path, "r")
            roots = list(self._file)
            self._data: Any = self._file[roots[0]]["data"] if len(roots) == 1 else None
        except (OSError, KeyError) as error:
            raise CorpusError(f"{path}: not a readable .csd file: {error}") from None
        if self._data is None:
            raise CorpusError(f"{path}: expected one root, got {roots}")
        self.root: str = roots[0]

    @cached_property
    def fingerprint(self) -> str:
        """Names the file's content."""
        return fingerprint(self.path)

    def videos(self) -> tuple[str, ...]:
        """Ids of the videos."""
        return tuple(self._data)

    def intervals(self, video: str) -> NDArray[np.float64]:
        """[n, 2] seconds; empty for a video that is not there."""
        if video not in self._data:
            return np.zeros((0, 2))
        return np.asarray(self._read(video, "intervals"), np.float64).reshape(-1, 2)

    def rows(self, video: str, chosen: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows of a video's features."""
        first, last = int(chosen[0]), int(chosen[-1]) + 1
        return np.asarray(self._read(video, "features", slice(first, last)))[chosen - first]

    def within(self, video: str, start_s: float, end_s: float) -> NDArray[np.int64]:
        """Rows whose middle is in [start_s, end_s)."""
        middle = self.intervals(video).mean(axis=1)
        return np.flatnonzero((middle >= start_s) & (middle < end_s))

    def _read(self, video: str, name: str, part: slice = slice(None)) -> Any:
        try:
            return self._data[video][name][part]
        except (OSError, KeyError, RuntimeError) as error:
            raise CorpusError(f"{self.path}: {video}/{name}: cannot be read: {error}") from None


def read(path: Path) -> Corpus:
    """Read a folder of ``.csd`` files, or the labels with one file next to them.

    Raises:
        CorpusError: no label file, damaged files, or no usable clip.
    """
    folder = path if path.is_dir() else path.parent
    sequences = [Sequence(file) for file in sorted(folder.glob("*.csd"))]
    labels = next((s for s in sequences if s.root.startswith(LABELS)), None)
    if labels is None:
        roots = ", ".join(s.root for s in sequences) or "none"
        raise CorpusError(f"{folder}: expected a .csd with the root {LABELS!r}, got {roots}")
    if path.is_file():
        sequences = [s for s in sequences if s.path == path or s is labels]
    ledger = Ledger()
    chosen = _choose(sequences, ledger)
    words = next((s for s in sequences if s.root == WORDS), None)
    splits = Splits(folder / SPLIT_FILE, ledger)
    name = corpus_name(folder)
    clips = []
    for segment in segments(labels, ledger):
        split = splits.find(segment.video)
        if split is None:
            ledger.add("lost", f"videos that {SPLIT_FILE} does not name", segment.video)
            continue
        found = {m: _features(s, segment, m, ledger) for m, s in chosen.items()}
        clips.append(
            Clip(
                id=f"{segment.video}[{segment.index}]",
                corpus=name,
                split=split,
                valence=segment.valence,
                group=segment.video,
                audio=found.get("audio"),
                text=found.get("text"),
                video=found.get("video"),
                transcript=None if words is None else _spoken(words, segment),
                duration_s=segment.end_s - segment.start_s,
            )
        )
    return assemble(path, ".csd", clips, ledger)


def segments(labels: Sequence, ledger: Ledger) -> Iterator[Segment]:
    """All labelled segments; sentiment is the first label column."""
    for video in labels.videos():
        intervals = labels.intervals(video)
        if not len(intervals):
            continue
        values = labels.rows(video, np.arange(len(intervals)))
        for index, ((start_s, end_s), row) in enumerate(zip(intervals, values, strict=True)):
            if not end_s > start_s:
                ledger.add("lost", "segments that end before they start", f"{video}[{index}]")
                continue
            valence = float(np.ravel(row)[0])
            yield Segment(video, index, float(start_s), float(end_s), valence)


class Splits:
    """Splits of videos: from ``split.csv`` (video, split), or by hash where there is none."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self._named: dict[str, Split] | None = None
        if not path.is_file():
            ledger.add("note", f"no {path.name}: videos are split 70/10/20 by hash")
            return
        self._named = {}
        for row in table(path, ("video", "split"), ledger):
            split = split_by_name(row["split"])
            if split is None:
                ledger.add("lost", "split other than train, valid, test", row["video"])
            elif self._named.setdefault(row["video"], split) != split:
                raise CorpusError(f"{path}: video {row['video']} is in two splits")

    def find(self, video: str) -> Split | None:
        """Split of a video; None where a split file does not name it."""
        return split_by_hash(video) if self._named is None else self._named.get(video)


def _choose(sequences: list[Sequence], ledger: Ledger) -> dict[str, Sequence]:
    chosen: dict[str, Sequence] = {}
    for modality, prefixes in ROOTS.items():
        for prefix in prefixes:
            for sequence in sequences:
                if not sequence.root.startswith(prefix):
                    continue
                if modality in chosen:
                    used = chosen[modality].root
                    ledger.add("note", f"{sequence.root} left aside: {used} is used for {modality}")
                else:
                    chosen[modality] = sequence
    return chosen


def _features(
    sequence: Sequence, segment: Segment, modality: str, ledger: Ledger
) -> Features | None:
    rows = sequence.within(segment.video, segment.start_s, segment.end_s)
    if not len(rows):
        ledger.add("lost", f"missing {modality} features", f"{segment.video}[{segment.index}]")
        return None
    place = f"{sequence.fingerprint}/{segment.video}/{rows[0]}-{rows[-1]}-{len(rows)}"
    return Features(lambda: sequence.rows(segment.video, rows), place)


def _spoken(words: Sequence, segment: Segment) -> str | None:
    rows = words.within(segment.video, segment.start_s, segment.end_s)
    if not len(rows):
        return None
    said = [bytes(w).decode("utf-8", "replace") for w in words.rows(segment.video, rows).ravel()]
    return " ".join(word for word in said if word != PAUSE) or None
