"""Commands that measure or search over many trainings, and the adapter's: experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.options import FeaturesOption, JoinOption, RecipeOption, SetOption, fail


def live(
    corpus: Annotated[list[Path], typer.Option(help="A corpus with sound; repeatable.")],
    bundle: Annotated[str, typer.Option(help="A bundle's name or directory.")] = "default",
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Clips of it.")] = "test",
    most: Annotated[int | None, typer.Option(min=1, help="Clips per corpus, drawn.")] = None,
    gain_db: Annotated[float, typer.Option(help="Play the sound louder, or quieter.")] = 0.0,
    words: Annotated[Literal["auto", "off"], typer.Option(help="off: the tone alone.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for a row per clip.")] = None,
) -> None:
    """Score labelled clips as live: through the engine, window by window."""
    import random

    import numpy as np

    from engine.backends.protocol import BackendError
    from engine.backends.select import choose
    from engine.settings import SettingsError
    from engine.settings import load as load_settings
    from models import bundle as bundles
    from trainer.corpus import CorpusError
    from trainer.corpus import open as open_corpus
    from trainer.evaluation import live as live_scores
    from trainer.progress import TerminalProgress

    progress = TerminalProgress()
    try:
        settings = load_settings(bundle=bundle, words={"mode": words})
        opened = bundles.open(bundle)
        chosen = choose(settings.backend, opened, settings.inference.threads, settings.tensorrt)
        for path in corpus:
            own = open_corpus(path)
            clips = [clip for clip in own.split(split) if clip.audio is not None]
            if not clips:
                raise CorpusError(f"{own.name}: expected clips with sound in {split}, it has none")
            if most is not None and most < len(clips):
                clips = random.Random(0).sample(clips, most)
            with progress.task(own.name, len(clips)) as advance:
                found = live_scores.score_clips(
                    clips, settings, opened, chosen.backend, gain_db, advance
                )
            labels = [clip.valence for clip in own.split("train")] or [c.valence for c in clips]
            print(live_scores.line(own.name, live_scores.figures(found, np.array(labels))))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                live_scores.save(found, out / f"{own.name}.csv")
    except (CorpusError, bundles.BundleError, SettingsError, BackendError) as error:
        fail(str(error))


def search_command(
    corpus: Annotated[list[Path], typer.Option(help="A corpus of any known format; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of the search and its trials.")],
    setting: Annotated[
        list[str],
        typer.Option("--range", help="KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A|B; repeatable."),
    ],
    recipe: RecipeOption = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 20,
    overrides: SetOption = None,
    features: FeaturesOption = None,
) -> None:
    """Search a recipe's settings on the validation split; continues where it stopped."""
    from trainer.recipe import RecipeError

    try:
        import optuna  # noqa: F401

        from trainer.search import parse_range, search
    except ModuleNotFoundError as error:
        extra = "search" if error.name == "optuna" else "train"
        fail(f'needs {error.name}: pip install "undertone-sentiment[{extra}]"')
    try:
        ranges = [parse_range(text) for text in setting]
    except RecipeError as error:
        fail(str(error))
    code = search(
        corpus, out, features or out / "features", recipe, tuple(overrides or ()), ranges, trials
    )
    if code:
        raise typer.Exit(code)


def adapter(
    corpus: Annotated[Path, typer.Option(help="A corpus with sound and transcripts.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapter and its curve.")],
    speech: Annotated[
        str,
        typer.Option(help="A transformers speech model's name or path, or a recogniser's folder."),
    ] = "microsoft/wavlm-large",
    language_model: Annotated[
        str,
        typer.Option(help="A causal transformers model's name or path, or the folder of a GGUF."),
    ] = "lmsys/vicuna-7b-v1.5",
    steps: Annotated[int, typer.Option(min=1)] = 1_000,
    batch: Annotated[int, typer.Option(min=1)] = 4,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-4,
    warmup_steps: Annotated[int, typer.Option(min=0)] = 100,
    longest_s: Annotated[float, typer.Option(help="Longer clips are left out.")] = 12.0,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between points.")] = 100,
    evaluate_clips: Annotated[int, typer.Option(min=1, help="Held-out sentences.")] = 20,
    aligned_steps: Annotated[
        int,
        typer.Option(min=0, help="Cheap steps first: frames spell the words by themselves (CTC)."),
    ] = 0,
    threads: Annotated[int, typer.Option(min=0, help="0: half of the cores.")] = 0,
) -> None:
    """Train the adapter of the llm text simulation from transcribed speech; both models frozen."""
    try:
        from trainer.adapter import AdapterOptions, run
    except ModuleNotFoundError as error:
        fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
    options = AdapterOptions(
        corpus,
        out,
        speech,
        language_model,
        steps,
        batch,
        learning_rate,
        warmup_steps,
        longest_s,
        evaluate_every,
        evaluate_clips,
        aligned_steps,
        threads=threads,
    )
    code = run(options)
    if code:
        raise typer.Exit(code)


def reproduce_command(
    corpus: Annotated[list[Path], typer.Option(help="A corpus of any known format; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of models, predictions and tables.")],
    table: Annotated[
        list[str] | None,
        typer.Option(help="main, ablation, missing or noise; repeatable; default: all."),
    ] = None,
    recipe: RecipeOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every variant.")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Models trained at a time.")] = 1,
    overrides: SetOption = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="NAME:KEY=VALUE;KEY=VALUE: one more row of the ablation; repeatable."),
    ] = None,
    features: FeaturesOption = None,
    join: JoinOption = None,
) -> None:
    """The paper's tables on a corpus: trained, measured, compared; continues where it stopped."""
    from trainer.recipe import RecipeError
    from trainer.study.variants import TABLES, parse_variant

    wanted = [name for name in TABLES if name in (table or TABLES)]
    unknown = sorted(set(table or ()) - set(TABLES))
    if unknown:
        fail(f"--table: expected one of {', '.join(TABLES)}, got {', '.join(unknown)}")
    try:
        extra = tuple(parse_variant(text) for text in variant or ())
    except RecipeError as error:
        fail(str(error))
    try:
        from trainer.reproduce import reproduce
        from trainer.study.runner import StudyOptions
    except ModuleNotFoundError as error:
        fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
    options = StudyOptions(
        tuple(corpus),
        out,
        features or out / "features",
        recipe,
        tuple(overrides or ()),
        tuple(join or ()),
        seeds,
        jobs,
        extra,
    )
    code = reproduce(options, wanted)
    if code:
        raise typer.Exit(code)
