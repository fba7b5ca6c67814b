"""``python -m trainer`` on the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from trainer import experiments, preparation
from trainer.options import (
    CorpusOption,
    FeaturesOption,
    JoinOption,
    OutOption,
    RecipeOption,
    RunOption,
    SeedsOption,
    SetOption,
    fail,
)
from trainer.steps import missing

app = typer.Typer(help="The offline trainer.", pretty_exceptions_enable=False)


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
        fail("expected --corpus PATH and --out BUNDLE")
    run = run or out.with_name(f"{out.name}.run")
    lacking = missing(step, run)
    if lacking is not None:
        fail(lacking)
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
            fail(str(error))
        from trainer.command import carry_on
    except ModuleNotFoundError as error:
        fail(f'needs {error.name}: pip install "undertone-sentiment[train]"')
    code = carry_on(step, opened, places)
    if code:
        raise typer.Exit(code)


app.command()(preparation.synthesise)
app.command()(experiments.live)
app.command("import-published")(preparation.import_published)
app.command("import-recogniser")(preparation.import_recogniser)
app.command()(preparation.inspect)
app.command("search")(experiments.search_command)
app.command()(experiments.adapter)
app.command("reproduce")(experiments.reproduce_command)
