"""MERTools: ``label.npz`` with ``<split>_corpus`` {clip: {emo, val}} beside features.

``features/{audio,text,video}/`` holds per clip ``<clip>.npy`` [T, D] or [D], or a folder
``<clip>/`` of one .npy per frame, in the order of their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import Clip, Corpus, CorpusError, Features, Split
from trainer.corpus.pickles import read_npz

MODALITY_FOLDERS = ("audio", "text", "video")


def read(path: Path) -> Corpus:
    """Read a ``label.npz`` or its folder.

    Raises:
        CorpusError: unreadable, or other content.
    """
    path = path / "label.npz" if path.is_dir() else path
    tables: dict[Split, Mapping[str, Mapping[str, float]]] = {}
    for key, value in read_npz(path).items():
        split = split_by_name(key.removesuffix("_corpus"))
        if split is not None and isinstance(value, Mapping):
            tables[split] = value
    if not tables:
        raise CorpusError(f"{path}: expected train_corpus, val_corpus and test_corpus of clips")
    features = path.parent / "features"
    folders = {name: features / name for name in MODALITY_FOLDERS if (features / name).is_dir()}
    ledger = Ledger()
    if not folders:
        ledger.add("note", "no features/audio, features/text or features/video beside label.npz")
    name = corpus_name(path)
    clips = []
    for split, table in tables.items():
        for clip_id, label in table.items():
            value = label.get("val") if isinstance(label, Mapping) else None
            if value is None:
                ledger.add("lost", "clips without a valence", str(clip_id))
                continue
            found: dict[str, Features] = {}
            for modality, folder in folders.items():
                one = feature_files(folder, str(clip_id))
                if one is None:
                    ledger.add("lost", f"missing {modality} features", str(clip_id))
                else:
                    found[modality] = one
            clips.append(
                Clip(
                    id=str(clip_id),
                    corpus=name,
                    split=split,
                    valence=float(value),
                    group=str(clip_id).rpartition("_")[0] or None,
                    audio=found.get("audio"),
                    text=found.get("text"),
                    video=found.get("video"),
                )
            )
    return assemble(path, "MERTools label.npz", clips, ledger)


def feature_files(folder: Path, clip: str) -> Features | None:
    """Features of a clip: one file, or a folder of frames; None if there is neither."""
    single, frames = folder / f"{clip}.npy", folder / clip
    if single.is_file():
        return Features(partial(_load, single))
    if frames.is_dir() and any(frames.glob("*.npy")):
        return Features(partial(_load_frames, frames))
    return None


def _load(path: Path) -> NDArray[np.generic]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(f"{path}: not a numpy array: {error}") from None


def _load_frames(folder: Path) -> NDArray[np.generic]:
    frames = [_load(path).ravel() for path in sorted(folder.glob("*.npy"))]
    if len({len(frame) for frame in frames}) > 1:
        raise CorpusError(f"{folder}: expected frames of one size")
    return np.stack(frames)
