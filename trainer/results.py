"""Results: what every step of a run leaves in its folder, per seed, and which of it counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluation.calibrate import PatternMargin
from trainer.evaluation.prediction import Predictions
from trainer.fit import CHECKPOINT, Fitted, finished, load_fitted
from trainer.model import SentimentModel, weights_digest
from trainer.recipe import Recipe


class PipelineError(Exception):
    """A step that cannot be done yet; says which one comes first."""


@dataclass(frozen=True)
class Results:
    """The results of one recipe in a run's folder."""

    run: Path
    recipe: Recipe

    def seed_folder(self, seed: int) -> Path:
        """Where a seed's results lie."""
        return self.run / f"seed-{seed}"

    def calibration(self, seed: int) -> Path:
        """Margins of a seed."""
        return self.seed_folder(seed) / "calibration.json"

    def evaluation(self, seed: int) -> Path:
        """Figures of a seed."""
        return self.seed_folder(seed) / "evaluation.json"

    def fitted(self, seed: int) -> Fitted:
        """A seed that is trained to its end.

        Raises:
            PipelineError: it is not.
        """
        path = self.seed_folder(seed) / CHECKPOINT
        if not path.is_file():
            raise PipelineError(f"{path}: seed {seed} is not trained yet: run `fit` first")
        fitted = load_fitted(path, self.recipe, seed)
        if not finished(fitted.history, self.recipe):
            raise PipelineError(f"{path}: seed {seed} is not trained to its end: run `fit` first")
        return fitted

    def best_seed(self) -> int:
        """The seed with the best validation score."""
        scores = [
            self.fitted(seed).history.best_score for seed in range(self.recipe.training.seeds)
        ]
        return int(np.argmin(scores))

    def margins(self, seed: int) -> list[PatternMargin]:
        """Calibration margins of a seed."""
        tree = self.read(self.calibration(seed), "calibrate")
        return [PatternMargin(**row) for row in tree["margins"]]

    def predictions(self, seed: int) -> Predictions:
        """Test predictions of a seed."""
        with np.load(self.seed_folder(seed) / "predictions.npz") as columns:
            return Predictions(
                tuple(columns["ids"].tolist()),
                tuple(columns["corpora"].tolist()),
                columns["labels"],
                columns["valence"],
                columns["low"],
                columns["high"],
            )

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

    def read(self, path: Path, step: str) -> dict[str, Any]:
        """A step's result.

        Raises:
            PipelineError: the step was not done.
        """
        if not path.is_file():
            raise PipelineError(f"{path}: not there yet: run `{step}` first")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def keep(self, path: Path, model: SentimentModel, result: dict[str, Any]) -> None:
        """Write a result about a model's weights, atomically."""
        partial = path.with_suffix(".part")
        partial.write_text(
            json.dumps({"weights": weights_digest(model), **result}, indent=2) + "\n"
        )
        partial.replace(path)

    def is_fresh(self, path: Path, model: SentimentModel) -> bool:
        """Whether a result is there and is about these weights."""
        if not path.is_file():
            return False
        return bool(json.loads(path.read_text()).get("weights") == weights_digest(model))
