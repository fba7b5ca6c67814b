"""Results: what every step of a run leaves in its folder, per seed, and which of it counts.

A result counts while the recipe, the data and the weights that it is about are the same.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainer.evaluation.calibrate import PatternMargin
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.prediction import Predictions
from trainer.fit import CHECKPOINT, Fitted, finished, identity, load_fitted
from trainer.model import SentimentModel, weights_digest
from trainer.recipe import Recipe

VERSION = 2
"""Changes with what the steps compute: older results are computed again."""
Step = Literal["calibration", "evaluation"]
STEPS: dict[Step, str] = {"calibration": "calibrate", "evaluation": "evaluate"}


class PipelineError(Exception):
    """A step that cannot be done yet; says which one comes first."""


@dataclass(frozen=True)
class Results:
    """The results of one recipe in a run's folder.

    Args:
        run: folder.
        recipe: resolved.
        data: digest of the splits; None where they are not known (yet), and any will do.
    """

    run: Path
    recipe: Recipe
    data: str | None = None

    def seed_folder(self, seed: int) -> Path:
        """Where a seed's results lie."""
        return self.run / f"seed-{seed}"

    def path(self, seed: int, step: Step) -> Path:
        """A seed's result of a step."""
        return self.seed_folder(seed) / f"{step}.json"

    def require(self, step: str) -> None:
        """Refuse a step whose precondition is missing, before any work.

        Raises:
            PipelineError: names the step to run first.
            CheckpointError: a seed's training cannot be read, or is another recipe's.
        """
        for seed in range(self.recipe.training.seeds):
            if step in ("calibrate", "evaluate", "export", "report"):
                self.fitted(seed)
            if step in ("evaluate", "export", "report"):
                self.read(seed, "calibration")
            if step in ("export", "report"):
                self.read(seed, "evaluation")

    def fitted(self, seed: int) -> Fitted:
        """A seed that is trained to its end.

        Raises:
            PipelineError: it is not.
        """
        path = self.seed_folder(seed) / CHECKPOINT
        if not path.is_file():
            raise PipelineError(f"{path}: seed {seed} is not trained yet: run `fit` first")
        fitted = load_fitted(path, self.recipe, seed, self.data)
        if not finished(fitted.history, self.recipe):
            raise PipelineError(f"{path}: seed {seed} is not trained to its end: run `fit` first")
        return fitted

    def best_seed(self) -> int:
        """The seed with the best validation score."""
        seeds = range(self.recipe.training.seeds)
        scores = [self.fitted(seed).history.best_score for seed in seeds]
        return int(np.argmin(scores))

    def margins(self, seed: int) -> list[PatternMargin]:
        """Calibration margins of a seed.

        Raises:
            PipelineError: as ``read``.
        """
        try:
            return [PatternMargin(**row) for row in self.read(seed, "calibration")["margins"]]
        except (KeyError, TypeError):
            raise self._damaged(seed, "calibration") from None

    def evaluation(self, seed: int) -> Evaluation:
        """Test figures of a seed.

        Raises:
            PipelineError: as ``read``.
        """
        try:
            return Evaluation.from_json(self.read(seed, "evaluation")["evaluation"])
        except (KeyError, TypeError):
            raise self._damaged(seed, "evaluation") from None

    def predictions(self, seed: int) -> Predictions:
        """Test predictions of a seed.

        Raises:
            PipelineError: they are not there, or damaged.
        """
        path = self.seed_folder(seed) / "predictions.npz"
        try:
            with path.open("rb") as file, np.load(file) as columns:
                return Predictions(
                    tuple(columns["ids"].tolist()),
                    tuple(columns["corpora"].tolist()),
                    columns["labels"],
                    columns["valence"],
                    columns["low"],
                    columns["high"],
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            other = self.path(seed, "evaluation").name
            raise PipelineError(
                f"{path}: not there, cut off or damaged: remove it and {other}, and run "
                "`evaluate` again"
            ) from None

    def keep_predictions(self, seed: int, found: Predictions) -> None:
        """Write the test predictions of a seed."""
        np.savez(
            self.seed_folder(seed) / "predictions.npz",
            ids=np.array(found.ids),
            corpora=np.array(found.corpora),
            labels=found.labels,
            valence=found.valence,
            low=found.low,
            high=found.high,
        )

    def corpus(self) -> dict[str, Any]:
        """What the report says of the clips; written by ``evaluate``."""
        path = self.run / "corpus.json"
        found = _load(path) if path.is_file() else None
        if found is None:
            raise PipelineError(f"{path}: not there, or damaged: run `evaluate` first")
        return found

    def keep_corpus(self, described: dict[str, Any]) -> None:
        """Write what the report says of the clips."""
        (self.run / "corpus.json").write_text(json.dumps(described, indent=2) + "\n")

    def read(self, seed: int, step: Step) -> dict[str, Any]:
        """A step's result.

        Raises:
            PipelineError: the step was not done, or its file is damaged.
        """
        path = self.path(seed, step)
        if not path.is_file():
            raise PipelineError(f"{path}: not there yet: run `{STEPS[step]}` first")
        found = _load(path)
        if found is None:
            raise self._damaged(seed, step)
        return found

    def _damaged(self, seed: int, step: Step) -> PipelineError:
        path = self.path(seed, step)
        return PipelineError(f"{path}: cut off or damaged: remove it and run `{STEPS[step]}` again")

    def keep(self, seed: int, step: Step, model: SentimentModel, result: dict[str, Any]) -> None:
        """Write a step's result, atomically."""
        path = self.path(seed, step)
        partial = path.with_suffix(".part")
        tree = {"key": self._key(seed, step, model), **result}
        partial.write_text(json.dumps(tree, indent=2) + "\n")
        partial.replace(path)

    def is_fresh(self, seed: int, step: Step, model: SentimentModel) -> bool:
        """Whether a result is there and is about this recipe, these data and these weights."""
        path = self.path(seed, step)
        found = _load(path) if path.is_file() else None
        return found is not None and found.get("key") == self._key(seed, step, model)

    def _key(self, seed: int, step: Step, model: SentimentModel) -> dict[str, Any]:
        parts: list[Any] = [VERSION, identity(self.recipe)]
        if step == "evaluation":
            margins = [asdict(margin) for margin in self.margins(seed)]
            parts += [self.recipe.training.robustness, margins]
        recipe = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return {"recipe": recipe, "data": self.data, "weights": weights_digest(model)}


def _load(path: Path) -> dict[str, Any] | None:
    """A file's tree; None where it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None
