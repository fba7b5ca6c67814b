"""``undertone cluster``: a whole cluster on this machine, and the commands that operate one."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import options
from engine.cli import session
from engine.options import Common, Inputs, Model, grouped

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

Directory = Annotated[
    str | None, typer.Option(help="Endpoint of the directory (tcp://127.0.0.1:5575).")
]
AllWorkers = Annotated[int, typer.Option(min=1, help="Inference workers of all hosts together.")]
OwnWorkers = Annotated[int, typer.Option(min=1, help="Inference workers on this machine.")]
Control = Annotated[
    str | None, typer.Option(help="Endpoint that answers requests about all streams.")
]


@dataclass(frozen=True)
class Place:
    """Where a cluster's parts are, and what one worker holds."""

    address: Annotated[
        str | None, typer.Option(help="Address at which captures reach this machine.")
    ] = None
    directory: Directory = None
    scores: Annotated[
        str | None, typer.Option(help="Endpoints of the relays, separated by commas.")
    ] = None

    def flags(self, **cluster: Any) -> dict[str, Any]:
        """Settings that were given, and more of the section ``cluster``."""
        directory = self.directory or DIRECTORY
        given = options.given(directory=directory, address=self.address, **cluster)
        return {"scores": self.scores or SCORES, "cluster": given}


@dataclass(frozen=True)
class Asking:
    """Whom a question goes to."""

    directory: Directory = None
    config: options.Config = None
    security: options.SecurityMode = None
    keys_dir: options.KeysDir = None

    def settings(self) -> EngineSettings:
        """Read the settings with these flags."""
        common = Common(self.config, self.security, self.keys_dir)
        return common.settings(cluster=options.given(directory=self.directory))


Capacity = Annotated[int | None, typer.Option(min=1, help="Streams that one worker holds.")]


@app.callback()
@grouped
def cluster(
    context: typer.Context,
    place: Place,
    model: Model,
    inputs: Inputs,
    common: Common,
    workers: AllWorkers = 2,
    hosts: Annotated[
        int, typer.Option(min=1, help="Hosts (simulated machines) that share the workers.")
    ] = 1,
    capacity: Capacity = None,
    control: Control = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Ray cluster to run on: an address, or local for a new one."),
    ] = None,
) -> None:
    """Run directory, relays, control endpoint, workers and the sources that ``run`` takes."""
    if context.invoked_subcommand is not None:
        return
    from engine.cluster.parts import local_specs
    from engine.processes import capture_specs

    flags = (
        place.flags(capacity=capacity)
        | options.given(control=control)
        | model.flags()
        | inputs.flags()
    )
    settings = inputs.with_devices(common.settings(**flags))
    if ray is not None:
        from engine.cluster.ray_pool import start

        start(ray, settings, workers, hosts)
        session(settings, capture_specs(settings))
        return
    session(settings, [*local_specs(settings, workers, hosts), *capture_specs(settings)])


@app.command()
@grouped
def hub(place: Place, common: Common, control: Control = None) -> None:
    """Run only directory, relays and control endpoint, for hosts and captures elsewhere."""
    from engine.cluster.parts import hub_specs

    settings = common.settings(**place.flags(), **options.given(control=control))
    print(f"directory {settings.cluster.directory}, scores {settings.scores}, "
          f"control {settings.control}", flush=True)  # fmt: skip
    session(settings, hub_specs(settings), shows_scores=False)


@app.command()
@grouped
def host(
    place: Place,
    model: Model,
    common: Common,
    workers: OwnWorkers = 2,
    name: Annotated[
        str | None, typer.Option(help="This machine's name within the cluster.")
    ] = None,
    capacity: Capacity = None,
) -> None:
    """Add this machine's workers to a cluster."""
    from engine.cluster.parts import host_spec

    flags = place.flags(host=name, capacity=capacity) | model.flags()
    settings = common.settings(**flags)
    part = settings.cluster
    print(f"host {part.host}: {workers} workers for {part.directory}", flush=True)
    session(settings, [host_spec(settings, workers)], shows_scores=False)


@app.command()
def stop(
    ray: Annotated[str, typer.Option("--ray", help="Address of the Ray cluster.")],
) -> None:
    """End the parts that cluster --ray left running on a Ray cluster."""
    from engine.cluster.ray_pool import stop as stop_parts

    print("ended: " + (", ".join(stop_parts(ray)) or "nothing"))


@app.command()
@grouped
def status(asking: Asking, as_json: options.Json = False) -> None:
    """Say which workers there are and what they hold."""
    from engine.wire.membership import Ask

    values = _ask(Ask("status"), asking.settings())
    for worker in values["workers"]:
        worker.pop("control", None)  # the router's own way to a worker; scripts have --control
    if as_json:
        print(json.dumps(values))
        return
    print(f"{'worker':<16} {'host':<12} {'pid':>7} {'state':<9} {'held':>4}  streams")
    for worker in values["workers"]:
        streams = " ".join(worker["streams"]) or "-"
        print(f"{worker['name']:<16} {worker['host']:<12} {worker['pid']:>7} "
              f"{worker['state']:<9} {len(worker['streams']):>4}  {streams}")  # fmt: skip
    for relay in values["relays"]:
        print(f"relay            {relay['endpoint']}  {relay['pid']}")
    known = values["directory"]
    print(f"directory        {known['pid']}, {known['streams']} streams, up {known['up_s']:.0f} s")
    if known["counters"]:
        counted = ", ".join(
            f"{name} {number}" for name, number in sorted(known["counters"].items())
        )
        print(f"counted          {counted}")


@app.command()
@grouped
def drain(
    asking: Asking,
    worker: Annotated[str, typer.Argument(help="Name of the worker, as status prints it.")],
) -> None:
    """Move a worker's streams to the others, and end it."""
    from engine.wire.membership import Ask

    values = _ask(Ask("drain", worker=worker), asking.settings())
    print(f"{worker}: streams that move away: {values['streams']}")


@app.command()
@grouped
def upgrade(
    asking: Asking,
    bundle: Annotated[str, typer.Argument(help="Bundle: a name or a directory.")],
) -> None:
    """Start workers with another bundle, then move the streams to them and end the old ones."""
    from engine.wire.membership import Ask
    from models import bundle as bundles

    opened = bundles.open(bundle)
    where = str(Path(bundle).resolve()) if Path(bundle).exists() else bundle
    values = _ask(Ask("upgrade", bundle=where), asking.settings())
    print(f"{opened.config.name} {opened.config.version} ({opened.sha256[:12]}): generation "
          f"{values['generation']} starts on {', '.join(values['hosts'])}")  # fmt: skip


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
