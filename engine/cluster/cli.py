"""``python -m engine cluster``: a whole cluster on this machine, and what operators ask of one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import cli as options

if TYPE_CHECKING:
    from engine.settings import EngineSettings
    from engine.wire.membership import Ask

DIRECTORY = "tcp://127.0.0.1:5575"
SCORES = "tcp://127.0.0.1:5571,tcp://127.0.0.1:5576"
ANSWER_MS = 3_000

app = typer.Typer(
    help="More than one worker: placement, failover, drain, rolling upgrade.",
    invoke_without_command=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)

Directory = Annotated[str | None, typer.Option(help="Endpoint of the directory.")]
Relays = Annotated[
    str | None, typer.Option("--scores", help="Endpoints of the relays, with commas between them.")
]
Workers = Annotated[int, typer.Option(min=1, help="Inference workers, of all hosts together.")]
Hosts = Annotated[int, typer.Option(min=1, help="Hosts that share the workers, as machines would.")]
Capacity = Annotated[int | None, typer.Option(min=1, help="Streams that one worker holds.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", help="Run the parts on the Ray cluster at this address; local: a new one."
    ),
]
HostName = Annotated[str | None, typer.Option(help="This machine's name within the cluster.")]
Address = Annotated[str | None, typer.Option(help="This machine's address for the captures.")]


@app.callback()
def cluster(
    context: typer.Context,
    workers: Workers = 2,
    hosts: Hosts = 1,
    capacity: Capacity = None,
    ray: Ray = None,
    address: Address = None,
    directory: Directory = None,
    scores: Relays = None,
    bundle: options.BundleName = None,
    backend: options.BackendOption = None,
    microphone: options.Microphone = None,
    camera: options.Camera = None,
    source: options.Source = None,
    stream: options.Stream = None,
    once: options.Once = False,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
    hop_ms: options.HopMs = None,
    threads: options.Threads = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run a directory, two relays, workers and the sources that ``run`` takes."""
    if context.invoked_subcommand is not None:
        return
    from engine.cluster.parts import local_specs
    from engine.processes import capture_specs

    settings = options.read_settings(
        config,
        scores=scores or SCORES,
        bundle=bundle,
        backend=backend,
        streams=options.streams_of(microphone, camera, source, stream),
        capture={"loop": False} if once else None,
        security=options.security_of(security, keys_dir),
        inference=options.inference_of(hop_ms, threads),
        cluster=_given(directory=directory or DIRECTORY, capacity=capacity, address=address),
        log_level=log_level,
    )
    settings = options.with_devices(settings, microphone, camera)
    if ray is not None:
        from engine.cluster.ray_pool import start

        start(ray, settings, workers, hosts)
        options.session(settings, capture_specs(settings))
        return
    options.session(settings, [*local_specs(settings, workers, hosts), *capture_specs(settings)])


@app.command()
def hub(
    address: Address = None,
    directory: Directory = None,
    scores: Relays = None,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
    log_level: options.LogLevel = None,
) -> None:
    """Run only the directory and the relays, for hosts and captures elsewhere."""
    from engine.cluster.parts import hub_specs

    settings = options.read_settings(
        config,
        scores=scores or SCORES,
        security=options.security_of(security, keys_dir),
        cluster=_given(directory=directory or DIRECTORY, address=address),
        log_level=log_level,
    )
    options.session(settings, hub_specs(settings), shows_scores=False)


@app.command()
def host(
    workers: Workers = 2,
    name: HostName = None,
    address: Address = None,
    capacity: Capacity = None,
    directory: Directory = None,
    scores: Relays = None,
    bundle: options.BundleName = None,
    backend: options.BackendOption = None,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
    hop_ms: options.HopMs = None,
    threads: options.Threads = None,
    log_level: options.LogLevel = None,
) -> None:
    """Add this machine's workers to a cluster."""
    from engine.cluster.parts import host_spec

    given = _given(directory=directory or DIRECTORY, host=name, address=address, capacity=capacity)
    settings = options.read_settings(
        config,
        scores=scores or SCORES,
        bundle=bundle,
        backend=backend,
        security=options.security_of(security, keys_dir),
        inference=options.inference_of(hop_ms, threads),
        cluster=given,
        log_level=log_level,
    )
    options.session(settings, [host_spec(settings, workers)], shows_scores=False)


@app.command()
def stop(
    ray: Annotated[str, typer.Option("--ray", help="Address of the Ray cluster.")],
) -> None:
    """End the parts that ``cluster --ray`` has left running on a Ray cluster."""
    from engine.cluster.ray_pool import stop as stop_parts

    print("ended: " + (", ".join(stop_parts(ray)) or "nothing"))


@app.command()
def status(
    directory: Directory = None,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
    as_json: options.Json = False,
) -> None:
    """Say which workers there are and what they hold."""
    from engine.wire.membership import Ask

    values = _ask(Ask("status"), _settings(directory, config, security, keys_dir))
    if as_json:
        print(json.dumps(values))
        return
    for worker in values["workers"]:
        streams = " ".join(worker["streams"]) or "-"
        print(f"{worker['name']:<16} {worker['host']:<12} {worker['pid']:>7} "
              f"{worker['state']:<9} {len(worker['streams']):>4}  {streams}")  # fmt: skip
    for relay in values["relays"]:
        print(f"relay            {relay['endpoint']}  {relay['pid']}")
    known = values["directory"]
    print(f"directory        {known['pid']}, {known['streams']} streams, up {known['up_s']:.0f} s")


@app.command()
def drain(
    worker: Annotated[str, typer.Argument(help="Name of the worker, as status prints it.")],
    directory: Directory = None,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
) -> None:
    """Move a worker's streams to the others, and end it."""
    from engine.wire.membership import Ask

    settings = _settings(directory, config, security, keys_dir)
    values = _ask(Ask("drain", worker=worker), settings)
    print(f"{worker}: {values['streams']} streams move away")


@app.command()
def upgrade(
    bundle: Annotated[str, typer.Argument(help="Bundle: a name or a directory.")],
    directory: Directory = None,
    config: options.Config = None,
    security: options.Security = None,
    keys_dir: options.KeysDir = None,
) -> None:
    """Start workers with another bundle, then move the streams to them and end the old ones."""
    from engine.wire.membership import Ask
    from models import bundle as bundles

    opened = bundles.open(bundle)
    given = str(Path(bundle).resolve()) if Path(bundle).exists() else bundle
    settings = _settings(directory, config, security, keys_dir)
    values = _ask(Ask("upgrade", bundle=given), settings)
    print(f"{opened.config.name} {opened.config.version} ({opened.sha256[:12]}): generation "
          f"{values['generation']} starts on {', '.join(values['hosts'])}")  # fmt: skip


def _settings(
    directory: str | None, config: Path | None, security: str | None, keys_dir: Path | None
) -> EngineSettings:
    return options.read_settings(
        config,
        cluster=_given(directory=directory),
        security=options.security_of(security, keys_dir),
    )


def _ask(ask: Ask, settings: EngineSettings) -> dict[str, Any]:
    """Ask the directory.

    Raises:
        UsageError: it is not there, or it refuses; says which.
    """
    from engine.wire.link import DirectoryLink
    from engine.wire.membership import Rejected, Report
    from engine.wire.security import ClientSecurity

    keys = None
    if settings.security.mode == "curve":
        keys = ClientSecurity.read(settings.security.keys_dir)
    endpoint = settings.cluster.directory or DIRECTORY
    end_s = time.monotonic() + ANSWER_MS / 1000
    with DirectoryLink(endpoint, keys) as link:
        while time.monotonic() < end_s:
            answer = link.ask(ask, ANSWER_MS)
            if isinstance(answer, Rejected):
                raise options.UsageError(f"{endpoint}: {answer.reason}")
            if isinstance(answer, Report):
                return answer.values
    raise options.UsageError(f"no directory at {endpoint}")


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
