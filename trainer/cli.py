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


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(2)
