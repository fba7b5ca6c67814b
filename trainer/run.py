"""The whole run: stages, features, training, calibration, evaluation, export, report.

Every step leaves its result in the run's folder, so that an interrupted run continues where it
stopped, and so that each step can be asked for by itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import CONFIG
from models.calibration import Calibration, PatternCalibration
from models.export import Label, write_bundle
from models.spec import MODALITIES
from models.umca import Standardisation
from trainer.assembly import Assembly
from trainer.checkpoint import Epoch
from trainer.corpus import SPLITS, Corpus
from trainer.corpus.readiness import require_splits
from trainer.data.balance import balanced
from trainer.data.batches import Batches
from trainer.data.clips import PAIRS, StoredSamples, pair
from trainer.data.statistics import ColumnStatistics, Modality, column_statistics
from trainer.distributed import Team
from trainer.evaluation import report as reports
from trainer.evaluation.calibrate import calibrate
from trainer.evaluation.card import card
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.prediction import Predictions, View, predict
from trainer.features.extraction import Extraction, extract
from trainer.features.media import MediaReader
from trainer.fit import Fitted, Hooks, choose_device, fit
from trainer.model import SentimentModel
from trainer.opening import Places
from trainer.progress import Progress
from trainer.recipe import STAGE, Recipe, Stage
from trainer.recipe import load as load_recipe
from trainer.results import Results
from trainer.selection import usable
from trainer.stop import Stop
from trainer.tracking import tracking

VERSION = "1"
EXAMPLE_CROPS = 800
"""Crops that the steps of the face network in 8 bits are measured on."""


@dataclass(frozen=True, eq=False)
class Data:
    """The stored splits of a run."""

    train: StoredSamples
    valid: StoredSamples
    test: StoredSamples
    extraction: Extraction
    statistics: Mapping[Modality, ColumnStatistics]
    """Of the columns of the modalities that are brought to one scale."""

    @property
    def digest(self) -> str:
        """Short digest of all splits."""
        told = "/".join(samples.digest for samples in (self.train, self.valid, self.test))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

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
        stop: asked within training whether to stop.
        reader: of recordings and pictures; None: as they are.

    Raises:
        CorpusError: a split is missing.
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
        stop: Stop | None = None,
        reader: MediaReader | None = None,
    ) -> None:
        self.whole = corpus
        self.corpus = usable(corpus, recipe, only)
        require_splits(self.corpus)
        self.recipe = recipe
        self.places = places
        self.progress = progress
        self.stages = dict(stages or {})
        self.overrides = overrides
        self.team = team or Team()
        self.stop = stop or Stop()
        self.reader = reader
        self._known = Results(places.run, recipe)

    def run(self) -> None:
        """Every step, in order."""
        self.fit()
        self.calibrate()
        self.evaluate()
        self.export()

    def train_stages(self) -> None:
        """Train the recipe's stages that are not trained yet, each to a bundle of its own."""
        recipes = {stage: self._stage_recipe(stage) for stage in self.recipe.stages}
        for stage in needed(self.recipe, recipes):
            recipe = recipes[stage]
            folder = self.places.run / "stages" / stage.name
            places = Places(folder, folder.with_suffix(".run"), self.places.features)
            if not self._is_done(places, recipe):
                self.progress.say(f"stage {stage.name}: {recipe.name}")
                Pipeline(
                    self.whole,
                    recipe,
                    places,
                    self.progress,
                    stage.corpora,
                    self.stages,
                    stop=self.stop,
                ).run()
            self.stages[stage.name] = folder

    def _stage_recipe(self, stage: Stage) -> Recipe:
        own = tuple(
            override.removeprefix(f"{stage.name}:")
            for override in self.overrides
            if override.startswith(f"{stage.name}:")
        )
        return load_recipe(stage.recipe, own)

    @cached_property
    def assembly(self) -> Assembly:
        """Extractors and specifications; the stages are trained first."""
        self.train_stages()
        return Assembly(
            self.recipe,
            self.corpus,
            self.stages,
            self.places.features,
            self.reader,
            choose_device(self.recipe.training.device),
        )

    @cached_property
    def data(self) -> Data:
        """The splits, extracted where they are not stored yet."""
        assembly, team = self.assembly, self.team
        clips = self.corpus.clips
        with self.progress.task("features", len(clips)) as advance:
            if team.size > 1:  # each extracts its share into files of its own, then finds all
                own = replace(self.corpus, clips=clips[team.rank :: team.size])
                writer = f"rank{team.rank}"
                extract(own, assembly.extractors, self.places.features, advance, writer)
                team.wait()
            found = extract(self.corpus, assembly.extractors, self.places.features, advance)
        if found.unreadable:
            shown = "; ".join(found.unreadable[:3])
            self.progress.say(
                f"{len(found.unreadable)} of {len(clips)} clips could not be read in "
                f"every modality: {shown}"
            )
        if found.repaired:
            self.progress.say(f"{found.repaired} values were not finite and are 0 now")
        for name, count in found.absent.items():
            self.progress.say(f"{count:,} clips have {name} frames of zeros: taken as absent")
        settings = self.recipe.pairing
        splits = {}
        for number, split in enumerate(SPLITS):
            chosen = tuple(
                replace(clip, understood=clip.corpus in self.recipe.transcripts)
                for clip in found.clips
                if clip.split == split
            )
            chosen += pair(
                chosen,
                settings.share,
                settings.tolerance,
                number,
                settings.words_tolerance,
                settings.words_weight,
            )
            chosen = balanced(chosen, self.recipe.balance)
            splits[split] = StoredSamples(chosen, found.stores)
        train, valid, test = (splits[split] for split in SPLITS)
        statistics = column_statistics(train, assembly.standardised)
        data = Data(train, valid, test, found, statistics)
        for name, told in self._clipped(data).items():
            self.progress.say(f"{name}: {told}")
        return data

    @property
    def results(self) -> Results:
        """The results that count: with the data's digest once they are extracted."""
        data = self.__dict__.get("data")
        return self._known if data is None else replace(self._known, data=data.digest)

    def fit(self) -> tuple[Fitted, ...]:
        """Train every seed, resuming where each stopped."""
        return tuple(self.fit_seed(seed) for seed in range(self.recipe.training.seeds))

    def fit_seed(self, seed: int, on_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Fitted:
        """Train one seed, resuming where it stopped; ``on_epoch`` hears of each epoch."""
        data, shapes = self.data, self.assembly.shapes
        training = self.recipe.training
        self._keep_recipe()
        torch.manual_seed(seed)
        model = self.assembly.model()
        self.assembly.start(model)
        standardise(model, data.statistics)
        train = Batches(
            data.train,
            shapes,
            training.batch,
            seed,
            self.recipe.augmentation,
            self.recipe.window_ms / 1000,
        )
        valid = Batches(data.valid, shapes, training.batch)
        title = f"{self.recipe.name}: seed {seed + 1} of {max(training.seeds, seed + 1)}"
        whole = self.progress.task(title, training.epochs * len(train))
        folder = self.results.seed_folder(seed)
        kind = training.tracking if self.team.leads else "none"
        tracked = tracking(kind, folder, self.recipe, seed, self.progress.say)
        with whole as advance, tracked as log, self.stop.within_training():

            def say(epoch: Epoch) -> None:
                self._say_epoch(seed, epoch)
                log(epoch)
                on_epoch(epoch)

            hooks = Hooks(advance, say, self.stop.asked)
            return fit(
                model, train, valid, self.recipe, folder, seed, self.team, hooks, data.digest
            )

    def _say_epoch(self, seed: int, epoch: Epoch) -> None:
        self.progress.say(reports.epoch_line(f"{self.recipe.name} seed {seed}", epoch))

    def calibrate(self) -> None:
        """Margins of every seed, from the validation split."""
        for seed in range(self.recipe.training.seeds):
            self.calibrate_seed(seed)

    def calibrate_seed(self, seed: int) -> None:
        """Margins of one seed, unless they are there."""
        model = self.load(seed)
        if not self.results.is_fresh(seed, "calibration", model):
            with self.progress.task(f"calibration: seed {seed + 1}", 1) as advance:
                margins = calibrate(
                    model,
                    self.data.valid,
                    self.assembly.shapes,
                    self.assembly.simulates,
                    self.recipe.window_ms / 1000,
                    text_span_s=self.recipe.augmentation.text_span_s,
                    neutral=frozenset(self.recipe.transcripts),
                    spoken=self.assembly.hears_words,
                )
                advance()
            kept = {"margins": [asdict(margin) for margin in margins]}
            self.results.keep(seed, "calibration", model, kept)

    def evaluate(self) -> None:
        """Figures of every seed on the test split, and its predictions."""
        self._describe_corpus()
        for seed, model in self._trained():
            if self.results.is_fresh(seed, "evaluation", model):
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
                    text_span_s=self.recipe.augmentation.text_span_s,
                    spoken=self.assembly.hears_words,
                )
                predicted = self._test_predictions(model)
                advance()
            self.results.keep_predictions(seed, predicted)
            self.results.keep(seed, "evaluation", model, {"evaluation": found.to_json()})

    def export(self) -> None:
        """The best seed's bundle, with card, recipe and report."""
        run = self.summary()
        best = self.results.best_seed()
        model = self.load(best)
        margins = {
            margin.pattern: PatternCalibration(
                margin=margin.margin,
                clips=margin.clips,
                stretch=self.recipe.stretch.get(margin.pattern, 1.0),
            )
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
                crops=None if model.video_encoder is None else self._example_crops(),
            )
        self.report(run)
        self.progress.say(f"bundle: {self.places.out}")

    def _example_crops(self) -> NDArray[np.float32]:
        """Some of the training split's face crops [N, C, S, S], evenly over its clips."""
        train = self.data.train
        places = np.unique(np.linspace(0, len(train) - 1, EXAMPLE_CROPS).astype(int))
        found = [video[0] for place in places if (video := train[int(place)].video) is not None]
        return np.asarray(found, np.float32)

    def report(self, run: reports.Run | None = None) -> None:
        """The report next to the bundle."""
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
            evaluations.append(self.results.evaluation(seed))
            histories.append(self.results.fitted(seed).history)
        best = self.results.best_seed()
        return reports.Run(
            name=self.recipe.name,
            recipe=self.recipe.model_dump(mode="json"),
            corpus=self.results.corpus(),
            histories=tuple(histories),
            evaluations=tuple(evaluations),
            margins=tuple(self.results.margins(best)),
            predictions=self.results.predictions(best),
        )

    def _describe_corpus(self) -> None:
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
        for name, count in extraction.absent.items():
            described[f"clips without {name}"] = f"{count:,} whose frames are zeros throughout"
        self.results.keep_corpus(described | self._clipped(self.data))

    def _clipped(self, data: Data) -> dict[str, str]:
        """How much of each modality that is brought to one scale lies beyond the clip."""
        told = {}
        for modality, known in data.statistics.items():
            if known.clipped:
                share = f"{known.clipped:,} of {known.values:,} values looked at"
                limit = Standardisation.LIMIT
                told[f"{modality} values clipped"] = f"{share}, beyond {limit:g} deviations (train)"
        return told

    def _test_predictions(self, model: SentimentModel) -> Predictions:
        device = next(model.parameters()).device
        return predict(model, self.data.test, self.assembly.shapes, View("complete"), device)

    def _trained(self) -> list[tuple[int, SentimentModel]]:
        return [(seed, self.load(seed)) for seed in range(self.recipe.training.seeds)]

    def load(self, seed: int) -> SentimentModel:
        """A trained seed's model, in eval mode."""
        fitted = self.results.fitted(seed)
        model = self.assembly.model()
        model.load_state_dict(fitted.model)
        return model.to(choose_device(self.recipe.training.device)).eval()

    def _keep_recipe(self) -> None:
        if self.team.leads:
            self.places.run.mkdir(parents=True, exist_ok=True)
            self.recipe.save(self.places.run / "recipe.json")

    def _is_done(self, places: Places, recipe: Recipe) -> bool:
        """Whether a stage's bundle is there and was made by this recipe."""
        kept = places.out / "recipe.json"
        if not (places.out / CONFIG).is_file() or not kept.is_file():
            return False
        return load_recipe(kept) == recipe


def needed(recipe: Recipe, stages: Mapping[Stage, Recipe]) -> tuple[Stage, ...]:
    """The stages that an encoder is taken from, here or in a needed stage; in order."""
    sources = _sources(recipe)
    found: list[Stage] = []
    for stage in reversed(recipe.stages):
        if f"{STAGE}{stage.name}" in sources:
            found.append(stage)
            sources |= _sources(stages[stage])
    return tuple(reversed(found))


def _sources(recipe: Recipe) -> set[str | None]:
    encoders = recipe.encoders
    choices = (encoders.audio, encoders.text, encoders.video, encoders.text_simulation)
    return {choice.source for choice in choices if choice.kind == "bundle"}


def standardise(model: SentimentModel, statistics: Mapping[Modality, ColumnStatistics]) -> None:
    """Put the columns' centre and scale into the model's projections."""
    for modality, known in statistics.items():
        part = model.network.get_submodule(f"projections.{MODALITIES.index(modality)}.standardise")
        if isinstance(part, Standardisation):
            part.centre.copy_(torch.from_numpy(known.centre))
            part.scale.copy_(torch.from_numpy(known.scale))
