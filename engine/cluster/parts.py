"""A cluster's own processes: which there are on one machine, and what each of them runs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

from engine.processes import Part, WorkerSpec
from engine.settings import EngineSettings
from engine.wire.fields import WireError
from engine.wire.gate import Gate, start_gate
from engine.wire.security import ServerSecurity


def hub_specs(settings: EngineSettings) -> list[WorkerSpec]:
    """The directory, the control router, and one relay for each endpoint in ``settings.scores``."""
    parts = [Part(role="directory", name="directory"), Part(role="control", name="control")]
    for number, endpoint in enumerate(settings.scores.split(","), 1):
        intake = free_endpoint(settings.cluster.address)
        parts.append(Part(role="relay", name=f"relay-{number}", intake=intake, scores=endpoint))
    return [WorkerSpec(settings=settings, part=part) for part in parts]


def local_specs(settings: EngineSettings, workers: int, hosts: int) -> list[WorkerSpec]:
    """The directory, the relays and the hosts with their workers; ``settings.cluster`` is set."""
    specs = hub_specs(settings)
    for number, share in enumerate(shares(workers, hosts), 1):
        name = settings.cluster.host if hosts == 1 else f"{settings.cluster.host}{number}"
        own = settings.cluster.model_copy(update={"host": name})
        specs.append(host_spec(settings.model_copy(update={"cluster": own}), share))
    return specs


def shares(workers: int, hosts: int) -> list[int]:
    """Workers of each host, as even as can be."""
    return [workers // hosts + (number < workers % hosts) for number in range(hosts)]


def host_spec(settings: EngineSettings, workers: int) -> WorkerSpec:
    """A host with its workers."""
    part = Part(role="host", name=f"host-{settings.cluster.host}", workers=workers)
    return WorkerSpec(settings=settings, part=part)


def free_endpoint(address: str) -> str:
    """An endpoint at this address that is free now; a process that is restarted gets the same.

    Raises:
        WireError: the address is none of this machine's.
    """
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise WireError(f"cluster.address {address}: {error.strerror or error}") from None
        return f"tcp://{address}:{probe.getsockname()[1]}"


def run_part(
    part: Part, settings: EngineSettings, stopped: Callable[[], bool], beat: Callable[[], None]
) -> None:
    """Run one of them in this process until ``stopped``; ``beat`` is called at every turn.

    Raises:
        WireError: an endpoint is in use, or there are no keys.
        SupervisorError: a host's workers cannot start, for a user's mistake.
    """
    directory = settings.cluster.directory
    if directory is None:
        raise WireError("cluster.directory: expected an endpoint, got none")

    def over() -> bool:
        beat()
        return stopped()

    if part.role == "host":
        from engine.cluster.host import run_host

        run_host(settings, part.workers, over)
        return
    with guarded(settings) as security:
        if part.role == "directory":
            from engine.cluster.directory import run_directory

            run_directory(directory, over, security)
        elif part.role == "control":
            from engine.cluster.control import run_control

            run_control(settings, directory, over, security)
        else:
            from engine.cluster.relay import run_relay

            run_relay(part.name, part.intake, part.scores, directory, over, security)


@contextlib.contextmanager
def guarded(settings: EngineSettings) -> Iterator[ServerSecurity | None]:
    """Let in the pool's own key and the clients of the allow-list; without security, everybody."""
    if settings.security.mode == "off":
        yield None
        return
    security = ServerSecurity.read(settings.security.keys_dir)
    authenticator = start_gate(Gate(security.public.decode(), security.allowed))
    try:
        yield security
    finally:
        authenticator.stop()
