"""What every reader shares: counting what is wrong, and making a checked corpus of its clips."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.corpus.clip import (
    SPLITS,
    VALENCE_RANGE,
    Clip,
    Corpus,
    CorpusError,
    Problem,
    Severity,
    Split,
)

EXAMPLES = 3
LONG_SENTENCE_WORDS = 6
"""Shorter ones ("thank you") occur everywhere."""
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
}
GENERIC_STEMS = {"label", "labels", "manifest", "segments", "transcripts"}


class Ledger:
    """Counts problems by kind, and keeps a few examples of each (ids, never content)."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Severity, str]] = Counter()
        self._examples: dict[tuple[Severity, str], list[str]] = defaultdict(list)

    def add(self, severity: Severity, kind: str, example: str = "", count: int = 1) -> None:
        """Count one more of a kind."""
        key = (severity, kind)
        self._counts[key] += count
        if example and len(self._examples[key]) < EXAMPLES:
            self._examples[key].append(example)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything counted, the worst first."""
        order: list[Severity] = ["error", "lost", "note"]
        return tuple(
            Problem(severity, kind, count, tuple(self._examples[severity, kind]))
            for wanted in order
            for (severity, kind), count in self._counts.items()
            if severity == wanted
        )


def assemble(path: Path, form: str, clips: Iterable[Clip], ledger: Ledger) -> Corpus:
    """Check clips and make a corpus of the usable ones.

    Labels without any clip that has a modality are kept to be looked at, with an ``error``.

    Raises:
        CorpusError: no clip is usable.
    """
    kept: dict[str, Clip] = {}
    bare: dict[str, Clip] = {}
    low, high = VALENCE_RANGE
    for clip in clips:
        if not math.isfinite(clip.valence) or not low <= clip.valence <= high:
            ledger.add("lost", f"valence outside [{low:g}, {high:g}]", clip.id)
        elif clip.id in kept or clip.id in bare:
            ledger.add("lost", "duplicate ids (the first is kept)", clip.id)
        elif not clip.modalities:
            bare[clip.id] = clip
        else:
            kept[clip.id] = clip
    if bare and not kept:
        ledger.add("error", "labels only: no clip has sound, text or picture", count=len(bare))
        kept = bare
    elif bare:
        for name in bare:
            ledger.add("lost", "clips without any modality", name)
    if not kept:
        listed = "; ".join(f"{p.count} x {p.kind}" for p in ledger.problems) or "it is empty"
        raise CorpusError(f"{path}: no usable clip: {listed}")
    _check_groups(kept.values(), ledger)
    _check_sentences(kept.values(), ledger)
    present = {clip.split for clip in kept.values()}
    for split in SPLITS:
        if split not in present:
            ledger.add("note", f"no clip in split {split!r}")
    return Corpus(corpus_name(path), path, form, tuple(kept.values()), ledger.problems)


def merge(corpora: Sequence[Corpus]) -> Corpus:
    """Several corpora as one; ids and groups are told apart by the corpus's name.

    Raises:
        CorpusError: none given, or two of one name.
    """
    names = [corpus.name for corpus in corpora]
    if not names or len(set(names)) < len(names):
        raise CorpusError(f"expected corpora of different names, got {', '.join(names) or 'none'}")
    if len(corpora) == 1:
        return corpora[0]
    clips = tuple(
        replace(
            clip,
            id=f"{corpus.name}/{clip.id}",
            group=None if clip.group is None else f"{corpus.name}/{clip.group}",
        )
        for corpus in corpora
        for clip in corpus.clips
    )
    problems = tuple(
        replace(problem, kind=f"{corpus.name}: {problem.kind}")
        for corpus in corpora
        for problem in corpus.problems
    )
    return Corpus("+".join(names), corpora[0].path.parent, "several", clips, problems)


def corpus_name(path: Path) -> str:
    """Name of a corpus: that of its file or folder; ``manifest.csv`` has its folder's."""
    path = path.resolve()
    generic = path.is_file() and path.stem in GENERIC_STEMS
    return path.parent.name if generic else path.stem if path.is_file() else path.name


def split_by_name(name: str) -> Split | None:
    """Split of the names that corpora use; None for others."""
    return SPLIT_NAMES.get(name.strip().lower())


def split_by_hash(group: str) -> Split:
    """70/10/20 split of groups that come without one: the same group, the same split, always."""
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.7 else "valid" if share < 0.8 else "test"


def hold_back(corpus: Corpus, share: float = 0.1) -> Corpus:
    """A corpus without a validation split gets one out of its training clips.

    Whole groups go over, or single clips where no group is known, by a hash of their name: the
    same ones every time. Said in ``problems``.
    """
    if corpus.split("valid") or not corpus.split("train"):
        return corpus

    def moved(clip: Clip) -> bool:
        code = hashlib.sha256((clip.group or clip.id).encode()).digest()[:4]
        return clip.split == "train" and int.from_bytes(code, "big") / 2**32 < share

    clips = tuple(replace(clip, split="valid") if moved(clip) else clip for clip in corpus.clips)
    count = sum(clip.split == "valid" for clip in clips)
    kept = tuple(problem for problem in corpus.problems if "split 'valid'" not in problem.kind)
    told = Problem("note", "training clips held back for validation", count)
    return replace(corpus, clips=clips, problems=(*kept, told))


def _check_sentences(clips: Iterable[Clip], ledger: Ledger) -> None:
    """A long sentence heard in training and again in test makes text look better than it is."""
    said: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.transcript is not None and len(clip.transcript.split()) >= LONG_SENTENCE_WORDS:
            said[clip.transcript.casefold()].add(clip.split)
    repeated = sum("train" in splits and len(splits) > 1 for splits in said.values())
    if repeated:
        kind = "sentences of train (6 words or more) that occur in valid or test, too"
        ledger.add("note", kind, count=repeated)


def _check_groups(clips: Iterable[Clip], ledger: Ledger) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    unknown = 0
    for clip in clips:
        if clip.group is None:
            unknown += 1
        else:
            splits[clip.group].add(clip.split)
    for group, found in splits.items():
        if len(found) > 1:
            ledger.add("error", "speakers or videos in more than one split", group)
    if unknown:
        ledger.add("note", "clips without a group: leakage cannot be checked", count=unknown)
