"""What every reader shares: counting what is wrong, and making a checked corpus of its clips."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
MOST_SHARED = 5
"""Utterances that may be in different splits of two corpora by an accident of their ids."""
MOST_OUTSIDE = 0.02
"""Share of labels outside the range from which on they are of another scale."""
FEWEST_FOR_A_SCALE = 20
LONG_SENTENCE_WORDS = 6
"""Shorter ones ("thank you") occur everywhere."""
HELD_BACK = "training clips held back for validation"
REPEATED = "utterances (same id and label) of several corpora: each counts once per corpus"
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
    found: list[float] = []
    twice = 0
    for clip in clips:
        found.append(clip.valence)
        if not math.isfinite(clip.valence):
            ledger.add("lost", "valence that is no number", clip.id)
        elif not low <= clip.valence <= high:
            ledger.add("lost", f"valence outside [{low:g}, {high:g}]", clip.id)
        elif clip.id in kept or clip.id in bare:
            twice += 1
            ledger.add("lost", "duplicate ids (the first is kept)", clip.id)
        elif not clip.modalities:
            bare[clip.id] = clip
        else:
            kept[clip.id] = clip
    _check_labels(np.array(found), ledger)
    if twice > len(kept) + len(bare):
        kind = "ids that occur before: most clips have the id of another one"
        ledger.add("error", kind, count=twice)
    if bare and not kept:
        ledger.add("error", "labels only: no clip has sound, text or picture", count=len(bare))
        kept = bare
    elif bare:
        for name in bare:
            ledger.add("lost", "clips without any modality", name)
    if not kept:
        listed = "; ".join(
            f"{p.count} x {p.kind}" + (f", such as {p.examples[0]}" if p.examples else "")
            for p in ledger.problems
        )
        listed = listed or "it is empty"
        raise CorpusError(f"{path}: no usable clip: {listed}")
    _check_groups(kept.values(), ledger)
    _check_sentences(kept.values(), ledger)
    present = {clip.split for clip in kept.values()}
    for split in SPLITS:
        if split not in present:
            ledger.add("note", f"no clip in split {split!r}")
    return Corpus(corpus_name(path), path, form, tuple(kept.values()), ledger.problems)


def merge(corpora: Sequence[Corpus]) -> Corpus:
    """Several corpora as one; ids and groups are distinguished by the corpus's name.

    Raises:
        CorpusError: none given, or two of one name.
    """
    names = [corpus.name for corpus in corpora]
    if not names or len(set(names)) < len(names):
        raise CorpusError(f"expected corpora of different names, got {', '.join(names) or 'none'}")
    if len(corpora) == 1:
        return corpora[0]
    repeated = _check_shared(corpora)
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
    if repeated:
        problems += (Problem("note", REPEATED, repeated),)
    return Corpus("+".join(names), corpora[0].path.parent, "several", clips, problems)


def _check_shared(corpora: Sequence[Corpus]) -> int:
    """The same utterance in training here and in test there makes the test worth nothing.

    Returns:
        How many are in the same split of several corpora.

    Raises:
        CorpusError: several ids with the same label are in different splits.
    """
    known: dict[tuple[str, float], tuple[Split, str]] = {}
    clashes, repeated = [], 0
    for corpus in corpora:
        for clip in corpus.clips:
            split, where = known.setdefault((clip.id, clip.valence), (clip.split, corpus.name))
            if split != clip.split:
                clashes.append(f"{clip.id}: {split} in {where}, {clip.split} in {corpus.name}")
            elif where != corpus.name:
                repeated += 1
    if len(clashes) > MOST_SHARED:
        without = [c.name for c in corpora if any(p.kind == HELD_BACK for p in c.problems)]
        cause = ""
        if without:
            cause = f"; no split 'valid' in {' and '.join(without)}, so some of its train became "
            cause += "that: give it the other's splits"
        raise CorpusError(
            f"{len(clashes):,} utterances (same id and label) are in different splits of several "
            f"corpora, such as {clashes[0]}{cause}"
        )
    return repeated


def join_features(corpus: Corpus, other: Corpus) -> Corpus:
    """A corpus whose clips have the features of the same utterances (ids) in another one, too.

    Labels and splits stay those of ``corpus``. A modality that a clip has media of keeps it;
    the recipe says which of the two is used.

    Raises:
        CorpusError: no id of the one is in the other.
    """
    there = {clip.id: clip for clip in other.clips}
    joined = 0
    clips = []
    for clip in corpus.clips:
        twin = there.get(clip.id)
        if twin is None:
            clips.append(clip)
            continue
        joined += 1
        own = {name: twin.features(name) for name in ("audio", "text", "video", "simulated_text")}
        brought = {name: source for name, source in own.items() if source is not None}
        free: dict[str, Any] = {n: s for n, s in brought.items() if getattr(clip, n) is None}
        beside = tuple((n, s) for n, s in brought.items() if n not in free)
        transcript = clip.transcript or twin.transcript
        clips.append(replace(clip, beside=beside, transcript=transcript, **free))
    if not joined:
        example, theirs = corpus.clips[0].id, other.clips[0].id
        raise CorpusError(
            f"{other.path}: expected ids of {corpus.name}, such as {example!r}; got ids such as "
            f"{theirs!r}"
        )
    note = Problem("note", f"clips joined with the features of {other.name}", joined)
    missing = len(corpus.clips) - joined
    lost = (Problem("note", f"clips that {other.name} does not know", missing),) if missing else ()
    return replace(corpus, clips=tuple(clips), problems=(*corpus.problems, note, *lost))


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
    note = Problem("note", HELD_BACK, count)
    return replace(corpus, clips=clips, problems=(*kept, note))


def _check_labels(labels: NDArray[np.float64], ledger: Ledger) -> None:
    """Labels of another scale are no labels of this one with a few slips among them."""
    low, high = VALENCE_RANGE
    finite = labels[np.isfinite(labels)]
    if not len(finite):
        return
    lowest, highest = float(finite.min()), float(finite.max())
    outside = int(((finite < low) | (finite > high)).sum())
    if outside > MOST_OUTSIDE * len(finite):
        ledger.add(
            "error",
            f"labels of another scale: expected [{low:g}, {high:g}], got "
            f"[{lowest:g}, {highest:g}]; labels outside",
            count=outside,
        )
    elif len(finite) >= FEWEST_FOR_A_SCALE and lowest >= 0 and set(np.unique(finite)) != {0.0}:
        kind = f"no negative label: all lie in [{lowest:g}, {highest:g}] (expected -3 to 3)"
        ledger.add("note", kind, count=len(finite))
    elif len(finite) >= FEWEST_FOR_A_SCALE and lowest >= -1 and highest <= 1:
        kind = f"labels lie in [{lowest:g}, {highest:g}]: expected -3 to 3, is it another scale?"
        ledger.add("note", kind, count=len(finite))


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
