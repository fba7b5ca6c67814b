"""A cluster on Ray: its parts as detached actors, which keep plain processes (extra ``cluster``).

Ray says where things run, starts them again and counts machines; no message and no score passes
through it, for an actor call costs 40 times a ZeroMQ message and a dead node is noticed seconds
late. Each actor holds one process of the kinds that run without Ray too.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

from engine.cluster.parts import host_spec, hub_specs, shares
from engine.processes import WorkerSpec
from engine.settings import EngineSettings
from engine.supervisor import POLL_S, Supervisor, SupervisorError
from models.errors import UserError

log = logging.getLogger(__name__)

NAMESPACE = "undertone"
LOCAL = "local"
HEALTH = {
    "health_check_initial_delay_ms": 5_000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 3,
}
"""Of a Ray that is started here: a dead node is noticed after some 3 s instead of 15."""
ATTEMPTS = 4
"""Ray's own patience with its start is 30 s, too little for a machine that is busy."""
READY_S = 60.0
HEAD_S = 2.0
"""Between two looks for Ray's head, and how long each waits."""


class RayError(UserError):
    """Ray is missing, or its cluster is not as it has to be; one line."""


class PartActor:
    """An actor: keeps one part of the cluster running as a process of its node.

    A restarted actor begins with a new process; the old one has ended with the old actor.
    """

    def __init__(self, spec: str, host: str = "") -> None:
        """``spec`` is a WorkerSpec as JSON; ``host`` the name that a host takes."""
        # Ray limits its children to one thread, and hides GPUs from those that asked for none.
        os.environ.pop("OMP_NUM_THREADS", None)
        if not os.environ.get("CUDA_VISIBLE_DEVICES", "none"):
            del os.environ["CUDA_VISIBLE_DEVICES"]
        made = WorkerSpec.model_validate_json(spec)
        if made.part is not None and made.part.role == "host":
            made = host_spec(_at_this_node(made.settings, host), made.part.workers)
        self._supervisor = Supervisor([made], lambda line: log.warning("%s", line))
        self._failure = ""
        threading.Thread(target=self._watch, name="actor", daemon=True).start()

    def _watch(self) -> None:
        over = threading.Event()
        while not over.wait(POLL_S):
            try:
                self._supervisor.poll()
            except SupervisorError as error:
                self._failure = str(error)
                return

    def describe(self) -> dict[str, Any]:
        """The process, its node, and why it cannot run, if it cannot."""
        ray = load()
        (view,) = self._supervisor.workers
        node = ray.get_runtime_context().get_node_id()
        return {"name": view.name, "pid": view.pid, "node": node, "failure": self._failure}

    def stop(self) -> None:
        """End the process."""
        self._supervisor.stop()


def load() -> Any:
    """Import Ray.

    Raises:
        RayError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise RayError(
            'a cluster on Ray needs Ray: pip install -e ".[cluster]" (undertone cluster '
            "runs one on this machine without it)"
        ) from None
    return ray


def _at_this_node(settings: EngineSettings, host: str) -> EngineSettings:
    ray = load()
    part = settings.cluster
    name = host or f"node-{ray.get_runtime_context().get_node_id()[:8]}"
    address = part.address
    if address != "127.0.0.1":
        address = ray.util.get_node_ip_address()
    update = {"host": name, "address": address}
    return settings.model_copy(update={"cluster": part.model_copy(update=update)})


def connect(address: str) -> Any:
    """Join a Ray cluster, or start one on this machine for ``local``.

    Raises:
        RayError: Ray is missing, or nothing answers there.
    """
    ray = load()
    # Ray itself would try for more than a minute.
    if address.rpartition(":")[2].isdecimal() and not _answers(address.removeprefix("ray://")):
        raise RayError(f"no Ray cluster at {address}: nothing answers there")
    started = (
        {"_system_config": dict(HEALTH), "include_dashboard": False} if address == LOCAL else {}
    )
    attempts = ATTEMPTS if address == LOCAL else 1
    for attempt in range(1, attempts + 1):
        try:
            # Without an address Ray follows a file that a former cluster may have left behind.
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, **started)
            break
        except Exception as error:  # Ray raises a dozen kinds, a bare Exception among them
            ray.shutdown()
            reason = " ".join(str(error).split())
            if attempt == attempts:
                raise RayError(f"no Ray cluster at {address}: {reason}") from None
            log.warning("Ray did not start, trying again: %s", reason)
    return ray


def start(address: str, settings: EngineSettings, workers: int, hosts: int) -> None:
    """Start the parts that are not there yet: directory and relays on this node, hosts anywhere.

    Raises:
        RayError: Ray is missing, has no room, or a part cannot run; says which.
    """
    ray = connect(address)
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actors = [_actor(ray, spec.name, spec, 0.0, here) for spec in hub_specs(settings)]
    for number, share in enumerate(shares(workers, hosts), 1):
        spec, name = host_spec(settings, share), f"host-{number}"
        # A name of its own, so that the streams of one host go to another machine's first.
        actors.append(_actor(ray, name, spec, float(share), "SPREAD", host=f"ray{number}"))
    ready, waiting = ray.wait(
        [actor.describe.remote() for actor in actors], num_returns=len(actors), timeout=READY_S
    )
    if waiting:
        raise RayError(
            f"Ray has started {len(ready)} of {len(actors)} parts within {READY_S:.0f} s; "
            f"{workers} workers need as many CPUs: ray status"
        )
    if address == LOCAL:
        return
    head = ray.get_runtime_context().gcs_address
    # Ray ends a connected process once the head is lost, and the captures would end with it.
    ray.shutdown()
    threading.Thread(target=watch_head, args=(head,), name="head", daemon=True).start()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), HEAD_S).close()
    except OSError:
        return False
    return True


def watch_head(address: str, over: threading.Event | None = None) -> None:
    """Say in the log when Ray's head (HOST:PORT) cannot be reached, and when it is back."""
    over = over or threading.Event()
    is_there = True
    while not over.wait(HEAD_S):
        was_there, is_there = is_there, _answers(address)
        if was_there and not is_there:
            log.warning(
                "Ray's head at %s is lost: what runs continues, nothing that ends is restarted "
                "(docs/scale.md, Ray)", address,
            )  # fmt: skip
        elif is_there and not was_there:
            log.warning("Ray's head at %s is back", address)


def _actor(
    ray: Any, name: str, spec: WorkerSpec, cpus: float, strategy: Any, host: str = ""
) -> Any:
    actor = ray.remote(PartActor).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=-1,
        num_cpus=cpus,
        scheduling_strategy=strategy,
    )
    return actor.remote(spec.model_dump_json(), host)


def stop(address: str) -> list[str]:
    """End every part of the cluster on a Ray cluster; return their names.

    Raises:
        RayError: Ray is missing, or nothing answers there.
    """
    ray = connect(address)
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)
             if actor["namespace"] == NAMESPACE]  # fmt: skip
    for name in names:
        actor = ray.get_actor(name, namespace=NAMESPACE)
        ray.wait([actor.stop.remote()], timeout=5.0)
        ray.kill(actor, no_restart=True)
    return names
