"""Carries out one step, or all, of a run: what the command line calls; errors become one line."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.bundle import CONFIG, BundleError
from models.pretrained import PretrainedError
from trainer.checkpoint import CheckpointError
from trainer.corpus import Corpus, CorpusError, hold_back, join_features, merge
from trainer.corpus import open as open_corpus
from trainer.distributed import Team, join
from trainer.encoders import AssemblyError
from trainer.features.store import FeatureError
from trainer.fit import FitError, StoppedError, choose_device, set_threads
from trainer.progress import TerminalProgress
from trainer.recipe import Recipe, RecipeError, with_seeds
from trainer.recipe import choose as choose_recipe
from trainer.recipe import load as load_recipe
from trainer.results import PipelineError, Results
from trainer.run import Pipeline, Places
from trainer.stop import Stop

USERS_FAULTS = (
    AssemblyError,
    BundleError,
    CheckpointError,
    CorpusError,
    FeatureError,
    FitError,
    PipelineError,
    PretrainedError,
    RecipeError,
)
STOPPED = 143
"""Exit status after SIGTERM: 128 + 15, as a shell gives it."""


def carry_out(
    step: str,
    corpora: Sequence[Path],
    out: Path,
    run: Path,
    features: Path,
    recipe: str | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    joined: Sequence[Path] = (),
) -> int:
    """Do ``run`` or one of its steps.

    Args:
        step: ``run``, or one of them.
        corpora: to train on together.
        out: the bundle.
        run: checkpoints, figures.
        features: stores.
        recipe: None: the run's own, where it has one, else what fits the corpora.
        seeds: number of seeds; None: the recipe's.
        overrides: ``KEY=VALUE`` over the recipe.
        joined: corpora whose features are added to clips of the same ids.

    Returns:
        The exit status: 0, 2 for a user's mistake, 130 if interrupted, 143 if terminated.
    """
    stop = Stop()
    try:
        with stop:
            _carry_out(
                step, corpora, Places(out, run, features), recipe, seeds, overrides, joined, stop
            )
    except USERS_FAULTS as error:
        return told(error)
    except OSError as error:
        return told(f"{error.filename or run}: {error.strerror or error}")
    except StoppedError as error:
        return told(error, STOPPED)
    except KeyboardInterrupt:
        if stop.asked():
            return told("terminated; the same command goes on where it stopped", STOPPED)
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def told(error: object, code: int = 2) -> int:
    """Print an error's one line; the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return code


def _carry_out(
    step: str,
    corpora: Sequence[Path],
    places: Places,
    recipe: str | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    joined: Sequence[Path],
    stop: Stop,
) -> None:
    own = tuple(o for o in overrides if ":" not in o.partition("=")[0])
    staged = tuple(o for o in overrides if o not in own)
    resolved = _named_recipe(recipe, places.run, own)
    if resolved is not None:
        resolved = with_seeds(resolved, seeds)
        choose_device(resolved.training.device)
        Results(places.run, resolved).require(step)  # before the corpora are opened
    _refuse_unwritable(places)
    progress = TerminalProgress(quiet=os.environ.get("RANK", "0") != "0")
    corpus = _open(corpora, joined, progress)
    if resolved is None:
        resolved = with_seeds(choose_recipe(corpus, own), seeds)
        progress.say(f"recipe: {resolved.name}, as the corpus brings {_brought(corpus)}")
        Results(places.run, resolved).require(step)
    team = join(choose_device(resolved.training.device))
    set_threads(resolved.training.threads)
    if team.size > 1 and step not in ("fit", "features"):
        raise PipelineError("several processes train together: use torchrun with `fit` only")
    with _locked(places.run, team):
        pipeline = Pipeline(
            corpus,
            resolved,
            places,
            progress,
            overrides=staged,
            team=team,
            stop=stop,
        )
        if step == "features":
            stored = len(pipeline.data.extraction.clips)
            progress.say(f"{places.features}: frames of {stored} clips")
        else:
            getattr(pipeline, step)()


def _named_recipe(recipe: str | None, run: Path, overrides: tuple[str, ...]) -> Recipe | None:
    """The recipe that is named, or the run's own; None where there is neither."""
    kept = run / "recipe.json"
    if recipe is None and kept.is_file():
        return load_recipe(kept, overrides)
    return None if recipe is None else load_recipe(recipe, overrides)


def _refuse_unwritable(places: Places) -> None:
    """Find out before any work that the results could not be written after it."""
    out = places.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file()):
        raise BundleError(f"{out}: expected no directory or a bundle's, it holds other files")
    for folder in (out.parent, places.run, places.features):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise PipelineError(f"{folder}: cannot be written: {error.strerror}") from None


@contextmanager
def _locked(run: Path, team: Team) -> Iterator[None]:
    """One run at a time in a folder.

    Raises:
        PipelineError: another one is there.
    """
    if not team.leads:
        yield
        return
    with (run / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "unknown"
            raise PipelineError(
                f"{run}: another run (process {who}) is working there: wait, or give another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _open(paths: Sequence[Path], joined: Sequence[Path], progress: TerminalProgress) -> Corpus:
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
    merged.require_sound()
    return merged


def _brought(corpus: Corpus) -> str:
    told = []
    for modality in corpus.modalities:
        own = any(clip.features(modality) is not None for clip in corpus.clips)
        told.append(f"{modality} {'features' if own else 'to be encoded'}")
    return ", ".join(told)
