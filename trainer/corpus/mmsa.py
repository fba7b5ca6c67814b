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
from trainer.corpus.pickles import FileArray, fingerprint, read_pickle

POOLED = {
    "audio": ("acoustic", "audio"),
    "text": ("language", "text"),
    "video": ("visual", "vision", "video"),
}
COLUMNS = {"audio": "audio", "text": "text", "video": "vision"}
"""Column of each modality."""
Array = NDArray[np.generic]


def read(path: Path) -> Corpus:
    """Read a pickle; its large arrays stay in the file until the feature store takes them over.

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
    _check_widths(path, splits)
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
    names = [_name(value) for value in np.asarray(ids)]
    for key in ("regression_labels", "raw_text", "audio", "vision", "text", "text_bert"):
        if key in part and len(part[key]) != len(names):
            raise CorpusError(
                f"{path}: {split}: {key}: expected {len(names)} rows, got {len(part[key])}"
            )
    values = _labels(path, split, labels)
    source = _source(path, part)
    texts = [str(text).strip() for text in np.asarray(part.get("raw_text", [""] * len(names)))]
    for row, name in enumerate(names):
        features: dict[str, Features] = {}
        for modality, column in COLUMNS.items():
            if column in part:
                if _is_empty(part[column], row):
                    ledger.add("note", "empty feature rows", name)
                known = None if source is None else f"{source}/{split}/{column}/{row}"
                features[modality] = Features(partial(_frames, part, column, row), known)
        yield Clip(
            id=name,
            corpus=corpus,
            split=split,
            valence=values[row],
            group=name.partition("$_$")[0] if "$_$" in name else None,
            audio=features.get("audio"),
            text=features.get("text"),
            video=features.get("video"),
            transcript=texts[row] or None,
        )


def _labels(path: Path, split: Split, labels: Any) -> list[float]:
    try:
        return [float(value) for value in np.asarray(labels).ravel()]
    except (TypeError, ValueError):
        example = np.asarray(labels).ravel()[0]
        raise CorpusError(
            f"{path}: {split}: regression_labels: expected numbers, got {str(example)[:40]!r}"
        ) from None


def _check_widths(path: Path, splits: Mapping[Split, Mapping[str, Any]]) -> None:
    """One network takes all splits: their features are as wide."""
    for column in COLUMNS.values():
        tables = {split: part[column] for split, part in splits.items() if column in part}
        for split, table in tables.items():
            _check_numbers(path, split, column, table)
        shapes = {split: np.shape(table) for split, table in tables.items()}
        if len({len(shape) for shape in shapes.values()}) > 1:
            listed = ", ".join(f"{list(shape)} in {split}" for split, shape in shapes.items())
            raise CorpusError(f"{path}: {column}: expected [N, T, D] in every split, got {listed}")
        widths = {split: shape[-1] for split, shape in shapes.items() if len(shape) > 1}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{width} in {split}" for split, width in widths.items())
            raise CorpusError(f"{path}: {column}: expected features of one width, got {listed}")


def _check_numbers(path: Path, split: Split, column: str, table: Any) -> None:
    kind = table.dtype if isinstance(table, FileArray) else np.asarray(table).dtype
    if kind.kind not in "fiubO":
        raise CorpusError(f"{path}: {split}: {column}: expected numbers [N, T, D], got {kind}")


def _source(path: Path, part: Mapping[str, Any]) -> str | None:
    """Names the file's content, where its features stay in it."""
    tables = [part[column] for column in COLUMNS.values() if column in part]
    return fingerprint(path) if any(isinstance(table, FileArray) for table in tables) else None


def _is_empty(table: Any, row: int) -> bool:
    if isinstance(table, FileArray) or table.dtype != object:
        return 0 in table.shape[1:]
    return bool(np.asarray(table[row]).size == 0)


def _frames(part: Mapping[str, Any], column: str, row: int) -> Array:
    values = np.asarray(part[column][row])
    if column != "text":
        return _length_cut(part.get(f"{column}_lengths"), row)(values)
    tokens = part.get("text_bert")
    return _masked(None if tokens is None else np.asarray(tokens[row])[1] > 0, values)


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
