"""What is found out before any work, and before torch is loaded: recipe, places, steps, corpora.

A user's mistake is reported within a second or two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.pretrained import PretrainedError, refuse_unreachable
from trainer.corpus import Corpus, CorpusError, hold_back, join_features, merge
from trainer.corpus import open as open_corpus
from trainer.corpus.checks import REPEATED
from trainer.corpus.readiness import given_width, require_splits
from trainer.device import DeviceError, refuse_absent_card
from trainer.progress import Progress
from trainer.recipe import Recipe, RecipeError, choose, load, with_seeds
from trainer.steps import missing
from trainer.tracking import TrackingError, refuse_absent

CONFIG = "config.json"
"""Of a bundle."""


class OpeningError(Exception):
    """A run that cannot begin: one line."""


FAULTS = (CorpusError, RecipeError, OpeningError, PretrainedError, TrackingError, DeviceError)


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes."""

    out: Path
    """The bundle."""
    run: Path
    """Checkpoints, logs, figures, stages."""
    features: Path
    """Feature stores, which several runs may share."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A run that may begin."""

    corpus: Corpus
    recipe: Recipe
    staged: tuple[str, ...]
    """``STAGE:KEY=VALUE`` for the recipes of stages."""


def opening(
    step: str,
    corpora: Sequence[Path],
    places: Places,
    recipe: str | None,
    seeds: int | None,
    overrides: Sequence[str],
    joined: Sequence[Path],
    progress: Progress,
) -> Opened:
    """Everything that needs no torch.

    Args:
        step: ``run``, or one of its steps.
        corpora: to train on together.
        places: of the run.
        recipe: name or file; None: the run's own, where it has one, else what fits the corpora.
        seeds: number of seeds; None: the recipe's.
        overrides: ``KEY=VALUE`` over the recipe, or ``STAGE:KEY=VALUE``.
        joined: corpora whose features are added to clips of the same ids.
        progress: gets what was found.

    Raises:
        CorpusError, RecipeError, OpeningError: one line, expected and actual.
    """
    own = tuple(o for o in overrides if ":" not in o.partition("=")[0])
    staged = tuple(o for o in overrides if o not in own)
    kept = places.run / "recipe.json"
    if recipe is None and kept.is_file():
        recipe = str(kept)
    named = None if recipe is None else with_seeds(load(recipe, own), seeds)
    if named is not None:
        _require_steps(step, places.run, named)
    _refuse_unwritable(places)
    corpus = _open(corpora, joined, progress)
    if named is None:
        named = with_seeds(choose(corpus, own), seeds)
        progress.say(f"recipe: {named.name}, as the corpus brings {_brought(corpus)}")
        _require_steps(step, places.run, named)
    elif not named.stages:
        _refuse_misfit(named, corpus)
    require_splits(corpus)
    _refuse_widths(named, corpus)
    refuse_absent(named.training.tracking)
    refuse_absent_card(named.training.device)
    for source in _pretrained(named, corpus):
        refuse_unreachable(source)
    return Opened(corpus, named, staged)


def _require_steps(step: str, run: Path, recipe: Recipe) -> None:
    lacking = missing(step, run, recipe.training.seeds)
    if lacking is not None:
        raise OpeningError(lacking)


def _refuse_unwritable(places: Places) -> None:
    """Find out before any work that the results could not be written after it."""
    out = places.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file()):
        raise OpeningError(f"{out}: expected no directory or a bundle's, it holds other files")
    for folder in (out.parent, places.run, places.features):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OpeningError(f"{folder}: cannot be written: {error.strerror}") from None


def _open(paths: Sequence[Path], joined: Sequence[Path], progress: Progress) -> Corpus:
    opened = []
    beside = [open_corpus(path) for path in joined]
    for path in paths:
        corpus = hold_back(open_corpus(path))
        for other in beside:
            corpus = join_features(corpus, other)
        corpus.require_sound()
        for problem in corpus.problems:
            progress.say(f"{corpus.name}: {problem.count:,} x {problem.kind} ({problem.severity})")
        opened.append(corpus)
    merged = merge(opened)
    for problem in merged.problems:
        if problem.kind == REPEATED:
            progress.say(f"{merged.name}: {problem.count:,} x {problem.kind}")
    return merged


def _refuse_misfit(recipe: Recipe, corpus: Corpus) -> None:
    """A recipe that would encode what the corpus brings as features only, or the reverse.

    Raises:
        RecipeError: names the recipe that fits.
    """
    for modality in corpus.modalities:
        kind = getattr(recipe.encoders, modality).kind
        has_features = any(clip.features(modality) is not None for clip in corpus.clips)
        has_raw = any(
            clip.transcript is not None
            if modality == "text"
            else modality in clip.modalities and not clip.is_features(modality)
            for clip in corpus.clips
        )
        brought = "features" if has_features else "recordings or transcripts"
        if (kind == "features" and not has_features) or (
            kind not in ("features", "none") and not has_raw
        ):
            fits = choose(corpus).name
            hint = "--recipe features" if fits == "features" else "no --recipe"
            raise RecipeError(
                f"recipe {recipe.name!r}: encoders.{modality}.kind is {kind!r}, but "
                f"{corpus.name} brings {brought} of {modality}: {hint} fits this corpus, or "
                f"set encoders.{modality}.kind"
            )


def _refuse_widths(recipe: Recipe, corpus: Corpus) -> None:
    """One network takes the features of every split and corpus.

    Raises:
        CorpusError: names the widths.
    """
    if recipe.stages:
        return
    for name in (*corpus.modalities, "text_simulation"):
        if getattr(recipe.encoders, name).kind == "features":
            given_width(corpus, "simulated_text" if name == "text_simulation" else name)


def _pretrained(recipe: Recipe, corpus: Corpus) -> list[str]:
    """Names of the pretrained models that the recipe runs on this corpus."""
    encoders, brought = recipe.encoders, corpus.modalities
    choices = [(m, getattr(encoders, m)) for m in brought]
    found = [c.source for _, c in choices if c.kind == "transformers"]
    simulation = encoders.text_simulation
    if simulation.kind == "llm" and "audio" in brought:
        found += [simulation.source, simulation.speech]
    return [source for source in found if source is not None]


def _brought(corpus: Corpus) -> str:
    parts = []
    for modality in corpus.modalities:
        own = any(clip.features(modality) is not None for clip in corpus.clips)
        parts.append(f"{modality} {'features' if own else 'to be encoded'}")
    return ", ".join(parts)
