"""What the live benchmarks share: a worker, a load generator and a subscriber as processes.

The generator reads one clip beforehand and replays it as any number of streams, each message
at the moment its last sample would have been captured. A clip is cut where its sound and its
pictures end together, so that it begins again as a microphone and a camera go on: without a gap.
Everything goes over real sockets.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import psutil
import zmq
from msgspec.structs import replace

from engine.processes import WorkerProcess, WorkerSpec
from engine.settings import EngineSettings, load
from engine.wire.messages import Audio, Clock, Envelope, Score, Status, Video

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE = REPOSITORY / "engine" / "samples" / "sample.mp4"
NOISE = Path("noise")
MS = 1_000_000
LAP_NS = 50 * MS
"""Of sound per message, or a whole number of them."""
SPAWN = multiprocessing.get_context("spawn")
START_TIMEOUT_S = 60.0
P, T = ParamSpec("P"), TypeVar("T")
STAGES = ("transport", "wait", "encode", "fuse", "publish", "total")


@dataclass
class Run:
    """What one run with a number of streams gave."""

    streams: int
    seconds: float
    stages_ms: dict[str, np.ndarray] = field(default_factory=dict)
    scores: int = 0
    expected: int = 0
    windows_dropped: int = 0
    messages_lost: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    """The worker's last word of what it counted."""
    unsent: int = 0
    cpu_share: float = 0.0
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    first_score_s: float = 0.0
    trained: bool = False
    backend: str = ""


def in_a_worker(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a process of its own that has the environment of a worker that infers."""
    before = dict(os.environ)
    os.environ.update(WorkerSpec(settings=EngineSettings()).environment | before)
    try:
        with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
            return pool.submit(function, *args, **kwargs).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def default_clip() -> Path:
    """Return the sample clip, or a real one from next to the repository, or noise."""
    if SAMPLE.is_file():
        return SAMPLE
    clips = sorted((REPOSITORY.parent / "shared" / "data" / "clips").glob("vlog_*"))
    return clips[0] if clips else NOISE


def read_messages(clip: str, settings: EngineSettings) -> list[Audio | Video]:
    """Read a clip's messages; the clip named ``noise`` is 8 s of noise, voiced, with a face."""
    if clip != str(NOISE):
        from engine.capture.clip import read_clip

        return [m for m in read_clip(Path(clip), settings) if isinstance(m, Audio | Video)]
    rng = np.random.default_rng(0)
    here = Clock("noise", "noise")
    sound = [
        Audio(
            Envelope("noise", i, i * 40 * MS, (i + 1) * 40 * MS, 0, here),
            rng.integers(-6_000, 6_000, 640).astype(np.int16),
            (True, True),
            20,
            -20.0,
        )
        for i in range(200)
    ]
    faces = [
        Video(
            Envelope("noise", i, i * 100 * MS, (i + 1) * 100 * MS, 0, here),
            1,
            rng.integers(0, 255, (112, 112, 3)).astype(np.uint8),
        )
        for i in range(80)
    ]
    return [*sound, *faces]


def looped(messages: list[Audio | Video]) -> tuple[list[Audio | Video], int]:
    """The messages of one lap, from time 0, and its length in ns.

    A lap is a whole number of LAP_NS, the one of the last second after which the first picture
    comes most nearly one period after the last.
    """
    begin_ns = min(message.envelope.t_start_ns for message in messages)
    moved = [_moved(message, -begin_ns) for message in messages]
    shown = [m.envelope.t_end_ns for m in moved if isinstance(m, Video)]
    heard = [m.envelope.t_end_ns for m in moved if isinstance(m, Audio)]
    longest_ns = min(ends[-1] for ends in (shown, heard) if ends) // LAP_NS * LAP_NS
    first_ns = shown[0] if shown else 0
    period_ns = float(np.median(np.diff(shown))) if len(shown) > 1 else 0.0

    def joint_ns(length_ns: int) -> float:
        before = [t_end_ns for t_end_ns in shown if t_end_ns < length_ns + first_ns]
        return abs(length_ns + first_ns - before[-1] - period_ns) if before else 0.0

    fewest_ns = max(LAP_NS, longest_ns - 1000 * MS)
    length_ns = min(range(longest_ns, fewest_ns - 1, -LAP_NS), key=joint_ns)
    kept = [
        message
        for message in moved
        if message.envelope.t_end_ns <= length_ns
        and (isinstance(message, Audio) or message.envelope.t_end_ns < length_ns + first_ns)
    ]
    return kept, length_ns


def _moved(message: Audio | Video, by_ns: int) -> Audio | Video:
    envelope = message.envelope
    return replace(
        message,
        envelope=replace(
            envelope,
            t_start_ns=envelope.t_start_ns + by_ns,
            t_end_ns=envelope.t_end_ns + by_ns,
        ),
    )


def silent(message: Audio | Video) -> Audio | Video:
    """The same message of somebody who says nothing."""
    if isinstance(message, Video):
        return message
    flags = (False,) * len(message.speech)
    return replace(message, samples=message.samples * 0, speech=flags, level_dbfs=-120.0)


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def local_settings(**flags: object) -> EngineSettings:
    """Return settings with endpoints that are free now."""
    return load(ingest=free_endpoint(), scores=free_endpoint(), control=free_endpoint(), **flags)


def replay(
    settings: EngineSettings, clip: str, streams: int, seconds: float, speaking: float = 1.0
) -> Iterator[tuple[int, Audio | Video]]:
    """``clip`` as ``streams`` streams in real time, beginning at staggered moments.

    Each message comes with its stream's number when it is due. A share of the streams is
    ``speaking``, evenly spread; the others are seen and say nothing.
    """
    from engine.wire.clock import this_clock

    messages, length_ns = looped(read_messages(clip, settings))
    quiet = [silent(message) for message in messages]
    talks = [int((index + 1) * speaking) > int(index * speaking) for index in range(streams)]
    clock = this_clock()
    start_ns = time.monotonic_ns() + 200_000_000
    phase = [index * 500_000_000 // streams for index in range(streams)]
    plan = sorted(
        (message.envelope.t_end_ns + phase[index], index, number)
        for number, message in enumerate(messages)
        for index in range(streams)
    )
    seqs: dict[tuple[int, type], int] = {}
    lap = 0
    while True:
        for offset_ns, index, number in plan:
            message = messages[number] if talks[index] else quiet[number]
            due_ns = start_ns + lap * length_ns + offset_ns
            if due_ns - start_ns > seconds * 1e9:
                return
            while (wait_ns := due_ns - time.monotonic_ns()) > 0:
                time.sleep(wait_ns / 1e9)
            key = (index, type(message))
            seqs[key] = seqs.get(key, -1) + 1
            span_ns = message.envelope.t_end_ns - message.envelope.t_start_ns
            envelope = Envelope(
                f"load{index}", seqs[key], due_ns - span_ns, due_ns, time.monotonic_ns(), clock
            )
            yield index, replace(message, envelope=envelope)
        lap += 1


def generate(
    settings: EngineSettings,
    clip: str,
    streams: int,
    seconds: float,
    unsent: object,
    speaking: float = 1.0,
) -> None:
    """Send the streams of ``replay`` to one worker."""
    from engine.wire.codec import encode

    push = zmq.Context.instance().socket(zmq.PUSH)
    push.setsockopt(zmq.LINGER, 0)
    push.setsockopt(zmq.IMMEDIATE, 1)
    push.setsockopt(zmq.SNDHWM, 1000)
    push.connect(settings.ingest)
    push.poll(5000, zmq.POLLOUT)
    dropped = 0
    for _, message in replay(settings, clip, streams, seconds, speaking):
        try:
            push.send_multipart(encode(message), zmq.DONTWAIT, copy=False)
        except zmq.Again:
            dropped += 1
    unsent.value = dropped  # type: ignore[attr-defined]
    push.close()


@contextmanager
def worker_process(settings: EngineSettings) -> Iterator[WorkerProcess]:
    """The inference worker as the supervisor starts it: its environment is that of a user."""
    worker = WorkerProcess(WorkerSpec(settings=settings), lambda line: print(line, file=sys.stderr))
    try:
        yield worker
    finally:
        worker.stop()
        end = time.monotonic() + 5.0
        while worker.ended() is None and time.monotonic() < end:
            time.sleep(0.02)
        worker.kill()


def subscribe(settings: EngineSettings) -> zmq.Socket[bytes]:
    sub = zmq.Context.instance().socket(zmq.SUB)
    sub.setsockopt(zmq.LINGER, 0)
    sub.setsockopt(zmq.RCVHWM, 100_000)
    sub.setsockopt(zmq.SUBSCRIBE, b"")
    sub.connect(settings.scores)
    return sub


def measure(
    clip: Path, streams: int, seconds: float, speaking: float = 1.0, **flags: object
) -> Run:
    """Run ``streams`` streams for ``seconds`` and return what a subscriber saw.

    Args:
        clip: what each stream plays.
        streams: how many.
        seconds: length of the run.
        speaking: share of the streams that say anything.
        flags: settings of the engine.

    Raises:
        SystemExit: the worker ended, or no score came.
    """
    from engine.wire.codec import decode

    settings = local_settings(**flags)
    run = Run(streams, seconds)
    columns: dict[str, list[float]] = {stage: [] for stage in STAGES}
    started = time.monotonic()
    with worker_process(settings) as worker:
        sub = subscribe(settings)
        wait_ready(sub, worker)
        watched = psutil.Process(worker.pid)
        unsent = SPAWN.Value("i", 0)
        load_args = (settings, str(clip), streams, seconds, unsent, speaking)
        generator = SPAWN.Process(target=generate, args=load_args)
        generator.start()
        cpu_s, since, first = 0.0, 0.0, 0.0
        end = time.monotonic() + START_TIMEOUT_S + seconds
        while time.monotonic() < end and (generator.is_alive() or sub.poll(1500)):
            if not sub.poll(100):
                continue
            frames = sub.recv_multipart()
            received_ns = time.monotonic_ns()
            message = decode(frames)
            if isinstance(message, Status):
                if message.worker == "inference":
                    run.counters = message.counters
                run.windows_dropped = message.counters.get("windows_dropped", 0)
                run.messages_lost = message.counters.get("messages_lost", 0)
                run.memory_mb.append((time.monotonic() - started, _rss_mb(watched)))
            if not isinstance(message, Score):
                continue
            if not first:
                first = since = time.monotonic()
                cpu_s = sum(watched.cpu_times()[:2])
                run.trained, run.backend = message.model.trained, message.model.backend
            if not generator.is_alive():
                break
            run.scores += 1
            publish_ms = (received_ns - message.envelope.t_sent_ns) / 1e6
            stages = message.latency_ms
            for stage in ("transport", "wait", "encode", "fuse"):
                columns[stage].append(getattr(stages, stage))
            columns["publish"].append(publish_ms)
            columns["total"].append(stages.total + publish_ms)
            run.cpu_share = (sum(watched.cpu_times()[:2]) - cpu_s) / max(
                time.monotonic() - since, 1e-9
            )
        generator.join(5)
        run.unsent = unsent.value
        sub.close()
    if not run.scores:
        raise SystemExit(f"no score came from {streams} streams within {seconds:.0f} s")
    hop_s = settings.inference.hop_ms / 1000.0
    run.expected = streams * int((seconds - 1.0) / hop_s)
    run.stages_ms = {stage: np.array(values) for stage, values in columns.items()}
    return run


def wait_ready(sub: zmq.Socket[bytes], worker: WorkerProcess) -> None:
    """Wait until the worker says that it is ready.

    Raises:
        SystemExit: it ended, or did not get ready in time.
    """
    from engine.wire.codec import decode

    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if (over := worker.ended()) is not None:
            raise SystemExit(f"the worker ended with code {over.code}: {over.message}")
        if sub.poll(200):
            message = decode(sub.recv_multipart())
            if isinstance(message, Status) and message.state in ("ready", "running"):
                return
    raise SystemExit(f"the worker was not ready within {START_TIMEOUT_S:.0f} s")


def _rss_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)
