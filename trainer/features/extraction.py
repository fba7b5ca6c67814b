"""Extraction: every clip's frames into the stores, resumable; what cannot be read is counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trainer.corpus import Clip, Corpus, CorpusError
from trainer.data.clips import StoredClip
from trainer.features.extractors import SOURCE, Extractor
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


def open_stores(root: Path, extractors: Sequence[Extractor]) -> dict[str, FrameStore]:
    """The store of each extractor, by its name, in a folder named after its identity."""
    return {
        extractor.name: FrameStore(
            root / _folder(extractor), extractor.identity, extractor.shape, extractor.dtype
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
) -> Extraction:
    """Extract what is not stored yet.

    Args:
        corpus: its clips; features and media are read here for the first time.
        extractors: one per modality.
        root: of all stores; several corpora and runs may share it.
        on_clip: told after each clip.

    Raises:
        FeatureError: no clip has what an extractor takes, or the disk is full.
    """
    for extractor in extractors:
        _refuse_mismatch(corpus, extractor)
    stores = open_stores(root, extractors)
    content, found = ContentKeys(), _Progress()
    several = [e for e in extractors if e.at_once > 1]
    waiting: dict[str, list[tuple[Clip, str]]] = {e.name: [] for e in several}
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
            elif extractor.at_once > 1:
                waiting[extractor.name].append((clip, key))
            else:
                _extract_some([(clip, key)], extractor, store, found)
        for extractor in several:
            if len(waiting[extractor.name]) >= extractor.at_once:
                _extract_some(waiting[extractor.name], extractor, stores[extractor.name], found)
                waiting[extractor.name].clear()
        on_clip()
    for extractor in several:
        if waiting[extractor.name]:
            _extract_some(waiting[extractor.name], extractor, stores[extractor.name], found)
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


def _extract_some(
    chosen: Sequence[tuple[Clip, str]], extractor: Extractor, store: FrameStore, found: _Progress
) -> None:
    try:
        made_ones = extractor.extract([clip for clip, _ in chosen])
    except CorpusError as error:
        if len(chosen) > 1:  # one of them spoils the batch: find it
            for one in chosen:
                _extract_some([one], extractor, store, found)
        else:
            found.unreadable.append(f"{chosen[0][0].id}: {error}")
        return
    for (clip, key), made in zip(chosen, made_ones, strict=True):
        if extractor.dtype.startswith("float") and not np.isfinite(made.frames).all():
            kind = f"{extractor.name}: the encoder gave values that are not finite"
            found.unreadable.append(f"{clip.id}: {kind}")
            continue
        store.add(key, made.frames, made.seconds)
        found.repaired += made.repaired
        found.keys.setdefault(clip.id, {})[extractor.name] = key


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
