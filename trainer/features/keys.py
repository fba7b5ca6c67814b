"""Content keys: under what a clip's frames lie in a store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.bundle import digest as file_digest
from trainer.corpus import Clip, CorpusError, Features, Media
from trainer.features.extractors import SOURCE, Extractor, FeatureExtractor


class ContentKeys:
    """Content hashes of clips' evidence: a renamed or moved corpus is not extracted again."""

    def __init__(self) -> None:
        self._files: dict[tuple[Path, str | None], str] = {}

    def key(self, clip: Clip, extractor: Extractor) -> str:
        """Key of a clip's frames in the extractor's store.

        Raises:
            CorpusError: the file cannot be read.
        """
        modality = SOURCE[extractor.name]
        source: Media | Features | None = getattr(clip, modality)
        if isinstance(extractor, FeatureExtractor):
            source = clip.features(extractor.name)
        if modality == "text" and source is None:
            return _digest(f"transcript/{clip.transcript}".encode())
        if isinstance(source, Media):
            return self.media(source)
        if isinstance(source, Features):
            if source.key is not None:
                return _digest(f"{extractor.name}/{source.key}".encode())
            values, _ = source.read()
            return _digest(str(values.shape).encode() + values.tobytes())
        raise CorpusError(f"{clip.id}: has no {modality}")

    def media(self, source: Media) -> str:
        """Key of a stretch of a recording; a file is hashed once.

        Raises:
            CorpusError: the file cannot be read.
        """
        place = (source.path, source.member)
        if place not in self._files:
            self._files[place] = _digest_media(source)
        stretch = f"{source.start_s:.4f}-{source.end_s}-{source.still}"
        return _digest(f"{self._files[place]}/{stretch}".encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _digest_media(media: Media) -> str:
    if media.member is not None:
        return _digest(media.read_bytes())
    try:
        return file_digest(media.path)[:32]
    except OSError as error:
        raise CorpusError(f"{media.path}: cannot be read: {error.strerror}") from None
