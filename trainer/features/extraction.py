"""Extraction: every clip's frames into the stores, resumable; what cannot be read is counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.corpus import Clip, Corpus, CorpusError
from trainer.data.clips import StoredClip
from trainer.features.extractors import SOURCE, BatchExtractor, Extracted, Extractor
from trainer.features.keys import ContentKeys
from trainer.features.store import FeatureError, FrameStore


@dataclass(frozen=True)
class Extraction:
    """The stored clips of a corpus, and what was left out."""

    clips: tuple[StoredClip, ...]
    stores: Mapping[str, FrameStore]
    unreadable: tuple[str, ...]
    """``clip: reason`` of each modality of a clip that could not be read."""
    bare: int
    """Clips left out because nothing of them is used by the recipe or could be read."""
    repaired: int
    """Values that were not finite and are 0 now."""
    absent: Mapping[str, int] = field(default_factory=dict)
    """Clips per modality whose features are zeros throughout: taken as absent."""


@dataclass(eq=False)
class _Progress:
    """What is collected on the way."""

    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    repaired: int = 0


def open_stores(
    root: Path, extractors: Sequence[Extractor], writer: str = ""
) -> dict[str, FrameStore]:
    """The store of each extractor, by its name, in a folder named after its identity."""
    return {
        extractor.name: FrameStore(
            root / _folder(extractor),
            extractor.identity,
            extractor.shape,
            extractor.dtype,
            writer=writer,
        )
        for extractor in extractors
    }


def existing_store(root: Path, extractor: Extractor) -> FrameStore | None:
    """The extractor's store, where an earlier run has filled one."""
    if not (root / _folder(extractor)).is_dir():
        return None
    return open_stores(root, [extractor])[extractor.name]


def extract(
    corpus: Corpus,
    extractors: Sequence[Extractor],
    root: Path,
    on_clip: Callable[[], None] = lambda: None,
    writer: str = "",
) -> Extraction:
    """Extract what is not stored yet.

    Args:
        corpus: its clips; features and media are read here for the first time.
        extractors: one per modality.
        root: of all stores; several corpora and runs may share it.
        on_clip: called after each clip.
        writer: of the stores' files, where several processes extract together.

    Raises:
        FeatureError: no clip has what an extractor takes, or the disk is full.
    """
    for extractor in extractors:
        _refuse_mismatch(corpus, extractor)
    stores = open_stores(root, extractors, writer)
    content, found = ContentKeys(), _Progress()
    queues = {e.name: _Queue(e, stores[e.name], found) for e in extractors}
    for clip in corpus.clips:
        for extractor in extractors:
            if not extractor.takes(clip):
                continue
            store = stores[extractor.name]
            try:
                key = content.key(clip, extractor)
            except CorpusError as error:
                found.unreadable.append(f"{clip.id}: {error}")
                continue
            if key not in store:
                store.refresh()  # another run may have been there
            if key in store:
                found.keys.setdefault(clip.id, {})[extractor.name] = key
            else:
                queues[extractor.name].put(clip, key)
        on_clip()
    for queue in queues.values():
        queue.finish()
    stored = [
        stored_clip(clip, found.keys[clip.id], stores)
        for clip in corpus.clips
        if clip.id in found.keys
    ]
    kept = tuple(clip for clip in stored if clip.keys)
    bare = len(corpus.clips) - len(kept)
    absent = Counter(
        name
        for keys in found.keys.values()
        for name, key in keys.items()
        if stores[name].entry(key).count == 0
    )
    return Extraction(kept, stores, tuple(found.unreadable), bare, found.repaired, absent)


class _Queue:
    """Clips that wait for an extractor until there are as many as it takes at once."""

    def __init__(self, extractor: Extractor, store: FrameStore, found: _Progress) -> None:
        self._extractor, self._store, self._found = extractor, store, found
        self._waiting: list[tuple[Clip, str]] = []
        self._loaded: list[Any] = []
        """What a ``BatchExtractor`` has read of them: each file is decoded once for all."""

    def put(self, clip: Clip, key: str) -> None:
        """One more clip; extracts when there are enough."""
        extractor = self._extractor
        if not isinstance(extractor, BatchExtractor):
            self._waiting.append((clip, key))
            if len(self._waiting) >= extractor.at_once:
                self.finish()
            return
        try:
            self._loaded.append(extractor.load(clip))
        except CorpusError as error:
            self._found.unreadable.append(f"{clip.id}: {error}")
            return
        self._waiting.append((clip, key))
        if extractor.is_full(self._loaded):
            self.finish()

    def finish(self) -> None:
        """Extract those that wait."""
        if not self._waiting:
            return
        if isinstance(self._extractor, BatchExtractor):
            self._keep(self._waiting, self._extractor.encode(self._loaded))
        else:
            self._extract(self._waiting, self._extractor)
        self._waiting, self._loaded = [], []

    def _extract(self, chosen: Sequence[tuple[Clip, str]], extractor: Extractor) -> None:
        try:
            made = extractor.extract([clip for clip, _ in chosen])
        except CorpusError as error:
            if len(chosen) > 1:  # one of them spoils the batch: find it
                for one in chosen:
                    self._extract([one], extractor)
            else:
                self._found.unreadable.append(f"{chosen[0][0].id}: {error}")
            return
        self._keep(chosen, made)

    def _keep(self, chosen: Sequence[tuple[Clip, str]], made: Sequence[Extracted]) -> None:
        name, found = self._extractor.name, self._found
        for (clip, key), one in zip(chosen, made, strict=True):
            floats = self._extractor.dtype.startswith("float")
            if floats and not np.isfinite(one.frames).all():
                kind = f"{name}: the encoder gave values that are not finite"
                found.unreadable.append(f"{clip.id}: {kind}")
                continue
            self._store.add(key, one.frames, one.seconds)
            found.repaired += one.repaired
            found.keys.setdefault(clip.id, {})[name] = key


def stored_clip(
    clip: Clip, keys: Mapping[str, str], stores: Mapping[str, FrameStore]
) -> StoredClip:
    """What training needs of a clip; a modality without a single frame is left out."""
    entries = {name: stores[name].entry(key) for name, key in keys.items()}
    kept = {name: keys[name] for name, entry in entries.items() if entry.count > 0}
    if "audio" not in kept and clip.simulated_text is None:
        kept.pop("simulated_text", None)
    seconds = max((entry.seconds for entry in entries.values()), default=0.0)
    return StoredClip(
        id=clip.id,
        corpus=clip.corpus,
        split=clip.split,
        valence=clip.valence,
        group=clip.group,
        weight=clip.weight,
        duration_s=seconds or clip.duration_s or 0.0,
        keys=kept,
        emotions=clip.emotions,
    )


def _refuse_mismatch(corpus: Corpus, extractor: Extractor) -> None:
    if extractor.name == "simulated_text" and extractor.identity.startswith("spoken/"):
        return  # of clips with known words only, which a corpus need not have
    modality = SOURCE[extractor.name]
    having = [clip for clip in corpus.clips if modality in clip.modalities]
    if having and not any(extractor.takes(clip) for clip in having):
        example = having[0]
        source = getattr(example, modality)
        kind = "transcripts" if source is None else type(source).__name__.lower()
        raise FeatureError(
            f"{corpus.name}: {modality}: the recipe's encoder ({extractor.identity.split('/')[0]}) "
            f"takes none of its {len(having)} clips, which have {kind}: set "
            f"encoders.{modality}.kind"
        )


def _folder(extractor: Extractor) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", extractor.identity.lower()).strip("-")[:40]
    code = hashlib.sha256(extractor.identity.encode()).hexdigest()[:10]
    return f"{extractor.name}-{words}-{code}"
