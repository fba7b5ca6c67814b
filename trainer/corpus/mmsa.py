"""MMSA pickles, aligned and unaligned; and bare pickles of pooled features.

MMSA: ``{train, valid, test}`` -> ``id "<video>$_$<clip>"``, ``raw_text``, ``audio``, ``vision``,
``text``, ``text_bert``, ``regression_labels``, and ``*_lengths`` where unaligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import Clip, Corpus, CorpusError, Features, Split
from trainer.corpus.pickles import read_pickle

POOLED = {
    "audio": ("acoustic", "audio"),
    "text": ("language", "text"),
    "video": ("visual", "vision", "video"),
}
Array = NDArray[np.generic]


def read(path: Path) -> Corpus:
    """Read a pickle. It is in memory as a whole: the feature store is what training reads.

    Raises:
        CorpusError: unreadable, refused, or of another layout.
    """
    tree = read_pickle(path)
    if not isinstance(tree, Mapping):
        raise CorpusError(f"{path}: expected a dict of splits, got {type(tree).__name__}")
    tables = {split_by_name(str(key)): value for key, value in tree.items()}
    splits = {split: value for split, value in tables.items() if split is not None}
    ledger = Ledger()
    name = corpus_name(path)
    if not splits:
        return assemble(path, "pooled pickle", _pooled(path, tree, name, ledger), ledger)
    aligned = not any("audio_lengths" in part for part in splits.values())
    clips: list[Clip] = []
    for split, part in splits.items():
        clips += _clips(path, split, part, name, ledger)
    form = f"MMSA pickle, {'aligned' if aligned else 'unaligned'}"
    return assemble(path, form, clips, ledger)


def _clips(
    path: Path, split: Split, part: Mapping[str, Any], corpus: str, ledger: Ledger
) -> Iterator[Clip]:
    ids, labels = part.get("id"), part.get("regression_labels")
    if ids is None or labels is None:
        raise CorpusError(f"{path}: {split}: expected id and regression_labels, got {list(part)}")
    names = [_name(value) for value in ids]
    for key in ("regression_labels", "raw_text", "audio", "vision", "text", "text_bert"):
        if key in part and len(part[key]) != len(names):
            raise CorpusError(
                f"{path}: {split}: {key}: expected {len(names)} rows, got {len(part[key])}"
            )
    tokens = part.get("text_bert")
    for row, name in enumerate(names):
        features: dict[str, Features] = {}
        for modality, key in (("audio", "audio"), ("video", "vision")):
            if key in part:
                cut = _length_cut(part.get(f"{key}_lengths"), row)
                features[modality] = _lazy(part[key], row, cut, name, ledger)
        if "text" in part:
            mask = None if tokens is None else np.asarray(tokens[row])[1] > 0
            features["text"] = _lazy(part["text"], row, partial(_masked, mask), name, ledger)
        transcript = str(part["raw_text"][row]).strip() if "raw_text" in part else ""
        yield Clip(
            id=name,
            corpus=corpus,
            split=split,
            valence=float(np.asarray(labels)[row]),
            group=name.partition("$_$")[0] if "$_$" in name else None,
            audio=features.get("audio"),
            text=features.get("text"),
            video=features.get("video"),
            transcript=transcript or None,
        )


def _lazy(
    table: Any, row: int, cut: Callable[[Array], Array], name: str, ledger: Ledger
) -> Features:
    if np.asarray(table[row]).size == 0:
        ledger.add("note", "empty feature rows", name)
    return Features(lambda: cut(np.asarray(table[row])))


def _length_cut(lengths: Sequence[int] | None, row: int) -> Callable[[Array], Array]:
    if lengths is None:
        return _trimmed
    count = max(1, int(lengths[row]))
    return lambda values: values[:count]


def _trimmed(values: Array) -> Array:
    """Without the rows of zeros at both ends, which are padding in aligned files; one row stays."""
    if values.ndim != 2:
        return values
    used = np.flatnonzero(np.any(values != 0, axis=1))
    return values[used[0] : used[-1] + 1] if len(used) else values[:1]


def _masked(mask: NDArray[np.bool_] | None, values: Array) -> Array:
    if mask is None or values.ndim != 2 or len(mask) != len(values) or not mask.any():
        return _trimmed(values)
    return values[mask]


def _name(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pooled(path: Path, tree: Mapping[Any, Any], corpus: str, ledger: Ledger) -> Iterator[Clip]:
    """Rows of ``{acoustic, language, visual, labels}`` that come without ids and splits."""
    labels = tree.get("labels")
    tables = {
        modality: next((np.asarray(tree[key]) for key in keys if key in tree), None)
        for modality, keys in POOLED.items()
    }
    found = {modality: table for modality, table in tables.items() if table is not None}
    if labels is None or not found:
        raise CorpusError(
            f"{path}: expected the splits train, valid, test, or labels with audio, text or "
            f"video features, got {', '.join(map(str, list(tree)[:8])) or 'an empty dict'}"
        )
    values = np.asarray(labels, np.float64).ravel()
    for modality, table in found.items():
        if len(table) != len(values):
            raise CorpusError(f"{path}: {modality}: expected {len(values)} rows, got {len(table)}")
    ledger.add("note", "rows without id and split: all are taken as train", count=len(values))
    for row, value in enumerate(values):
        features = {
            modality: Features(partial(table.__getitem__, row)) for modality, table in found.items()
        }
        yield Clip(
            id=f"row{row:06d}",
            corpus=corpus,
            split="train",
            valence=float(value),
            audio=features.get("audio"),
            text=features.get("text"),
            video=features.get("video"),
        )
