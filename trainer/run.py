"""The whole run: stages, features, training, calibration, evaluation, export, report.

Every step leaves its result in the run's folder, so that an interrupted run goes on where it
stopped, and so that each step can be asked for by itself.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from models.bundle import CONFIG
from models.calibration import Calibration, PatternCalibration
from models.export import Label, write_bundle
from trainer.corpus import SPLITS, Corpus
from trainer.data.batches import Batches
from trainer.data.clips import PAIRS, StoredSamples, pair
from trainer.distributed import Team
from trainer.encoders import Assembly, usable
from trainer.evaluation import report as reports
from trainer.evaluation.calibrate import calibrate
from trainer.evaluation.card import card
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.prediction import Predictions, View, predict
from trainer.features.extraction import Extraction, extract
from trainer.fit import Fitted, choose_device, fit
from trainer.model import SentimentModel
from trainer.progress import Progress
from trainer.recipe import Recipe
from trainer.recipe import load as load_recipe
from trainer.results import Results

VERSION = "1"


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
class Data:
    """The stored splits of a run."""

    train: StoredSamples
    valid: StoredSamples
    test: StoredSamples
    extraction: Extraction

    @property
    def train_labels(self) -> dict[str, Any]:
        """Labels of the training split per corpus."""
        return {name: self.train.of_corpus(name).labels for name in self.train.corpora}


class Pipeline:
    """One recipe on one corpus (or several merged).

    Args:
        corpus: all of it; what the recipe cannot use is left out.
        recipe: resolved.
        places: of the run.
        progress: told of what is done.
        only: names of the corpora to use; all if empty.
        stages: bundles of stages that came before, by name.
        overrides: ``stage:key=value`` for the recipes of stages.
        team: processes that train together.
    """

    def __init__(
        self,
        corpus: Corpus,
        recipe: Recipe,
        places: Places,
        progress: Progress,
        only: tuple[str, ...] = (),
        stages: dict[str, Path] | None = None,
        overrides: tuple[str, ...] = (),
        team: Team | None = None,
    ) -> None:
        self.whole = corpus
        self.corpus = usable(corpus, recipe, only)
        self.recipe = recipe
        self.places = places
        self.progress = progress
        self.stages = dict(stages or {})
        self.overrides = overrides
        self.team = team or Team()
        self.results = Results(places.run, recipe)
        self._keep_recipe()

    def run(self) -> None:
        """Every step, in order."""
        self.fit()
        self.calibrate()
        self.evaluate()
        self.export()

    def train_stages(self) -> None:
        """Train the recipe's stages that are not trained yet, each to a bundle of its own."""
        for stage in self.recipe.stages:
            own = tuple(
                override.removeprefix(f"{stage.name}:")
                for override in self.overrides
                if override.startswith(f"{stage.name}:")
            )
            recipe = load_recipe(stage.recipe, own)
            folder = self.places.run / "stages" / stage.name
            places = Places(folder, folder.with_suffix(".run"), self.places.features)
            if not self._is_done(places, recipe):
                self.progress.say(f"stage {stage.name}: {recipe.name}")
                Pipeline(
                    self.whole, recipe, places, self.progress, stage.corpora, self.stages
                ).run()
            self.stages[stage.name] = folder

    @cached_property
    def assembly(self) -> Assembly:
        """Extractors and specifications; the stages are trained first."""
        self.train_stages()
        return Assembly(self.recipe, self.corpus, self.stages, self.places.features)

    @cached_property
    def data(self) -> Data:
        """The splits, extracted where they are not stored yet."""
        assembly = self.assembly
        with self.progress.task("features", len(self.corpus.clips)) as advance:
            found = extract(self.corpus, assembly.extractors, self.places.features, advance)
        if found.unreadable:
            shown = "; ".join(found.unreadable[:3])
            self.progress.say(
                f"{len(found.unreadable)} of {len(self.corpus.clips)} clips could not be read in "
                f"every modality: {shown}"
            )
        if found.repaired:
            self.progress.say(f"{found.repaired} values were not finite and are 0 now")
        settings = self.recipe.pairing
        splits = {}
        for number, split in enumerate(SPLITS):
            clips = tuple(clip for clip in found.clips if clip.split == split)
            clips += pair(clips, settings.share, settings.tolerance, number)
            splits[split] = StoredSamples(clips, found.stores)
        return Data(splits["train"], splits["valid"], splits["test"], found)

    def fit(self) -> tuple[Fitted, ...]:
        """Train every seed, resuming where each stopped."""
        data, shapes = self.data, self.assembly.shapes
        training = self.recipe.training
        window_s = self.recipe.window_ms / 1000
        fitted = []
        for seed in range(training.seeds):
            torch.manual_seed(seed)
            model = self.assembly.model()
            train = Batches(
                data.train, shapes, training.batch, seed, self.recipe.augmentation, window_s
            )
            valid = Batches(data.valid, shapes, training.batch)
            title = f"{self.recipe.name}: seed {seed + 1} of {training.seeds}"
            with self.progress.task(title, training.epochs * len(train)) as advance:
                fitted.append(
                    fit(
                        model,
                        train,
                        valid,
                        self.recipe,
                        self.results.seed_folder(seed),
                        seed,
                        self.team,
                        advance,
                        lambda epoch, seed=seed: self.progress.say(  # type: ignore[misc]
                            reports.epoch_line(f"{self.recipe.name} seed {seed}", epoch)
                        ),
                    )
                )
        return tuple(fitted)

    def calibrate(self) -> None:
        """Margins of every seed, from the validation split."""
        for seed, model in self._trained():
            path = self.results.calibration(seed)
            if self.results.is_fresh(path, model):
                continue
            with self.progress.task(f"calibration: seed {seed + 1}", 1) as advance:
                margins = calibrate(
                    model,
                    self.data.valid,
                    self.assembly.shapes,
                    self.assembly.simulates,
                    self.recipe.window_ms / 1000,
                )
                advance()
            self.results.keep(path, model, {"margins": [asdict(margin) for margin in margins]})

    def evaluate(self) -> None:
        """Figures of every seed on the test split, and its predictions."""
        for seed, model in self._trained():
            path = self.results.evaluation(seed)
            if self.results.is_fresh(path, model):
                continue
            margins = self.results.margins(seed)
            with self.progress.task(f"evaluation: seed {seed + 1}", 1) as advance:
                found = evaluate(
                    model,
                    self.data.test,
                    self.assembly.shapes,
                    self.data.train_labels,
                    "test",
                    seed,
                    self.assembly.simulates,
                    self.recipe.window_ms / 1000,
                    {margin.pattern: margin.margin for margin in margins},
                    self.recipe.training.robustness,
                )
                predicted = self._test_predictions(model)
                advance()
            self.results.keep_predictions(seed, predicted)
            self.results.keep(path, model, {"evaluation": found.to_json()})

    def export(self) -> None:
        """The best seed's bundle, with card, recipe and report."""
        run = self.summary()
        best = self.results.best_seed()
        model = self._load(best)
        margins = {
            margin.pattern: PatternCalibration(margin=margin.margin, clips=margin.clips)
            for margin in run.margins
        }
        label = Label(self.recipe.name, VERSION, True, self.recipe.licence, self.recipe.window_ms)
        with tempfile.TemporaryDirectory() as scratch:
            parts, extra = self.assembly.parts(model, Path(scratch))
            recipe_path = Path(scratch) / "recipe.json"
            self.recipe.save(recipe_path)
            extra["recipe.json"] = recipe_path
            write_bundle(
                self.places.out,
                parts,
                label,
                Calibration(patterns=margins),
                card(run, VERSION),
                extra_files=extra,
            )
        self.report(run)
        self.progress.say(f"bundle: {self.places.out}")

    def report(self, run: reports.Run | None = None) -> None:
        """The report beside the bundle."""
        path = self.places.out.with_name(f"{self.places.out.name}-report.html")
        reports.write(run or self.summary(), path)
        self.progress.say(f"report: {path}")

    def summary(self) -> reports.Run:
        """All figures of the run.

        Raises:
            PipelineError: a step is missing.
        """
        evaluations, histories = [], []
        for seed in range(self.recipe.training.seeds):
            tree = self.results.read(self.results.evaluation(seed), "evaluate")
            evaluations.append(Evaluation.from_json(tree["evaluation"]))
            histories.append(self.results.fitted(seed).history)
        best = self.results.best_seed()
        return reports.Run(
            name=self.recipe.name,
            recipe=self.recipe.model_dump(mode="json"),
            corpus=self._describe_corpus(),
            histories=tuple(histories),
            evaluations=tuple(evaluations),
            margins=tuple(self.results.margins(best)),
            predictions=self.results.predictions(best),
        )

    def _describe_corpus(self) -> dict[str, Any]:
        path = self.places.run / "corpus.json"
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        extraction = self.data.extraction
        described: dict[str, Any] = {}
        for name in dict.fromkeys(clip.corpus for clip in extraction.clips):
            counts = [
                sum(clip.corpus == name and clip.split == split for clip in extraction.clips)
                for split in SPLITS
            ]
            described[name] = " / ".join(f"{count:,}" for count in counts) + " clips"
        pairs = sum(clip.corpus == PAIRS for clip in self.data.train.clips)
        if pairs:
            described[PAIRS] = f"{pairs:,} pairs of a voice and a face of like valence (training)"
        described["clips left out"] = (
            f"{extraction.bare:,} (unreadable in some modality: {len(extraction.unreadable):,}; "
            f"values repaired: {extraction.repaired:,})"
        )
        path.write_text(json.dumps(described, indent=2) + "\n")
        return described

    def _test_predictions(self, model: SentimentModel) -> Predictions:
        device = next(model.parameters()).device
        return predict(model, self.data.test, self.assembly.shapes, View("complete"), device)

    def _trained(self) -> list[tuple[int, SentimentModel]]:
        return [(seed, self._load(seed)) for seed in range(self.recipe.training.seeds)]

    def _load(self, seed: int) -> SentimentModel:
        fitted = self.results.fitted(seed)
        model = self.assembly.model()
        model.load_state_dict(fitted.model)
        return model.to(choose_device(self.recipe.training.device)).eval()

    def _keep_recipe(self) -> None:
        self.places.run.mkdir(parents=True, exist_ok=True)
        if self.team.leads:
            self.recipe.save(self.places.run / "recipe.json")

    def _is_done(self, places: Places, recipe: Recipe) -> bool:
        """Whether a stage's bundle is there and was made by this recipe."""
        kept = places.out / "recipe.json"
        if not (places.out / CONFIG).is_file() or not kept.is_file():
            return False
        return load_recipe(kept) == recipe


def with_seeds(recipe: Recipe, seeds: int | None) -> Recipe:
    """The recipe with another number of seeds."""
    if seeds is None:
        return recipe
    return replace_training(recipe, seeds=seeds)


def replace_training(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other values in its ``training`` table."""
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})
