"""Options that the trainer's commands share, and how a command refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

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


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error's one line and end with an exit status."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)
