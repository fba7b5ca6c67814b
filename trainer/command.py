"""Carries out one step, or all, of a run: what the command line calls; errors become one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from models.bundle import BundleError
from models.pretrained import PretrainedError
from trainer.checkpoint import CheckpointError
from trainer.corpus import Corpus, CorpusError, hold_back, merge
from trainer.corpus import open as open_corpus
from trainer.distributed import join
from trainer.encoders import AssemblyError
from trainer.features.store import FeatureError
from trainer.fit import FitError, choose_device
from trainer.progress import TerminalProgress
from trainer.recipe import RecipeError
from trainer.recipe import load as load_recipe
from trainer.results import PipelineError
from trainer.run import Pipeline, Places, with_seeds

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


def carry_out(
    step: str,
    corpora: Sequence[Path],
    out: Path,
    run: Path,
    features: Path,
    recipe: str,
    seeds: int | None,
    overrides: tuple[str, ...],
) -> int:
    """Do ``run`` or one of its steps.

    Returns:
        The exit status: 0, 2 for a user's mistake, 130 if interrupted.
    """
    own = tuple(o for o in overrides if ":" not in o.partition("=")[0])
    staged = tuple(o for o in overrides if o not in own)
    try:
        resolved = with_seeds(load_recipe(recipe, own), seeds)
        team = join(choose_device(resolved.training.device))
        progress = TerminalProgress(quiet=not team.leads)
        pipeline = Pipeline(
            _open(corpora, progress),
            resolved,
            Places(out, run, features),
            progress,
            overrides=staged,
            team=team,
        )
        if team.size > 1 and step != "fit":
            raise PipelineError("several processes train together: use torchrun with `fit` only")
        if step == "features":
            stored = len(pipeline.data.extraction.clips)
            progress.say(f"{features}: frames of {stored} clips")
        elif step == "fit":
            pipeline.fit()
        elif step == "calibrate":
            pipeline.calibrate()
        elif step == "evaluate":
            pipeline.evaluate()
        elif step == "export":
            pipeline.export()
        elif step == "report":
            pipeline.report()
        else:
            pipeline.run()
    except USERS_FAULTS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or run}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _open(paths: Sequence[Path], progress: TerminalProgress) -> Corpus:
    opened = []
    for path in paths:
        corpus = hold_back(open_corpus(path))
        corpus.require_sound()
        for problem in corpus.problems:
            progress.say(f"{corpus.name}: {problem.count:,} x {problem.kind} ({problem.severity})")
        opened.append(corpus)
    return merge(opened)
