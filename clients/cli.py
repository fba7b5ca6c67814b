"""``python -m clients``: watch and record, on the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from clients.record import RecordError, open_recording
from clients.rows import row_of
from clients.subscriber import SCORES, Subscriber
from clients.watch import watch as show
from engine.wire.fields import WireError
from engine.wire.messages import Score

app = typer.Typer(
    help="Clients of the sentiment engine.", no_args_is_help=True, pretty_exceptions_enable=False
)

Endpoint = Annotated[str, typer.Option("--scores", help="The engine's scores endpoint.")]
Streams = Annotated[
    list[str] | None, typer.Option("--stream", help="Only this stream; repeatable.")
]
Keys = Annotated[
    Path | None, typer.Option("--keys", help="This client's CURVE keys, where the engine asks.")
]


@contextmanager
def _subscriber(
    endpoint: str, streams: list[str] | None, keys: Path | None
) -> Iterator[Subscriber]:
    """A subscriber whose errors end the program with one line."""
    try:
        with Subscriber(endpoint, streams or (), keys) as subscriber:
            yield subscriber
    except (WireError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def watch(scores: Endpoint = SCORES, stream: Streams = None, keys: Keys = None) -> None:
    """Show scores live: a table in a terminal, a line per score in a pipe."""
    with _subscriber(scores, stream, keys) as subscriber:
        show(subscriber, scores)


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .csv or .parquet.")],
    scores: Endpoint = SCORES,
    stream: Streams = None,
    keys: Keys = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this long.")] = None,
) -> None:
    """Record scores until Ctrl-C (or --seconds); never overwrites a file."""
    rows = 0
    end = None if seconds is None else time.monotonic() + seconds
    with _subscriber(scores, stream, keys) as subscriber, open_recording(out) as recording:
        try:
            while end is None or time.monotonic() < end:
                for event in subscriber.poll(100):
                    if isinstance(event, Score):
                        recording.write(row_of(event))
                        rows += 1
                recording.tick()
        finally:  # Ctrl-C is how a recording usually ends
            print(f"{rows} scores in {out}", file=sys.stderr)


@app.command()
def dashboard(
    scores: Endpoint = SCORES,
    host: Annotated[str, typer.Option(help="Address to listen on; others need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8765,
    keys: Keys = None,
    ingest: Annotated[
        str | None, typer.Option(help="Where a browser's own capture is sent to the engine.")
    ] = None,
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Whether browsers may capture; only on loopback unless said.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name it is reached by; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The engine's settings in TOML.")] = None,
) -> None:
    """Show scores in a browser, and let a browser be camera and microphone."""
    try:
        from clients.dashboard.launch import launch
    except ImportError as error:
        print(f'error: {error.name}: pip install "undertone[dashboard]"', file=sys.stderr)
        raise typer.Exit(2) from None
    complaint = launch(scores, host, port, keys, ingest, capture, allow_host or (), config)
    if complaint is not None:
        print(f"error: {complaint}", file=sys.stderr)
        raise typer.Exit(2)
