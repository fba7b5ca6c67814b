"""``python -m trainer search``: a recipe's settings searched on the validation split, by Optuna.

A trial is one seed of the recipe with other values; one that is behind the others after an epoch
is given up. The test split is not looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint import Epoch
from trainer.command import USERS_FAULTS, told
from trainer.fit import set_threads, validation_score
from trainer.opening import Opened, Places, opening
from trainer.progress import TerminalProgress
from trainer.recipe import Recipe, RecipeError, with_overrides
from trainer.run import Pipeline

DATABASE = "search.db"
BEST = "best.txt"


@dataclass(frozen=True)
class Range:
    """What one setting may be: numbers between two, or one of some values."""

    key: str
    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    def draw(self, trial: Any) -> str:
        """``KEY=VALUE`` for a trial."""
        value: Any
        if self.choices:
            value = trial.suggest_categorical(self.key, self.choices)
        elif self.whole:
            value = trial.suggest_int(self.key, int(self.low), int(self.high), log=self.logarithmic)
        else:
            value = trial.suggest_float(self.key, self.low, self.high, log=self.logarithmic)
        return f"{self.key}={value}"


def parse_range(text: str) -> Range:
    """``KEY=LOW:HIGH``, ``KEY=LOW:HIGH:log`` or ``KEY=A|B|C``.

    Raises:
        RecipeError: of another form.
    """
    key, separator, values = text.partition("=")
    parts = values.split(":")
    try:
        if not separator or not key:
            raise ValueError
        if "|" in values:
            return Range(key, choices=tuple(values.split("|")))
        low, high = (float(part) for part in parts[:2])
        if not low < high or parts[2:] not in ([], ["log"]) or (parts[2:] and low <= 0):
            raise ValueError
    except ValueError:
        raise RecipeError(
            f"--range: expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A|B, got {text!r}"
        ) from None
    whole = all("." not in part and "e" not in part.lower() for part in parts[:2])
    return Range(key, low, high, bool(parts[2:]), whole)


def search(
    corpora: Sequence[Path],
    out: Path,
    features: Path,
    recipe: str | None,
    overrides: tuple[str, ...],
    ranges: Sequence[Range],
    trials: int,
) -> int:
    """Run trials until there are ``trials`` of them; the exit status."""
    import optuna

    progress = TerminalProgress()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        places = Places(out / "bundle", out / "run", features)
        opened = opening("fit", corpora, places, recipe, 1, overrides, (), progress)
        set_threads(opened.recipe.training.threads)
        study = optuna.create_study(
            storage=f"sqlite:///{out / DATABASE}",
            study_name=opened.recipe.name,
            load_if_exists=True,
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        )
        done = [trial for trial in study.trials if trial.state.is_finished()]
        study.optimize(
            lambda trial: _trial(trial, opened, places, ranges, progress),
            n_trials=max(0, trials - len(done)),
        )
        best = study.best_trial
        lines = [f"{key}={value}" for key, value in best.params.items()]
        (out / BEST).write_text("\n".join(lines) + "\n")
        settings = " ".join(f"--set {line}" for line in lines)
        progress.say(f"best of {len(study.trials)}: validation error {best.value:.4f}: {settings}")
    except USERS_FAULTS as error:
        return told(error)
    except OSError as error:
        return told(f"{error.filename or out}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


def _trial(
    trial: Any,
    opened: Opened,
    places: Places,
    ranges: Sequence[Range],
    progress: TerminalProgress,
) -> float:
    import optuna

    drawn = tuple(one.draw(trial) for one in ranges)
    recipe: Recipe = with_overrides(opened.recipe, drawn)
    folder = places.run.parent / "trials" / f"{trial.number:04d}"

    def on_epoch(epoch: Epoch) -> None:
        trial.report(validation_score(epoch), epoch.epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    quiet = TerminalProgress(quiet=True)
    pipeline = Pipeline(
        opened.corpus,
        recipe,
        Places(folder / "bundle", folder, places.features),
        quiet,
        overrides=opened.staged,
    )
    fitted = pipeline.fit_seed(0, on_epoch)
    score = fitted.history.best_score
    progress.say(f"trial {trial.number}: {score:.4f} ({', '.join(drawn)})")
    return float(score)
