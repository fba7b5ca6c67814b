"""Commands before and beside training: look at a corpus, speak one, import what others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.options import fail


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
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command continues", 130)
    print(manifest)


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
        fail(f'needs {error.name}: pip install -e ".[train]"')
    try:
        config = published.import_published(checkpoint, out, variant, half)
    except (published.CheckpointFileError, PublishedWeightsError, BundleError) as error:
        fail(str(error))
    network = config.network
    print(
        f"{out}: {config.name}, audio {network.audio_dim}, text {network.text_dim}, "
        f"video {network.video_dim} features"
    )


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
        fail(f'needs {error.name}: pip install -e ".[train]"')
    try:
        sizes = make(source, out, layers, quantised=not whole)
    except PretrainedError as error:
        fail(str(error))
    for name, size in sizes.items():
        print(f"{out / name}: {size / 1e6:.1f} MB")


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
            fail(str(error))
        with Progress(console=Console(stderr=True), transient=True) as progress:
            clips = progress.track(opened.clips, description="reading clips")
            found = inspection.look(opened, clips)
        inspection.show(found, console)
