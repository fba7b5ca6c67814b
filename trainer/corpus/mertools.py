"""MERTools: ``label.npz`` with ``<split>_corpus`` {clip: {emo, val}} with features.

``features/<feature-name>/`` holds per clip ``<clip>.npy`` [T, D] or [D], or a folder ``<clip>/``
of one .npy per frame, in the order of their names. The feature's name tells its modality
(``wavlm-large-FRA``, ``vicuna-7b-v1.5``, ``manet``). ``transcription.csv`` (name, english) may be
next to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import Clip, Corpus, CorpusError, Features, Split
from trainer.corpus.pickles import read_npz
from trainer.corpus.tables import header, table

KINDS = ("audio", "text", "video", "simulated_text")
NAMES = (
    ("simulated_text", ("simulated", "simulation", "slam", "speechllm", "speech-llm", "asr-llm")),
    ("audio", ("audio", "acoustic", "wavlm", "hubert", "wav2vec", "whisper", "vggish", "covarep",
               "opensmile", "egemaps", "is09", "panns", "data2vec-audio", "emotion2vec")),
    ("video", ("video", "visual", "vision", "manet", "ma-net", "clip", "resnet", "senet", "facet",
               "openface", "dinov2", "videomae", "eva", "fabnet", "denseface", "msceleb",
               "emonet", "vit")),
    ("text", ("text", "language", "vicuna", "llama", "bert", "baichuan", "chatglm", "glm", "bloom",
              "glove", "gpt", "opt", "moss", "qwen", "minilm", "xlnet", "sentence", "electra",
              "pert", "lert", "wordvec", "stablelm", "falcon")),
)  # fmt: skip
"""Parts of feature names by modality; the first that a name holds counts."""
TRANSCRIPTS = "transcription.csv"
Array = NDArray[np.generic]


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
    ledger = Ledger()
    folders = find_folders(path.parent, ledger)
    texts = _transcripts(path.parent / TRANSCRIPTS, ledger)
    if not folders and not texts:
        ledger.add("note", f"no features/NAME and no {TRANSCRIPTS} next to label.npz")
    name = corpus_name(path)
    clips = []
    for split, of_split in tables.items():
        for clip_id, label in of_split.items():
            value = label.get("val") if isinstance(label, Mapping) else None
            try:
                valence = float(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
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
                    valence=valence,
                    group=str(clip_id).rpartition("_")[0] or None,
                    audio=found.get("audio"),
                    text=found.get("text"),
                    video=found.get("video"),
                    simulated_text=found.get("simulated_text"),
                    transcript=texts.get(str(clip_id)),
                )
            )
    return assemble(path, "MERTools label.npz", clips, ledger)


def find_folders(root: Path, ledger: Ledger) -> dict[str, Path]:
    """Folder of features of each kind; those left aside are noted by name."""
    places = [root / "features", root] if (root / "features").is_dir() else [root]
    found: dict[str, Path] = {}
    for place in places:
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            if folder.name == "features":
                continue
            kind = kind_of(folder.name)
            if kind is None:
                if place != root:
                    ledger.add("note", f"features/{folder.name}: of no modality that is known")
            elif kind not in found:
                found[kind] = folder
            elif _is_frames(folder.name) and not _is_frames(found[kind].name):
                ledger.add("note", f"{found[kind].name} left aside: {folder.name} is used")
                found[kind] = folder
            else:
                ledger.add("note", f"{folder.name} left aside: {found[kind].name} is used")
    return found


def kind_of(name: str) -> str | None:
    """Modality of a feature by its name; None for an unknown one."""
    words = name.lower()
    if words in KINDS:
        return words
    for kind, parts in NAMES:
        if any(re.search(rf"(?<![a-z]){re.escape(part)}", words) for part in parts):
            return kind
    return None


def _is_frames(name: str) -> bool:
    """MERTools' names end in FRA for frames, in UTT for one vector per utterance."""
    return "utt" not in re.split(r"[^a-z]+", name.lower())


def _transcripts(path: Path, ledger: Ledger) -> dict[str, str]:
    if not path.is_file():
        return {}
    columns = header(path)
    column = next((c for c in ("english", "text", "sentence", "chinese") if c in columns), None)
    if column is None or "name" not in columns:
        raise CorpusError(
            f"{path}: expected the columns name and english, got {', '.join(columns[:8])}"
        )
    rows = table(path, ("name", column), ledger)
    return {row["name"].strip(): row[column].strip() for row in rows if row[column].strip()}


def feature_files(folder: Path, clip: str) -> Features | None:
    """Features of a clip: one file, or a folder of frames; None if there is neither."""
    single, frames = folder / f"{clip}.npy", folder / clip
    if single.is_file():
        known = single.stat()
        return Features(
            partial(_load, single), f"{single.name}/{known.st_size}/{known.st_mtime_ns}"
        )
    if frames.is_dir() and any(frames.glob("*.npy")):
        return Features(partial(_load_frames, frames))
    return None


def _load(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(f"{path}: not a numpy array: {error}") from None


def _load_frames(folder: Path) -> Array:
    frames = [_load(path).ravel() for path in sorted(folder.glob("*.npy"))]
    if len({len(frame) for frame in frames}) > 1:
        raise CorpusError(f"{folder}: expected frames of one size")
    return np.stack(frames)
