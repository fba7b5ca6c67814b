"""Transcribed speech for an adapter: frozen encoder's states, computed once, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.text_simulation.llm import LlmModels
from trainer.corpus import Clip, Corpus, CorpusError, Media
from trainer.corpus.clip import Split
from trainer.features.keys import ContentKeys
from trainer.features.media import MediaReader
from trainer.features.store import FeatureError, FrameStore
from trainer.progress import Progress


@dataclass(frozen=True, eq=False)
class Utterance:
    """One transcribed clip: states [T, D] of the frozen speech encoder, and its tokens."""

    text: str
    tokens: tuple[int, ...]
    frames: Callable[[], NDArray[np.float32]]
    seconds: float


def transcribed(
    corpus: Corpus,
    models: LlmModels,
    progress: Progress,
    store: FrameStore,
    longest_s: float,
    split: Split,
    most: int | None = None,
) -> list[Utterance]:
    """Clips of a split that have sound and a transcript, their speech encoded once.

    Args:
        corpus: where they are.
        models: speech encoder and tokenizer.
        progress: gets what is encoded, and what cannot be.
        store: keeps the encoder's states.
        longest_s: longer clips are left out.
        split: which part of the corpus.
        most: so many of them, the first ones; None: all.

    Raises:
        CorpusError: there is none.
        FeatureError: none can be read.
    """
    clips = [
        clip
        for clip in corpus.split(split)
        if isinstance(clip.audio, Media)
        and clip.transcript
        and (clip.duration_s or 0.0) <= longest_s
    ][:most]
    if not clips:
        raise CorpusError(
            f"{corpus.path}: {split}: expected clips with sound and a transcript, of at most "
            f"{longest_s:g} s, got none"
        )
    reader, keys, found, lost = MediaReader(), ContentKeys(), [], 0
    with progress.task(f"speech of {split}", len(clips)) as advance:
        for clip in clips:
            one = _utterance(clip, store, keys, reader, models)
            advance()
            if one is None:
                lost += 1
            else:
                found.append(one)
    if lost:
        progress.say(f"{lost} of {len(clips)} clips of {split} cannot be read, or are too short")
    if not found:
        raise FeatureError(f"{corpus.path}: {split}: no clip can be read")
    return found


def _utterance(
    clip: Clip, store: FrameStore, keys: ContentKeys, reader: MediaReader, models: LlmModels
) -> Utterance | None:
    assert isinstance(clip.audio, Media)  # as the caller chose
    assert clip.transcript is not None
    try:
        key = keys.media(clip.audio)
        samples = None if key in store else reader.samples(clip.audio)
    except CorpusError:
        return None
    if samples is not None:
        if len(samples) < 10 * models.speech.spec.stride:
            return None
        with torch.inference_mode():
            frames = models.speech(torch.from_numpy(samples)[None])[0]
        store.add(key, frames.float().cpu().numpy(), len(samples) / 16_000)
    tokens = models.tokenizer(" " + clip.transcript.strip(), add_special_tokens=False).input_ids
    end = models.tokenizer.eos_token_id
    return Utterance(
        clip.transcript,
        (*tokens, end),
        lambda: np.asarray(store.read(key), np.float32),
        store.entry(key).seconds,
    )
