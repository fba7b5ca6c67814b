"""Selection: which clips of a corpus a recipe uses, and with which weight. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from trainer.corpus import SPLITS, Clip, Corpus
from trainer.data.clips import PAIRS
from trainer.recipe import AssemblyError, Recipe


def usable(corpus: Corpus, recipe: Recipe, only: Sequence[str] = ()) -> Corpus:
    """The corpus reduced to what a recipe can use.

    Args:
        corpus: one, or several merged.
        recipe: whose encoders say which modalities count.
        only: names of corpora to keep; all if empty.

    Raises:
        AssemblyError: no such corpus, or nothing is left.
    """
    names = tuple(dict.fromkeys(clip.corpus for clip in corpus.clips))
    missing = [name for name in only if name not in names]
    if missing:
        raise AssemblyError(
            f"recipe {recipe.name!r}: expected the corpora {', '.join(only)}, got "
            f"{', '.join(names)}: give --corpus for {', '.join(missing)}"
        )
    unknown = sorted(set(recipe.weights) - set(names))
    if unknown and not recipe.stages:
        raise AssemblyError(
            f"recipe {recipe.name!r}: weights: no corpus {', '.join(unknown)}, only "
            f"{', '.join(names)}"
        )
    strange = sorted(set(recipe.balance) - {*names, PAIRS})
    if strange and not recipe.stages:
        raise AssemblyError(
            f"recipe {recipe.name!r}: balance: no corpus {', '.join(strange)}, only "
            f"{', '.join((*names, PAIRS))}"
        )
    used = set(recipe.encoders.used)
    if recipe.encoders.text_simulation.kind != "none":
        used.add("audio")
    clips = tuple(
        replace(clip, weight=clip.weight * recipe.weights.get(clip.corpus, 1.0))
        for clip in _fewer(map(partial(_withheld, recipe), corpus.clips), recipe)
        if (not only or clip.corpus in only) and used & set(clip.modalities)
    )
    if not clips:
        raise AssemblyError(
            f"{corpus.name}: no clip has any of {', '.join(sorted(used)) or 'nothing'}, which "
            f"recipe {recipe.name!r} uses"
        )
    return replace(corpus, clips=clips)


def _withheld(recipe: Recipe, clip: Clip) -> Clip:
    """The clip without its words, for those whose words the recipe does not use."""
    share = recipe.transcripts.get(clip.corpus, 1.0)
    if clip.transcript is None or _chance(clip, "words") < share:
        return clip
    return replace(clip, transcript=None)


def _fewer(clips: Iterable[Clip], recipe: Recipe) -> list[Clip]:
    """All clips but those that are more than the recipe wants of their corpus and split."""
    everything = list(clips)
    over: set[tuple[str, str]] = set()
    for corpus, most in recipe.clips.items():
        for split, count in zip(SPLITS, most, strict=True):
            own = [clip for clip in everything if (clip.corpus, clip.split) == (corpus, split)]
            own.sort(key=lambda clip: _chance(clip, "clips"))
            over.update((clip.corpus, clip.id) for clip in own[count:])
    return [clip for clip in everything if (clip.corpus, clip.id) not in over]


def _chance(clip: Clip, what: str) -> float:
    """A number in [0, 1) that is the clip's own, whatever other corpora it is trained with."""
    own = clip.id.removeprefix(f"{clip.corpus}/")
    return zlib.crc32(f"{what}/{own}".encode()) / 2**32
