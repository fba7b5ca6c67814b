"""The inference worker: sockets, a loop and a clock around the service and the core."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import zmq

from engine.backends import select
from engine.backends.protocol import BackendError
from engine.inference.core import InferenceCore
from engine.inference.heap import Heap
from engine.inference.membership import Endpoints, Membership
from engine.inference.service import CommandError, InferenceService
from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.llm import speech_simulator
from engine.inference.text.recognition import ThreadedWords
from engine.inference.text.words import words_source
from engine.inference.warm_up import rehearse
from engine.pulse import Pulse
from engine.settings import EngineSettings
from engine.stop import Stop
from engine.wire.clock import now_ns, this_clock
from engine.wire.control import ControlServer, parse
from engine.wire.fields import WireError
from engine.wire.gate import Gate, start_gate
from engine.wire.ingest import IngestReceiver
from engine.wire.link import DirectoryLink
from engine.wire.messages import Clock
from engine.wire.scores import ScorePublisher
from engine.wire.security import ServerSecurity
from models import bundle as bundles

log = logging.getLogger(__name__)

MAX_WAIT_MS = 100
"""Longest sleep: a stop flag is noticed within it."""


def run_inference(settings: EngineSettings, stop: Stop, pulse: Pulse | None = None) -> None:
    """Run the inference worker in this process until ``stop`` is set.

    ``pulse`` beats with the loop, and with a thread of its own until the worker is ready.

    It publishes ``starting`` before the bundle is loaded and ``ready`` once every graph has
    run, so that the first window does not pay for the start.

    Raises:
        BundleError: the bundle is missing or damaged.
        BackendError: no backend can run it.
        WireError: an endpoint is in use, or there are no keys.
    """
    part = settings.cluster
    pulse = pulse or Pulse()
    with _security(settings) as (security, gate), contextlib.ExitStack() as sockets:
        relayed = part.directory is not None
        guard = gate if relayed and security is not None else None
        ingest = sockets.enter_context(IngestReceiver(settings.ingest, security, guard))
        scores = sockets.enter_context(
            ScorePublisher(None if relayed else settings.scores, security)
        )
        control = sockets.enter_context(ControlServer(settings.control, security))
        clock = this_clock()
        with pulse.starting():
            service = _open_service(settings, scores, clock, sockets)
        membership = None
        if part.directory is not None:
            keys = None if security is None else security.as_client()
            link = sockets.enter_context(DirectoryLink(part.directory, keys))
            endpoints = Endpoints(ingest.endpoint, control.endpoint)
            membership = Membership(link, part, endpoints, service, scores.connect, gate)
        service.set_state("ready")
        log.info("ready on %s", ingest.endpoint)
        try:
            _loop(service, ingest, scores, control, clock, stop, pulse, membership)
        finally:
            service.set_state("stopping")


def _open_service(
    settings: EngineSettings, scores: ScorePublisher, clock: Clock, closing: contextlib.ExitStack
) -> InferenceService:
    bundle = bundles.open(settings.bundle)
    choice = select.choose(settings.backend, bundle, settings.inference.threads, settings.tensorrt)
    for reason in choice.reasons:
        log.info("%s", reason)
    config = bundle.config
    reader = GivenTextEncoder(bundle, wait=False)
    closing.callback(reader.close)
    words = words_source(bundle, settings.words, reader, now_ns)
    if isinstance(words, ThreadedWords):
        closing.callback(words.close)
    core = InferenceCore(
        bundle,
        choice.backend,
        settings.inference,
        clock=clock,
        encode_text=reader,
        simulate_speech=speech_simulator(bundle, wait=False),
        words=words,
        words_settings=settings.words,
    )
    untrained = "" if config.trained else ", untrained"
    service = InferenceService(
        core,
        settings,
        clock,
        scores.publish,
        now=now_ns,
        memory_mb=resident_mb,
        detail=f"{config.name} {config.version}{untrained} on {core.model.backend}",
        forget=scores.forget,
    )
    service.set_state("starting")
    choice.backend.warm_up()
    rehearse(bundle, choice.backend)
    return service


def resident_mb() -> float:
    """Resident memory of this process."""
    return float(psutil.Process().memory_info().rss / 2**20)


def _loop(
    service: InferenceService,
    ingest: IngestReceiver,
    scores: ScorePublisher,
    control: ControlServer,
    clock: Clock,
    stop: Stop,
    pulse: Pulse,
    membership: Membership | None,
) -> None:
    poller = zmq.Poller()
    for socket in (ingest, scores, control):
        poller.register(socket.raw, zmq.POLLIN)
    if membership is not None:
        poller.register(membership.link.raw, zmq.POLLIN)
    answer = _answerer(service, clock)
    heap = Heap(resident_mb)
    rejected, busy = 0, False
    while not stop.is_set():
        pulse.beat()
        # Rounded up: a poll that ends just before the deadline would spin until it is reached.
        wait_ms = (service.wake_ns() - now_ns() + 999_999) // 1_000_000
        readable = dict(poller.poll(0 if busy else min(max(wait_ms, 0), MAX_WAIT_MS)))
        scores.greet()
        # Read until empty before scoring: what has arrived belongs into the window.
        if ingest.raw in readable:
            for message in ingest.receive():
                service.push(message, now_ns())
        malformed = sum(ingest.rejected.values())
        if malformed != rejected:
            service.count("messages_malformed", malformed - rejected)
            log.warning("refused a message: %s", ingest.last_fault)
            rejected = malformed
        if control.raw in readable:
            control.serve(answer)
        busy = step(service)
        heap.tidy()
        if membership is not None:
            membership.step()


def step(service: InferenceService) -> bool:
    """Score what is due now, then do a part of the work for later; True while more of it waits.

    Raises:
        RuntimeError: the backend failed. At the start that is the user's to mend; of one that
            has been running it is a crash, after which the supervisor starts another worker.
    """
    try:
        service.step(now_ns())
        return service.work_ahead()
    except BackendError as error:
        raise RuntimeError(f"the backend failed while running: {error}") from error


def _answerer(
    service: InferenceService, clock: Clock
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Make the function that carries out control requests."""

    def answer(values: Mapping[str, Any]) -> Mapping[str, Any]:
        received_ns = now_ns()
        request = parse(values)
        try:
            match request.command:
                case "describe":
                    return service.describe()
                case "ping":
                    return {
                        "t_ns": received_ns,
                        "clock": {"host": clock.host, "boot_id": clock.boot_id},
                    }
                case "pause":
                    service.pause()
                case "resume":
                    service.resume()
                case "mark":
                    return {"streams": service.mark(request.label, request.stream)}
                case "clock":
                    if request.clock is not None:
                        service.learn_clock(request.clock, request.offset_ns)
                case "release":
                    held = service.release(request.stream or "", request.epoch)
                    return {"t_end_ns": held.t_end_ns, "seq": held.seq}
        except CommandError as error:
            raise WireError(str(error)) from None
        return {"state": service.state}

    return answer


@contextlib.contextmanager
def _security(settings: EngineSettings) -> Iterator[tuple[ServerSecurity | None, Gate]]:
    """Start the allow-list before anything is bound; without security give None.

    In a cluster the directory says whose keys come in, through the gate.
    """
    if settings.security.mode == "off":
        yield None, Gate("")
        return
    security = ServerSecurity.read(settings.security.keys_dir)
    gate = Gate(security.public.decode())
    clustered = settings.cluster.directory is not None
    allowed = start_gate(gate) if clustered else security.start()
    try:
        yield security, gate
    finally:
        allowed.stop()
