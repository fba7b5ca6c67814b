"""The command line: ``python -m engine [run|capture|infer|cluster|score|...]``.

A user's mistake is one line on standard error and exit code 2; ``--log-level debug`` shows the
traceback. Everything slow is imported by the command that needs it.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.options import (
    BackendOption,
    BundleName,
    Common,
    Config,
    Endpoints,
    Ingest,
    Inputs,
    Json,
    KeysDir,
    LogLevel,
    Model,
    Scores,
    Threads,
    clip_path,
    given,
    grouped,
    read_settings,
)
from engine.wire.notices import redact
from models.errors import UserError

if TYPE_CHECKING:
    from engine.settings import EngineSettings

DRAIN_S = 0.3
"""How long an end waits for somebody to read the last lines."""

app = typer.Typer(
    help="Undertone: rolling valence from a microphone and a camera. Alone: run.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.command()
@grouped
def run(endpoints: Endpoints, model: Model, inputs: Inputs, common: Common) -> None:
    """Capture, infer and show the rolling valence of every stream (the default)."""
    from engine.processes import WorkerSpec, capture_specs

    settings = common.settings(**endpoints.flags(), **model.flags(), **inputs.flags())
    settings = inputs.with_devices(settings)
    session(settings, [WorkerSpec(settings=settings), *capture_specs(settings)])


@app.command()
@grouped
def capture(
    inputs: Inputs,
    common: Common,
    ingest: Ingest = None,
    scores: Scores = None,
    directory: Annotated[
        str | None,
        typer.Option(help="Directory of a cluster: it says which worker takes a stream."),
    ] = None,
) -> None:
    """Run only the capture workers, and send to a worker (--ingest) or a cluster (--directory)."""
    from engine.processes import capture_specs

    cluster = given(directory=directory)
    settings = common.settings(ingest=ingest, scores=scores, cluster=cluster, **inputs.flags())
    settings = inputs.with_devices(settings)
    session(settings, capture_specs(settings))


@app.command()
@grouped
def infer(endpoints: Endpoints, model: Model, common: Common) -> None:
    """Run only the inference worker."""
    from engine.processes import WorkerSpec

    settings = common.settings(**endpoints.flags(), **model.flags())
    session(settings, [WorkerSpec(settings=settings)])


@app.command()
@grouped
def score(
    model: Model,
    clip: Annotated[str, typer.Argument(help="Media file, or sample.")],
    out: Annotated[Path, typer.Option(help="Scores as JSON lines.")] = Path("scores.jsonl"),
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Score a clip as fast as the machine allows, through the live code path."""
    settings = read_settings(config, log_level=log_level, **model.flags())
    from engine import score as scoring

    print(scoring.score_to_file(clip_path(clip), out, settings))


@app.command()
def devices(as_json: Json = False) -> None:
    """List microphones and cameras by name."""
    from engine import doctor as checks

    print(checks.devices_report(as_json))


@app.command()
def doctor(
    bundle: BundleName = None,
    backend: BackendOption = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, which backend is chosen and why, and what is missing."""
    from engine import doctor as checks

    print(checks.report(read_settings(config, bundle=bundle, backend=backend), as_json))


@app.command()
def build(
    bundle: BundleName = None,
    precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Largest batch of one run.")] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="Other GPUs: sm86,sm89,... Needs no GPU here.")
    ] = None,
    plans_dir: Annotated[Path | None, typer.Option(help="Where plans are kept.")] = None,
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Build the TensorRT plans of a bundle ahead of time."""
    plans = given(precision=precision, max_batch=max_batch, plans_dir=plans_dir)
    settings = read_settings(config, bundle=bundle, tensorrt=plans, log_level=log_level)
    from engine.plans import build_plans

    print(build_plans(settings, [name for name in (for_ or "").split(",") if name]))


@app.command()
def bench(
    clip: Annotated[str, typer.Option(help="Clip to measure on, or sample.")] = "sample",
    bundle: BundleName = None,
    backend: BackendOption = None,
    config: Config = None,
    threads: Threads = None,
) -> None:
    """Measure, on this machine, what a score costs and how many streams that allows."""
    inference = given(threads=threads)
    settings = read_settings(config, bundle=bundle, backend=backend, inference=inference)
    from engine import score as scoring

    print(scoring.quick_benchmark(clip_path(clip), settings))


@app.command()
def keys(
    name: Annotated[str, typer.Option(help="Client that is allowed in.")] = "client",
    keys_dir: KeysDir = None,
    config: Config = None,
) -> None:
    """Make the server's CURVE keys, once, and those of a client."""
    settings = read_settings(config, security=given(keys_dir=keys_dir))
    from engine.wire.security import generate_keys

    for path in generate_keys(settings.security.keys_dir, name):
        print(path)


def session(settings: EngineSettings, specs: list[Any], shows_scores: bool = True) -> None:
    """Run processes and show what comes of them."""
    from engine import logs
    from engine.session import run_session
    from engine.terminal.display import choose_display
    from engine.terminal.output import Output

    out, errors = Output(1), Output(2)
    logs.configure(settings.log_level, "engine", errors)
    try:
        run_session(settings, specs, choose_display(out, errors), shows_scores)
    finally:
        end_s = time.monotonic() + DRAIN_S
        for output in (out, errors):
            output.drain(max(0.0, end_s - time.monotonic()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    from engine.cluster.cli import app as cluster_app

    if not app.registered_groups:
        app.add_typer(cluster_app, name="cluster")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] != "--help"):
        words.insert(0, "run")
    try:
        app(words, prog_name="python -m engine", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return tell(error, words)
    return 0


def tell(error: Exception, arguments: list[str]) -> int:
    """Say a user's mistake in one line and return its exit code; raise any other error."""
    from engine.processes import USER_MISTAKE

    # Click's own errors; typer may carry a private copy of click, so there is no class to name.
    usage = getattr(error, "format_message", None)
    if usage is None and not isinstance(error, UserError | OSError):
        raise error
    if "debug" in [argument.rpartition("=")[2] for argument in arguments]:
        traceback.print_exception(error)
    text = str(error) if usage is None else str(usage())
    print(f"error: {redact(' '.join(text.split()))}", file=sys.stderr)
    return USER_MISTAKE
