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

from engine.wire.notices import redact
from models.errors import UserError

if TYPE_CHECKING:
    from engine.settings import EngineSettings

DRAIN_S = 0.3
"""How long an end waits for somebody to read the last lines."""
SAMPLES = Path(__file__).parent / "samples"
NONE = "none"
NO_DEVICE = (
    "no microphone and no camera found; play a clip with --source CLIP "
    "(--source sample is packaged), or name a device: python -m engine devices"
)
ADDRESSES = ("rtsp://", "rtsps://", "http://", "https://")

app = typer.Typer(
    help="Undertone: rolling valence from a microphone and a camera. Alone: run.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Ingest = Annotated[str | None, typer.Option(help="Where captures are sent to the worker.")]
Scores = Annotated[str | None, typer.Option(help="Where scores and status are published.")]
Directory = Annotated[
    str | None, typer.Option(help="Directory of a cluster: it says which worker takes a stream.")
]
Control = Annotated[str | None, typer.Option(help="Where control requests are answered.")]
BundleName = Annotated[str | None, typer.Option(help="Bundle: a name or a directory.")]
BackendOption = Annotated[str | None, typer.Option(help="auto, onnx, tensorrt or pytorch.")]
Microphone = Annotated[str | None, typer.Option(help="Microphone by name or index, or none.")]
Camera = Annotated[str | None, typer.Option(help="Camera by index, path or URL, or none.")]
Source = Annotated[str | None, typer.Option(help="Clip to play as if live, or sample.")]
Stream = Annotated[
    list[str] | None, typer.Option(help="NAME=SOURCE: clip or camera URL; repeatable.")
]
Faces = Annotated[
    str | None, typer.Option(help="Whose face is scored: largest, or all, each as NAME/1, NAME/2.")
]
Once = Annotated[bool, typer.Option("--once", help="Play clips once and end with them.")]
Config = Annotated[Path | None, typer.Option(help="Settings in TOML.")]
Security = Annotated[str | None, typer.Option(help="off, or curve.")]
KeysDir = Annotated[Path | None, typer.Option(help="Directory of the CURVE keys.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]
HopMs = Annotated[int | None, typer.Option(help="Time between two scores.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the backend; 0: its choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class UsageError(UserError):
    """A mistake on the command line."""


@app.command()
def run(
    ingest: Ingest = None,
    scores: Scores = None,
    control: Control = None,
    bundle: BundleName = None,
    backend: BackendOption = None,
    microphone: Microphone = None,
    camera: Camera = None,
    source: Source = None,
    stream: Stream = None,
    faces: Faces = None,
    once: Once = False,
    config: Config = None,
    security: Security = None,
    keys_dir: KeysDir = None,
    hop_ms: HopMs = None,
    threads: Threads = None,
    log_level: LogLevel = None,
) -> None:
    """Capture, infer and show the rolling valence of every stream (the default)."""
    from engine.processes import WorkerSpec, capture_specs

    settings = read_settings(
        config,
        ingest=ingest,
        scores=scores,
        control=control,
        bundle=bundle,
        backend=backend,
        streams=streams_of(microphone, camera, source, stream),
        faces=_given(who=faces),
        capture={"loop": False} if once else None,
        security=security_of(security, keys_dir),
        inference=inference_of(hop_ms, threads),
        log_level=log_level,
    )
    settings = with_devices(settings, microphone, camera)
    session(settings, [WorkerSpec(settings=settings), *capture_specs(settings)])


@app.command()
def capture(
    ingest: Ingest = None,
    directory: Directory = None,
    scores: Scores = None,
    microphone: Microphone = None,
    camera: Camera = None,
    source: Source = None,
    stream: Stream = None,
    faces: Faces = None,
    once: Once = False,
    config: Config = None,
    security: Security = None,
    keys_dir: KeysDir = None,
    log_level: LogLevel = None,
) -> None:
    """Run only the capture workers, and send to a worker (--ingest) or a cluster (--directory)."""
    from engine.processes import capture_specs

    settings = read_settings(
        config,
        ingest=ingest,
        cluster=_given(directory=directory),
        scores=scores,
        streams=streams_of(microphone, camera, source, stream),
        faces=_given(who=faces),
        capture={"loop": False} if once else None,
        security=security_of(security, keys_dir),
        log_level=log_level,
    )
    settings = with_devices(settings, microphone, camera)
    session(settings, capture_specs(settings))


@app.command()
def infer(
    ingest: Ingest = None,
    scores: Scores = None,
    control: Control = None,
    bundle: BundleName = None,
    backend: BackendOption = None,
    config: Config = None,
    security: Security = None,
    keys_dir: KeysDir = None,
    hop_ms: HopMs = None,
    threads: Threads = None,
    log_level: LogLevel = None,
) -> None:
    """Run only the inference worker."""
    from engine.processes import WorkerSpec

    settings = read_settings(
        config,
        ingest=ingest,
        scores=scores,
        control=control,
        bundle=bundle,
        backend=backend,
        security=security_of(security, keys_dir),
        inference=inference_of(hop_ms, threads),
        log_level=log_level,
    )
    session(settings, [WorkerSpec(settings=settings)])


@app.command()
def score(
    clip: Annotated[str, typer.Argument(help="Media file, or sample.")],
    out: Annotated[Path, typer.Option(help="Scores as JSON lines.")] = Path("scores.jsonl"),
    bundle: BundleName = None,
    backend: BackendOption = None,
    config: Config = None,
    hop_ms: HopMs = None,
    threads: Threads = None,
    log_level: LogLevel = None,
) -> None:
    """Score a clip as fast as the machine allows, through the live code path."""
    settings = read_settings(
        config,
        bundle=bundle,
        backend=backend,
        inference=inference_of(hop_ms, threads),
        log_level=log_level,
    )
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
    given = _given(precision=precision, max_batch=max_batch, plans_dir=plans_dir)
    settings = read_settings(config, bundle=bundle, tensorrt=given, log_level=log_level)
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
    settings = read_settings(
        config, bundle=bundle, backend=backend, inference=inference_of(None, threads)
    )
    from engine import score as scoring

    print(scoring.quick_benchmark(clip_path(clip), settings))


@app.command()
def keys(
    name: Annotated[str, typer.Option(help="Client that is allowed in.")] = "client",
    keys_dir: KeysDir = None,
    config: Config = None,
) -> None:
    """Make the server's CURVE keys, once, and those of a client."""
    settings = read_settings(config, security=security_of(None, keys_dir))
    from engine.wire.security import generate_keys

    for path in generate_keys(settings.security.keys_dir, name):
        print(path)


def read_settings(config: Path | None, **flags: Any) -> EngineSettings:
    """Read the settings; flags that were not given are None and leave the others' word."""
    from engine.settings import load

    given = {key: value for key, value in flags.items() if value not in (None, {}, [])}
    return load(config, **given)


def security_of(mode: str | None, keys_dir: Path | None) -> dict[str, Any]:
    """Return the security branch that was given."""
    return _given(mode=mode, keys_dir=keys_dir)


def inference_of(hop_ms: int | None, threads: int | None) -> dict[str, Any]:
    """Return the inference branch that was given."""
    return _given(hop_ms=hop_ms, threads=threads)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def clip_path(clip: str) -> Path:
    """Resolve ``sample`` to the packaged clip.

    Raises:
        UsageError: there is no such file.
    """
    path = SAMPLES / "sample.mp4" if clip == "sample" else Path(clip).expanduser()
    if not path.is_file():
        raise UsageError(f"no clip at {path}")
    return path


def streams_of(
    microphone: str | None, camera: str | None, source: str | None, streams: list[str] | None
) -> list[dict[str, Any]]:
    """Turn the flags into streams; none given leaves the settings' own.

    Raises:
        UsageError: flags that exclude each other, a stream without a name, no such clip.
    """
    found: list[dict[str, Any]] = []
    named = [given for given in (microphone, camera) if given not in (None, NONE)]
    if source is not None and named:
        raise UsageError("--source plays a clip's own sound and picture: it excludes "
                         "--microphone and --camera")  # fmt: skip
    if source is not None:
        found.append({"name": "main", "source": str(clip_path(source))})
    elif named:
        found.append({"name": "main", "microphone": _device(microphone), "camera": _device(camera)})
    for given in streams or ():
        name, sign, origin = given.partition("=")
        if not (name and sign and origin):
            raise UsageError(f"--stream: expected NAME=SOURCE, got {given!r}")
        if origin.startswith(ADDRESSES):
            found.append({"name": name, "camera": origin})
        else:
            found.append({"name": name, "source": str(clip_path(origin))})
    return found


def _device(given: str | None) -> str | int | None:
    if given is None or given == NONE:
        return None
    return int(given) if given.isdigit() else given


def with_devices(
    settings: EngineSettings, microphone: str | None, camera: str | None
) -> EngineSettings:
    """Take this machine's default microphone and camera where no stream is named.

    Raises:
        UsageError: there is no device either.
    """
    if settings.streams:
        return settings
    from engine.doctor import default_camera, default_microphone
    from engine.settings import StreamSettings

    stream = StreamSettings(
        name="main",
        microphone=None if microphone == NONE else default_microphone(),
        camera=None if camera == NONE else default_camera(),
    )
    if stream.microphone is None and stream.camera is None:
        raise UsageError(NO_DEVICE)
    return settings.model_copy(update={"streams": (stream,)})


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
    from engine.cluster.cli import app as cluster_app  # it uses this module's options

    if not app.registered_groups:
        app.add_typer(cluster_app, name="cluster")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] != "--help"):
        given.insert(0, "run")
    try:
        app(given, prog_name="python -m engine", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return tell(error, given)
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
