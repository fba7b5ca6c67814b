"""``python -m trainer`` on the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

app = typer.Typer(help="The offline trainer.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """The offline trainer: makes bundles for the engine."""


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
        _fail(f'needs {error.name}: pip install "undertone[train]"')
    try:
        config = published.import_published(checkpoint, out, variant, half)
    except (published.CheckpointFileError, PublishedWeightsError, BundleError) as error:
        _fail(str(error))
    network = config.network
    print(
        f"{out}: {config.name}, audio {network.audio_dim}, text {network.text_dim}, "
        f"video {network.video_dim} features"
    )


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


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
