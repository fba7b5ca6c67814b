"""``python -m trainer`` on the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from trainer.steps import missing

app = typer.Typer(help="The offline trainer.", pretty_exceptions_enable=False)


CorpusOption = Annotated[
    list[Path] | None,
    typer.Option("--corpus", help="A corpus of any known format; repeatable."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Directory of the bundle to write.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="paper, best, embedded, a TOML file, or a run's recipe.json; default: the run's own, "
        "else what fits the corpora.",
    ),
]
JoinOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--join",
        help="Features of the same utterances, by id, for those of --corpus; repeatable.",
    ),
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds to train.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="KEY=VALUE over the recipe, such as training.epochs=3; STAGE:KEY=VALUE."
    ),
]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="Checkpoints, logs, figures; default: OUT.run.")
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(
        "--features", help="Feature stores, to share between runs; default: RUN/features."
    ),
]


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    corpus: CorpusOption = None,
    out: OutOption = None,
    recipe: RecipeOption = None,
    seeds: SeedsOption = None,
    overrides: SetOption = None,
    run: RunOption = None,
    features: FeaturesOption = None,
    join: JoinOption = None,
) -> None:
    """The offline trainer: from corpora to a bundle for the engine, with report and card.

    Without a command it does everything; an interrupted run continues when asked again.
    """
    if context.invoked_subcommand is not None:
        return
    if not corpus and out is None:
        print(context.get_help())
        raise typer.Exit(2)
    _do("run", corpus, out, recipe, seeds, overrides, run, features, join)


def _step(name: str, text: str) -> None:
    """Add the command of one step; all take the same options."""

    def command(
        corpus: CorpusOption = None,
        out: OutOption = None,
        recipe: RecipeOption = None,
        seeds: SeedsOption = None,
        overrides: SetOption = None,
        run: RunOption = None,
        features: FeaturesOption = None,
        join: JoinOption = None,
    ) -> None:
        _do(name, corpus, out, recipe, seeds, overrides, run, features, join)

    app.command(name, help=text)(command)


_step("features", "Extract features into the store; continues where it stopped.")
_step("fit", "Train every seed; continues where it stopped.")
_step("calibrate", "Fit the intervals of every trained seed on the validation split.")
_step("evaluate", "Measure every trained seed on the test split.")
_step("export", "Write the best seed's bundle, card and report.")
_step("report", "Write the report again.")


def _do(
    step: str,
    corpus: list[Path] | None,
    out: Path | None,
    recipe: str | None,
    seeds: int | None,
    overrides: list[str] | None,
    run: Path | None,
    features: Path | None,
    join: list[Path] | None,
) -> None:
    if not corpus or out is None:
        _fail("expected --corpus PATH and --out BUNDLE")
    run = run or out.with_name(f"{out.name}.run")
    lacking = missing(step, run)
    if lacking is not None:
        _fail(lacking)
    try:
        from trainer.opening import FAULTS, Places, opening
        from trainer.progress import TerminalProgress

        places = Places(out, run, features or run / "features")
        progress = TerminalProgress(quiet=os.environ.get("RANK", "0") != "0")
        try:
            opened = opening(
                step, corpus, places, recipe, seeds, overrides or (), join or (), progress
            )
        except FAULTS as error:
            _fail(str(error))
        from trainer.command import carry_on
    except ModuleNotFoundError as error:
        _fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
    code = carry_on(step, opened, places)
    if code:
        raise typer.Exit(code)


@app.command()
def synthesise(
    corpus: Annotated[Path, typer.Option(help="A corpus with transcripts.")],
    out: Annotated[Path, typer.Option(help="Directory of the spoken corpus.")],
    seed: Annotated[int, typer.Option(help="Of voices, rates and pitches.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Synthesisers at a time.")] = 2,
    train: Annotated[
        int | None, typer.Option(min=0, help="Clips of train; all if left out.")
    ] = None,
    valid: Annotated[int | None, typer.Option(min=0, help="Clips of valid.")] = None,
    test: Annotated[int | None, typer.Option(min=0, help="Clips of test.")] = None,
) -> None:
    """Speak a text corpus by piper, espeak-ng, flite and festival, to train on what is said."""
    from trainer.corpus import CorpusError
    from trainer.corpus import open as open_corpus
    from trainer.corpus.clip import Split
    from trainer.progress import TerminalProgress
    from trainer.synthesis import SynthesisError, chosen_clips, synthesise

    progress = TerminalProgress()
    try:
        opened = open_corpus(corpus)
        counts: dict[Split, int | None] = {"train": train, "valid": valid, "test": test}
        most = {split: count for split, count in counts.items() if count is not None}
        with progress.task("speaking", len(chosen_clips(opened, most, seed))) as advance:
            manifest = synthesise(opened, out, seed, jobs, advance, most)
    except (CorpusError, SynthesisError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues", 130)
    print(manifest)


@app.command()
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
        _fail(str(error))


@app.command("import-published")
def import_published(
    checkpoint: Annotated[Path, typer.Argument(help="The published checkpoint (.pt).")],
    out: Annotated[Path, typer.Option(help="Directory of the bundle to write.")],
    variant: Annotated[
        Literal["released", "imagination"],
        typer.Option(help="Imagination switched off (as released) or on."),
    ] = "released",
    half: Annotated[bool, typer.Option(help="float16 arithmetic inside the graphs.")] = False,
) -> None:
    """Make a bundle of the checkpoint published with arXiv 2410.15029."""
    try:
        from models.bundle import BundleError
        from models.published import PublishedWeightsError
        from trainer import import_published as published
    except ModuleNotFoundError as error:
        _fail(f'needs {error.name}: pip install -e ".[train]"')
    try:
        config = published.import_published(checkpoint, out, variant, half)
    except (published.CheckpointFileError, PublishedWeightsError, BundleError) as error:
        _fail(str(error))
    network = config.network
    print(
        f"{out}: {config.name}, audio {network.audio_dim}, text {network.text_dim}, "
        f"video {network.video_dim} features"
    )


@app.command("import-recogniser")
def import_recogniser(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of the package's files, or a Moonshine model by name or path."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the graphs, the tokens and the licence.")],
    layers: Annotated[
        int, typer.Option(min=1, help="Encoder layers in the lower graph, which gives the tone.")
    ] = 4,
    whole: Annotated[bool, typer.Option("--float", help="float32 weights, not 8 bits.")] = False,
) -> None:
    """Make the ONNX graphs of a speech recogniser that a bundle can hold."""
    try:
        from models.pretrained import PretrainedError
        from trainer.import_recogniser import import_recogniser as make
    except ModuleNotFoundError as error:
        _fail(f'needs {error.name}: pip install -e ".[train]"')
    try:
        sizes = make(source, out, layers, quantised=not whole)
    except PretrainedError as error:
        _fail(str(error))
    for name, size in sizes.items():
        print(f"{out / name}: {size / 1e6:.1f} MB")


@app.command()
def inspect(
    corpus: Annotated[list[Path], typer.Option(help="A corpus of any known format; repeatable.")],
) -> None:
    """Look at a corpus before training: counts, durations, labels, baselines, problems."""
    from rich.console import Console
    from rich.progress import Progress

    from trainer import inspection
    from trainer.corpus import CorpusError
    from trainer.corpus import open as open_corpus

    console = Console()
    for path in corpus:
        try:
            opened = open_corpus(path)
        except CorpusError as error:
            _fail(str(error))
        with Progress(console=Console(stderr=True), transient=True) as progress:
            clips = progress.track(opened.clips, description="reading clips")
            found = inspection.look(opened, clips)
        inspection.show(found, console)


@app.command("search")
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
        _fail(f'needs {error.name}: pip install "undertone-sentiment[{extra}]"')
    try:
        ranges = [parse_range(text) for text in setting]
    except RecipeError as error:
        _fail(str(error))
    code = search(
        corpus, out, features or out / "features", recipe, tuple(overrides or ()), ranges, trials
    )
    if code:
        raise typer.Exit(code)


@app.command()
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
        _fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
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


@app.command("reproduce")
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
        _fail(f"--table: expected one of {', '.join(TABLES)}, got {', '.join(unknown)}")
    try:
        extra = tuple(parse_variant(text) for text in variant or ())
    except RecipeError as error:
        _fail(str(error))
    try:
        from trainer.reproduce import reproduce
        from trainer.study.runner import StudyOptions
    except ModuleNotFoundError as error:
        _fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
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


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)
