"""``python -m clients``: watch, mark, record, plot, replay, and bridges to LSL and Prometheus."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clients.bridges import BridgeError
from clients.control import CONTROL, Control
from clients.reading import RecordingFile
from clients.record import RecordError, Recording, new_recording, open_recording
from clients.subscriber import SCORES, Subscriber
from clients.watch import watch as show
from engine.wire.fields import WireError

app = typer.Typer(
    help="Clients of the sentiment engine.", no_args_is_help=True, pretty_exceptions_enable=False
)

Endpoint = Annotated[str, typer.Option("--scores", help="The engine's scores endpoint.")]
Streams = Annotated[
    list[str] | None, typer.Option("--stream", help="Only this stream; repeatable.")
]
Keys = Annotated[Path | None, typer.Option("--keys", help="Directory of this client's CURVE keys.")]
ControlEndpoint = Annotated[str, typer.Option("--control", help="The engine's control endpoint.")]
Recorded = Annotated[Path, typer.Argument(help="A recording: .jsonl, .csv or .parquet.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of a user end the program with one line, Ctrl-C without any; so does SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (WireError, RecordError, BridgeError) as error:
        _tell([f"error: {error}"])
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@contextmanager
def _subscriber(
    endpoint: str, streams: list[str] | None, keys: Path | None
) -> Iterator[Subscriber]:
    """A subscriber whose errors end the program with one line."""
    with _errors(), Subscriber(endpoint, streams or (), keys) as subscriber:
        yield subscriber


LSL_LISTENS = (
    "note: Lab Streaming Layer listens on every network interface, without a password: whoever "
    "reaches this computer can read the scores"
)


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


@app.command()
def watch(scores: Endpoint = SCORES, stream: Streams = None, keys: Keys = None) -> None:
    """Show scores live: a table in a terminal, a line per score in a pipe."""
    with _subscriber(scores, stream, keys) as subscriber:
        show(subscriber, scores)


@app.command()
def mark(
    label: Annotated[str, typer.Argument(help="What to write on the timeline.")],
    stream: Annotated[str | None, typer.Option(help="Only on this stream.")] = None,
    control: ControlEndpoint = CONTROL,
    keys: Keys = None,
) -> None:
    """Put a mark on the timeline: it shows in chart, recording and plot."""
    with _errors(), Control(control, keys) as engine:
        reached = engine.mark(label, stream)
        if not reached:
            raise WireError(f"no stream to mark yet at {control}: nothing is captured")
        print(f"marked {reached} stream{'s' if reached > 1 else ''}")


@app.command()
def pause(control: ControlEndpoint = CONTROL, keys: Keys = None) -> None:
    """Let the engine drop what it captures, until resume: nothing is scored."""
    with _errors(), Control(control, keys) as engine:
        engine.pause()
        print("paused; undertone resume continues")


@app.command()
def resume(control: ControlEndpoint = CONTROL, keys: Keys = None) -> None:
    """Continue after a pause, with fresh windows."""
    with _errors(), Control(control, keys) as engine:
        engine.resume()
        print("resumed")


@app.command()
def record(
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .csv or .parquet.")],
    scores: Endpoint = SCORES,
    stream: Streams = None,
    keys: Keys = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after this long.")] = None,
    rotate_mb: Annotated[
        float | None, typer.Option(min=0.001, help="Start another file at this size.")
    ] = None,
    rotate_minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Start another file after this time.")
    ] = None,
    words: Annotated[
        bool,
        typer.Option("--words", help="Record what people said, where the engine publishes it."),
    ] = False,
) -> None:
    """Record scores until Ctrl-C (or --seconds); never overwrites a file."""
    from clients.recorder import run, stop_flag
    from clients.rotation import Limits, Rotating

    new: Callable[[Path], Recording] = new_recording
    if rotate_mb is not None or rotate_minutes is not None:
        new = partial(Rotating, limits=Limits(rotate_mb, rotate_minutes))
    with _subscriber(scores, stream, keys) as subscriber, open_recording(out, new) as recording:
        _tell([f"recording {scores} into {out}; Ctrl-C ends it"])
        with stop_flag() as stopped:
            rows = run(subscriber, recording, seconds, stopped, words)
    files = f" in {recording.files} files" if isinstance(recording, Rotating) else ""
    _tell([f"{rows} scores in {out}{files}"])


@app.command()
def plot(
    file: Recorded,
    out: Annotated[Path | None, typer.Option(help=".png or .html; FILE.png unless given.")] = None,
    over: Annotated[
        Path | None, typer.Option(help="Another recording, laid over it from its beginning.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write averages by mark and by minute as CSV.")
    ] = None,
) -> None:
    """Report a recording: chart, marks, averages by mark and minute, losses, latency, model."""
    from clients.plot import plot as draw

    with _errors():
        recording = RecordingFile(file)
        other = None if over is None else RecordingFile(over)
        print(draw(recording, out or file.with_suffix(".png"), other, csv))
        _tell([*recording.notes, *(other.notes if other is not None else ())])


@app.command()
def replay(
    file: Recorded,
    speed: Annotated[float, typer.Option(min=0, help="1: as recorded; 0: without pauses.")] = 1.0,
    bind: Annotated[str, typer.Option(help="Endpoint to publish on.")] = SCORES,
    wait: Annotated[bool, typer.Option(help="Wait for a subscriber before beginning.")] = True,
) -> None:
    """Publish a recording again, as if its engine were here."""
    from clients.replay import replay as run

    with _errors():
        recording = RecordingFile(file)
        run(recording, bind, speed, wait, say=lambda text: _tell([text]))


@app.command()
def lsl(scores: Endpoint = SCORES, stream: Streams = None, keys: Keys = None) -> None:
    """Offer every stream as an outlet of Lab Streaming Layer."""
    from clients.lsl import Outlets, load

    with _errors():
        _tell([LSL_LISTENS])
        outlets = Outlets(load(), say=lambda text: _tell([text]))
        with _subscriber(scores, stream, keys) as subscriber:
            for event in subscriber.events():
                outlets.take(event)


@app.command()
def prometheus(
    scores: Endpoint = SCORES,
    stream: Streams = None,
    keys: Keys = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 9571,
    stale_s: Annotated[
        float, typer.Option(min=0.1, help="Seconds of silence that are unhealthy.")
    ] = 5.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host name to accept; repeatable.")
    ] = None,
) -> None:
    """Serve /metrics for Prometheus and /healthz."""
    from clients.prometheus import serve

    with _errors(), _subscriber(scores, stream, keys) as subscriber:
        names = allow_host or ()
        serve(subscriber, scores, host, port, stale_s, lambda text: _tell([text]), names)


@app.command()
def dashboard(
    scores: Endpoint = SCORES,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback needs a token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8765,
    keys: Keys = None,
    ingest: Annotated[
        str | None, typer.Option(help="Where a browser's own capture is sent to the engine.")
    ] = None,
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Whether browsers may capture; by default on loopback only.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host name to accept; repeatable.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The engine's settings in TOML.")] = None,
    control: ControlEndpoint = CONTROL,
    commands: Annotated[
        bool | None,
        typer.Option(
            "--commands/--no-commands",
            help="Whether browsers may mark, pause and resume; by default on loopback only.",
        ),
    ] = None,
) -> None:
    """Show scores in a browser, and let a browser be camera and microphone."""
    try:
        from clients.dashboard.launch import launch
    except ImportError as error:
        print(f'error: {error.name}: pip install -e ".[dashboard]"', file=sys.stderr)
        raise typer.Exit(2) from None
    names = allow_host or ()
    complaint = launch(scores, host, port, keys, ingest, capture, names, config, control, commands)
    if complaint is not None:
        print(f"error: {complaint}", file=sys.stderr)
        raise typer.Exit(2)
