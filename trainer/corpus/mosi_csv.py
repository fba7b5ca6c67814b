"""Utterance-level features of CMU-MOSI as ``{audio,text,video}_{train,test}.csv``, and its texts.

Quoted numbers without a header, the binary label in the last column. A binary label becomes a
valence of -1 or +1: a convention, not a rating.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_hash
from trainer.corpus.clip import Clip, Corpus, CorpusError, Features, Split
from trainer.corpus.tables import raw_rows

MODALITIES = ("audio", "text", "video")
BINARY = {"0": -1.0, "1": 1.0}
CONVENTION = "binary labels taken as valence -1 and +1"


def parts(folder: Path) -> dict[tuple[str, Split], Path]:
    """The feature files of a folder by modality and split."""
    found: dict[tuple[str, Split], Path] = {}
    splits: tuple[Split, ...] = ("train", "valid", "test")
    for modality in MODALITIES:
        for split in splits:
            path = folder / f"{modality}_{split}.csv"
            if path.is_file():
                found[modality, split] = path
    return found


def read(path: Path) -> Corpus:
    """Read a folder of feature files (or the folder of one of them).

    Raises:
        CorpusError: unreadable, not numbers, or files of a split that disagree.
    """
    folder = path if path.is_dir() else path.parent
    files = parts(folder)
    ledger = Ledger()
    name = corpus_name(folder)
    clips = []
    for split in sorted({split for _, split in files}):
        tables = {m: _numbers(file) for (m, s), file in files.items() if s == split}
        first_name, first = next(iter(tables.items()))
        for modality, values in tables.items():
            if not np.array_equal(values[:, -1], first[:, -1]):
                raise CorpusError(
                    f"{folder}: {split}: labels of {modality} ({len(values)} rows) are not those "
                    f"of {first_name} ({len(first)} rows)"
                )
        other = set(np.unique(first[:, -1])) - {0.0, 1.0}
        if other:
            raise CorpusError(
                f"{folder}: {split}: last column: expected labels 0 and 1, got {sorted(other)[:5]}"
            )
        ledger.add("note", CONVENTION, count=len(first))
        for row in range(len(first)):
            features = {
                modality: Features(partial(values[:, :-1].__getitem__, row))
                for modality, values in tables.items()
            }
            valence = BINARY[str(int(first[row, -1]))]
            clips.append(
                Clip(
                    id=f"{split}{row:05d}",
                    corpus=name,
                    split=split,
                    valence=valence,
                    audio=features.get("audio"),
                    text=features.get("text"),
                    video=features.get("video"),
                )
            )
    return assemble(folder, "MOSI utterance CSVs", clips, ledger)


def read_transcripts(path: Path) -> Corpus:
    """Read ``transcripts.csv``: id, text, fold, binary label, without a header.

    Raises:
        CorpusError: unreadable or no usable row.
    """
    ledger = Ledger()
    name = corpus_name(path)
    clips = []
    for number, row in enumerate(raw_rows(path), start=1):
        if len(row) != 4 or row[3] not in BINARY:
            ledger.add("lost", "rows that are not id, text, fold, label 0 or 1", f"row {number}")
            continue
        clip_id, text, _, label = row
        video = clip_id.rpartition("_")[0] or clip_id
        clips.append(
            Clip(
                id=clip_id,
                corpus=name,
                split=split_by_hash(video),
                valence=BINARY[label],
                group=video,
                transcript=text.strip() or None,
            )
        )
    ledger.add("note", CONVENTION, count=len(clips))
    ledger.add("note", "no official split: videos are split 70/10/20 by hash", count=len(clips))
    return assemble(path, "MOSI transcripts", clips, ledger)


def _numbers(path: Path) -> NDArray[np.float64]:
    rows = [row for row in raw_rows(path) if row]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or widths == {1}:
        raise CorpusError(f"{path}: expected rows of one length, got lengths {sorted(widths)[:5]}")
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise CorpusError(f"{path}: expected numbers: {error}") from None
