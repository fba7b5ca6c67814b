"""Trains and measures what the tables need: variants by seeds, in parallel, resumable."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.corpus import Corpus
from trainer.data.clips import StoredSamples
from trainer.evaluation.evaluate import MISSING_RATES, views
from trainer.evaluation.prediction import Predictions, View, predict
from trainer.features.extraction import extract
from trainer.fit import identity, set_threads
from trainer.model import SentimentModel, weights_digest
from trainer.opening import Opened, Places, opening
from trainer.progress import Progress, TerminalProgress
from trainer.run import Pipeline
from trainer.study import degraded, predictions
from trainer.study.degraded import Condition, DegradedReader
from trainer.study.predictions import Rows
from trainer.study.variants import Table, Variant, variants

VERSION = 1
COMPLETE, MISSING = "complete", "text missing"


@dataclass(frozen=True)
class StudyOptions:
    """What the command line says."""

    corpora: tuple[Path, ...]
    out: Path
    features: Path
    recipe: str | None
    overrides: tuple[str, ...]
    joined: tuple[Path, ...]
    seeds: int
    jobs: int
    extra: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class Job:
    """One seed of one variant, and what of it is measured."""

    variant: Variant
    seed: int
    rates: bool
    conditions: tuple[Condition, ...]


class Study:
    """The variants of one recipe on the same corpora.

    Args:
        options: of the command line.
        tables: that are wanted.
        progress: gets what is done.
    """

    def __init__(self, options: StudyOptions, tables: Sequence[Table], progress: Progress) -> None:
        self.options = options
        self.tables = tables
        self.progress = progress
        self.variants = tuple(
            {v.name: v for table in tables for v in variants(table, options.extra)}.values()
        )
        quiet = TerminalProgress(quiet=True)  # the same corpora each time: reported once
        self.opened = {
            v.name: _open(options, v, quiet if index else progress)
            for index, v in enumerate(self.variants)
        }
        self.corpus: Corpus = next(iter(self.opened.values())).corpus
        self.conditions = _conditions(self.corpus) if "noise" in tables else ()

    def run(self) -> dict[str, list[Rows]]:
        """Every job that is left, then all rows by variant, one per seed."""
        for variant in self.variants:  # before the jobs: they would extract the same clips at once
            _ = self._pipeline(variant, self.progress).data
        jobs = [
            Job(
                variant,
                seed,
                "missing" in self.tables and index == 0,
                self.conditions if index == 0 else (),
            )
            for seed in range(self.options.seeds)
            for index, variant in enumerate(self.variants)
        ]
        if jobs[0].conditions:
            self._extract_conditions()
        with self.progress.task("models", len(jobs)) as advance:
            if self.options.jobs == 1:
                for job in jobs:
                    do(job, self.options, self.progress)
                    advance()
            else:
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(self.options.jobs, context) as pool:
                    waiting = [pool.submit(do, job, self.options) for job in jobs]
                    for done in as_completed(waiting):
                        done.result()
                        advance()
        return {
            v.name: [
                _read(self.options, job, self._pipeline(v, self.progress))
                for job in jobs
                if job.variant == v
            ]
            for v in self.variants
        }

    def _pipeline(self, variant: Variant, progress: Progress) -> Pipeline:
        return _pipeline(self.options, variant, self.opened[variant.name], progress)

    def _extract_conditions(self) -> None:
        pipeline = self._pipeline(self.variants[0], self.progress)
        for condition in self.conditions:
            test = _degraded_test(pipeline, condition)
            self.progress.say(f"{condition.name}: {len(test)} clips")


def do(job: Job, options: StudyOptions, progress: Progress | None = None) -> None:
    """Train and measure one seed of one variant, unless that is done; runs in any process."""
    progress = progress or TerminalProgress(quiet=True)
    opened = _open(options, job.variant, TerminalProgress(quiet=True))
    set_threads(opened.recipe.training.threads)
    pipeline = _pipeline(options, job.variant, opened, progress)
    pipeline.fit_seed(job.seed)
    pipeline.calibrate_seed(job.seed)
    model = pipeline.load(job.seed)
    key = _key(pipeline, model)
    for part, path in _paths(options, job).items():
        if predictions.read(path, key) is None:
            predictions.write(_measure(part, job, pipeline, model), path, key)


def _open(options: StudyOptions, variant: Variant, progress: Progress) -> Opened:
    places = _places(options, variant)
    recipe = options.recipe
    return opening(
        "fit",
        options.corpora,
        places,
        recipe,
        None,
        (*options.overrides, *variant.overrides),
        options.joined,
        progress,
    )


def _places(options: StudyOptions, variant: Variant) -> Places:
    folder = options.out / "models" / variant.name
    return Places(folder.with_suffix(".bundle"), folder, options.features)


def _pipeline(
    options: StudyOptions, variant: Variant, opened: Opened, progress: Progress
) -> Pipeline:
    return Pipeline(
        opened.corpus,
        opened.recipe,
        _places(options, variant),
        progress,
        overrides=opened.staged,
    )


def _paths(options: StudyOptions, job: Job) -> dict[str, Path]:
    folder = options.out / "predictions" / job.variant.name
    parts = ["views", *(["rates"] if job.rates else [])]
    parts += [f"noise-{condition.name}" for condition in job.conditions]
    return {part: folder / f"seed-{job.seed}-{part}.parquet" for part in parts}


def _key(pipeline: Pipeline, model: SentimentModel) -> dict[str, Any]:
    return {
        "version": VERSION,
        "recipe": identity(pipeline.recipe),
        "data": pipeline.data.digest,
        "weights": weights_digest(model),
    }


def _read(options: StudyOptions, job: Job, pipeline: Pipeline) -> Rows:
    key = _key(pipeline, pipeline.load(job.seed))
    found = [predictions.read(path, key) for path in _paths(options, job).values()]
    return predictions.join([rows for rows in found if rows is not None])


def _measure(part: str, job: Job, pipeline: Pipeline, model: SentimentModel) -> Rows:
    test, simulates = pipeline.data.test, pipeline.assembly.simulates
    if part == "views":
        named = [(COMPLETE, View("complete")), (MISSING, View("missing_text"))]
        named += [  # whole utterances only
            (view.pattern(simulates), view)
            for _, view in views(simulates, 1.0, 0.0, spoken=pipeline.assembly.hears_words)
        ]
    elif part == "rates":
        named = [
            (f"{what} {rate:.1f}", View("complete", seed=job.seed, **{option: rate}))  # type: ignore[arg-type]
            for what, option in (("frames", "missing_rate"), ("modalities", "modality_rate"))
            for rate in MISSING_RATES
        ]
        named += [
            (
                f"frames, text missing {rate:.1f}",
                View("missing_text", missing_rate=rate, seed=job.seed),
            )
            for rate in MISSING_RATES
        ]
    else:
        condition = next(c for c in job.conditions if part == f"noise-{c.name}")
        test = _degraded_test(pipeline, condition)
        named = [
            (f"{condition.name}, {COMPLETE}", View("complete")),
            (f"{condition.name}, {MISSING}", View("missing_text")),
        ]
    return predictions.join([_rows(name, view, test, pipeline, model, job) for name, view in named])


def _rows(
    name: str,
    view: View,
    test: StoredSamples,
    pipeline: Pipeline,
    model: SentimentModel,
    job: Job,
) -> Rows:
    device = next(model.parameters()).device
    found: Predictions = predict(model, test, pipeline.assembly.shapes, view, device)
    margins = {m.pattern: m.margin for m in pipeline.results.margins(job.seed)}
    margin = margins.get(view.pattern(pipeline.assembly.simulates), 0.0)
    groups = {(clip.corpus, clip.id): clip.group or clip.id for clip in test.clips}
    return Rows(
        found.ids,
        found.corpora,
        tuple(groups[pair] for pair in zip(found.corpora, found.ids, strict=True)),
        (name,) * len(found),
        found.labels,
        found.valence,
        np.maximum(found.low - margin, -3),
        np.minimum(found.high + margin, 3),
    )


def _conditions(corpus: Corpus) -> tuple[Condition, ...]:
    """The conditions that the corpus has recordings for."""
    test = corpus.split("test")
    heard = any(c.audio is not None and not c.is_features("audio") for c in test)
    seen = any(c.video is not None and not c.is_features("video") for c in test)
    return (*(degraded.SOUND if heard else ()), *(degraded.PICTURE if seen else ()))


def _degraded_test(pipeline: Pipeline, condition: Condition) -> StoredSamples:
    """The test split under a condition, in stores of its own."""
    clips = pipeline.corpus.split("test")
    root = pipeline.places.features / "noise" / degraded.folder(condition, clips)
    worse = Pipeline(
        pipeline.whole,
        pipeline.recipe,
        replace(pipeline.places, features=root),
        pipeline.progress,
        overrides=pipeline.overrides,
        reader=DegradedReader(condition, clips),
    )
    affected = ("audio", "simulated_text") if condition.snr_db is not None else ("video",)
    extractors = [one for one in worse.assembly.extractors if one.name in affected]
    found = extract(replace(pipeline.corpus, clips=clips), extractors, root)
    keys = {clip.id: clip.keys for clip in found.clips}
    clean = pipeline.data.test
    joined = []
    for clip in clean.clips:
        kept = {name: key for name, key in clip.keys.items() if name not in affected}
        kept.update(keys.get(clip.id, {}))
        if kept:
            joined.append(replace(clip, keys=kept))
    return StoredSamples(tuple(joined), {**clean.stores, **found.stores})
