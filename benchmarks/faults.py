"""What faults and strangers cost a real engine: ``python benchmarks/faults.py [--only flood]``.

Every row starts from a healthy engine that plays the sample clip, hurts it for some seconds, and
says how long the honest stream was silent, which processes had to be replaced, and the worker's
memory before and after. The engine is started as a user starts it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
import typer
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.harness import SAMPLE, free_endpoint
from clients.events import Event
from clients.subscriber import Subscriber
from engine.wire.clock import now_ns, this_clock
from engine.wire.codec import encode
from engine.wire.messages import Audio, Envelope, Message, Score, Video
from tests.support.proxy import Proxy
from tests.support.strangers import MORE, Stranger, frame

REPOSITORY = Path(__file__).resolve().parents[1]
READY_S = 90.0
LOADED_S = 5.0
"""The recogniser is loaded beside the first scores."""
SETTLE_S = 8.0
"""After a fault: time in which the engine has to be as before."""
MB = 1024 * 1024


class Honest:
    """An honest subscriber: when fresh scores of the engine's own stream came."""

    def __init__(self, endpoint: str) -> None:
        self.times: list[float] = []
        self.others = 0
        self._over = threading.Event()
        self._subscriber = Subscriber(endpoint)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            for event in self._subscriber.poll(50):
                self._take(event)
        self._subscriber.close()

    def _take(self, event: Event) -> None:
        if isinstance(event, Score) and not event.envelope.repeated:
            if event.envelope.stream == "main":
                self.times.append(time.monotonic())
            else:
                self.others += 1

    def silence_s(self, since_s: float) -> float:
        """Longest time between two scores since then, up to now."""
        times = [since_s, *(t for t in self.times if t > since_s), time.monotonic()]
        return float(np.diff(times).max())

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@dataclass
class Engine:
    """A running ``python -m engine`` with the sample clip, and its honest subscriber."""

    process: subprocess.Popen[bytes]
    ingest: str
    scores: str
    control: str
    honest: Honest = field(init=False)

    def __post_init__(self) -> None:
        self.honest = Honest(self.scores)

    def children(self) -> list[psutil.Process]:
        """The inference worker, then the captures, by age."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children()
            return sorted(found, key=lambda child: child.create_time())
        return []

    def memory_mb(self) -> float:
        """Of the inference worker."""
        sizes = []
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(child.memory_info().rss / MB)
        return max(sizes, default=0.0)

    def wait_until_scoring(self) -> None:
        """Wait for three scores in a row."""
        end_s, seen = time.monotonic() + READY_S, len(self.honest.times)
        while len(self.honest.times) < seen + 3:
            if time.monotonic() > end_s or self.process.poll() is not None:
                raise SystemExit("the engine does not score")
            time.sleep(0.05)


@contextlib.contextmanager
def engine(*options: str, **pipes: int) -> Iterator[Engine]:
    ends = [free_endpoint() for _ in range(3)]
    command = [sys.executable, "-m", "engine", *(options or ("--source", "sample"))]
    command += ["--hop-ms", "200", "--ingest", ends[0], "--scores", ends[1], "--control", ends[2]]
    pipes = pipes or {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=REPOSITORY, **pipes)  # type: ignore[call-overload]
    running = Engine(process, *ends)
    try:
        running.wait_until_scoring()
        yield running
    finally:
        running.honest.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@dataclass
class Row:
    fault: str
    silence_s: float
    replaced: int
    before_mb: float
    after_mb: float
    note: str = ""


FAULTS: dict[str, Callable[[Engine, float], str]] = {}


def fault(name: str) -> Callable[[Callable[[Engine, float], str]], Callable[[Engine, float], str]]:
    def add(hurt: Callable[[Engine, float], str]) -> Callable[[Engine, float], str]:
        FAULTS[name] = hurt
        return hurt

    return add


def pour(endpoint: str, kind: str, data: bytes, seconds: float) -> str:
    """A stranger who sends the same bytes again and again, and comes back when cut."""
    end_s, sent, visits = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), Stranger(endpoint, kind) as stranger:
            visits += 1
            sent += stranger.pour(data, end_s - time.monotonic())
    return f"{sent / MB:.1f} MB in {visits} connections"


@fault("nothing")
def nothing(engine: Engine, seconds: float) -> str:
    time.sleep(seconds)
    return "for comparison"


@fault("200 subscribers")
def subscribers(engine: Engine, seconds: float) -> str:
    context = zmq.Context()
    context.setsockopt(zmq.MAX_SOCKETS, 1024)
    sockets = []
    for _ in range(200):
        socket_ = context.socket(zmq.SUB)
        socket_.setsockopt(zmq.LINGER, 0)
        socket_.subscribe(b"score/")
        socket_.connect(engine.scores)
        sockets.append(socket_)
    time.sleep(seconds)
    heard = sum(bool(socket_.poll(0)) for socket_ in sockets)
    context.destroy(0)
    return f"{heard} of 200 heard"


@fault("flood of subscriptions")
def flood(engine: Engine, seconds: float) -> str:
    heap = b"".join(frame(b"\x01" + b"%d/" % number) for number in range(200_000))
    return pour(engine.scores, "SUB", heap, seconds)


@fault("subscribed and unsubscribed")
def churn(engine: Engine, seconds: float) -> str:
    data = (frame(b"\x01score/") + frame(b"\x00score/")) * 1000
    return pour(engine.scores, "SUB", data, seconds)


@fault("prefixes of 8 MB")
def prefixes(engine: Engine, seconds: float) -> str:
    return pour(engine.scores, "SUB", frame(b"\x01" + bytes(8 * MB)), seconds)


@fault("endless parts on scores")
def parts_scores(engine: Engine, seconds: float) -> str:
    return pour(engine.scores, "SUB", frame(b"\x01" + bytes(4000), MORE), seconds)


@fault("endless parts on ingest")
def parts_ingest(engine: Engine, seconds: float) -> str:
    return pour(engine.ingest, "PUSH", frame(bytes(MB // 2), MORE), seconds)


@fault("endless parts on control")
def parts_control(engine: Engine, seconds: float) -> str:
    return pour(engine.control, "REQ", frame(bytes(4000), MORE), seconds)


@fault("flood of describe")
def describe(engine: Engine, seconds: float) -> str:
    request = frame(b"", MORE) + frame(b"\x81\xa7command\xa8describe")
    threads = [
        threading.Thread(target=pour, args=(engine.control, "DEALER", request * 10_000, seconds))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "ten peers"


@fault("malformed messages")
def malformed(engine: Engine, seconds: float) -> str:
    data = (frame(b"audio/x/", MORE) + frame(os.urandom(200))) * 1000
    return pour(engine.ingest, "PUSH", data, seconds)


@fault("valid sound of 2000 strangers")
def strangers(engine: Engine, seconds: float) -> str:
    end_s, sent = time.monotonic() + seconds, 0
    samples, clock = np.zeros(800, np.int16), this_clock()
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), Stranger(engine.ingest, "PUSH") as stranger:
            while time.monotonic() < end_s:
                now = now_ns()
                envelope = Envelope(f"x{sent % 2000}", sent, now - 50_000_000, now, now, clock)
                frames = encode(Audio(envelope, samples, (False,) * 5, 10, -120.0))
                pieces = [frame(bytes(part), MORE) for part in frames[:-1]]
                stranger.socket.sendall(b"".join(pieces) + frame(bytes(frames[-1])))
                sent += 1
    return f"{sent} messages"


def send_on(engine: Engine, seconds: float, message: Callable[[int], Message]) -> str:
    """Send the messages of numbers 0, 1, ... as fast as the engine takes them."""
    push = zmq.Context.instance().socket(zmq.PUSH)
    push.setsockopt(zmq.LINGER, 0)
    push.setsockopt(zmq.SNDHWM, 5)
    push.connect(engine.ingest)
    end_s, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        push.send_multipart(encode(message(sent)))
        sent += 1
    push.close()
    return f"{sent} messages"


@fault("pictures of noise")
def pictures(engine: Engine, seconds: float) -> str:
    crop = np.random.default_rng(0).integers(0, 255, (512, 512, 3)).astype(np.uint8)
    clock = this_clock()

    def picture(number: int) -> Video:
        now = now_ns()
        envelope = Envelope(f"noise{number % 8}", number, now, now, now, clock)
        return Video(envelope, faces=1, crop=crop, detector_score=0.9)

    return send_on(engine, seconds, picture)


@fault("sound faster than spoken")
def fast_sound(engine: Engine, seconds: float) -> str:
    samples = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    clock, begin = this_clock(), now_ns() - 50_000_000_000

    def second(number: int) -> Audio:
        # 50 s of the past again and again, each time of four new streams.
        turn, step = divmod(number // 4, 50)
        start = begin + step * 1_000_000_000
        name = f"fast{turn % 200}-{number % 4}"
        envelope = Envelope(name, step, start, start + 1_000_000_000, now_ns(), clock)
        return Audio(envelope, samples, (True,) * 100, 10, -20.0)

    return send_on(engine, seconds, second)


@fault("300 idle connections each")
def idle(engine: Engine, seconds: float) -> str:
    with contextlib.ExitStack() as stack:
        for endpoint in (engine.scores, engine.ingest, engine.control):
            for _ in range(300):
                with contextlib.suppress(OSError):
                    stack.enter_context(Stranger(endpoint, "SUB", greet=False))
        time.sleep(seconds)
    return "scores, ingest and control"


def through_link(engine: Engine, delay_s: float, hurt: Callable[[Proxy], None]) -> str:
    """A subscriber behind a link of its own: how long it heard nothing after ``hurt``."""
    with Proxy(engine.scores, delay_s) as proxy:
        behind = Honest(proxy.endpoint)
        end_s = time.monotonic() + READY_S
        while len(behind.times) < 3 and time.monotonic() < end_s:
            time.sleep(0.05)
        start_s = time.monotonic()
        hurt(proxy)
        time.sleep(SETTLE_S)
        silence_s = behind.silence_s(start_s)
        behind.close()
    return f"behind the link: silent for {silence_s:.1f} s"


@fault("black hole")
def black_hole(engine: Engine, seconds: float) -> str:
    return through_link(engine, 0.0, Proxy.swallow)


@fault("link cut")
def link_cut(engine: Engine, seconds: float) -> str:
    return through_link(engine, 0.0, Proxy.cut)


@fault("link paused for 4 s")
def link_paused(engine: Engine, seconds: float) -> str:
    def pause(proxy: Proxy) -> None:
        proxy.pause()
        time.sleep(4)
        proxy.resume()

    return through_link(engine, 0.0, pause)


@fault("link of +300 ms")
def link_slow(engine: Engine, seconds: float) -> str:
    return through_link(engine, 0.3, lambda proxy: None)


@fault("worker killed")
def worker_killed(engine: Engine, seconds: float) -> str:
    engine.children()[0].kill()
    return ""


@fault("worker stopped (SIGSTOP)")
def worker_stopped(engine: Engine, seconds: float) -> str:
    engine.children()[0].suspend()
    return ""


@fault("capture killed")
def capture_killed(engine: Engine, seconds: float) -> str:
    engine.children()[-1].kill()
    return ""


@fault("capture stopped (SIGSTOP)")
def capture_stopped(engine: Engine, seconds: float) -> str:
    engine.children()[-1].suspend()
    return ""


@fault("all of it stopped for 5 s")
def all_stopped(engine: Engine, seconds: float) -> str:
    os.kill(engine.process.pid, signal.SIGTSTP)
    time.sleep(5)
    os.kill(engine.process.pid, signal.SIGCONT)
    return "Ctrl-Z, fg"


@fault("short streams")
def short_streams(engine: Engine, seconds: float) -> str:
    count = int(os.environ.get("SHORT_STREAMS", "5000"))
    push = zmq.Context.instance().socket(zmq.PUSH)
    push.setsockopt(zmq.LINGER, 0)
    push.connect(engine.ingest)
    clock, sent = this_clock(), 0
    rng = np.random.default_rng(0)
    largest, at_once = 0.0, 50
    while sent < count:
        for step in range(20):  # a second of sound each
            samples = rng.integers(-6000, 6000, 800).astype(np.int16)
            for number in range(sent, sent + at_once):
                now = now_ns()
                envelope = Envelope(f"short{number}", step, now - 50_000_000, now, now, clock)
                push.send_multipart(encode(Audio(envelope, samples, (True,) * 5, 10, -20.0)))
            time.sleep(0.05)
        sent += at_once
        largest = max(largest, engine.memory_mb())
    push.close()
    return f"{count} streams of 1 s, {at_once} at once: at most {largest:.0f} MB"


def measure(name: str, seconds: float) -> Row:
    """Hurt a healthy engine and see how it is afterwards."""
    with engine() as running:
        time.sleep(LOADED_S)
        before_mb, pids = running.memory_mb(), {child.pid for child in running.children()}
        start_s = time.monotonic()
        note = FAULTS[name](running, seconds)
        time.sleep(SETTLE_S)
        silence_s = running.honest.silence_s(start_s)
        replaced = len(pids - {child.pid for child in running.children()})
        return Row(name, silence_s, replaced, before_mb, running.memory_mb(), note)


def unread_terminal() -> Row:
    """A full pipe that nobody reads: the worker is killed, then the engine is asked to end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(65536))
    os.set_blocking(write, True)
    with engine(stdout=write, stderr=write) as running:
        before_mb = running.memory_mb()
        start_s = time.monotonic()
        running.children()[0].kill()
        running.wait_until_scoring()
        silence_s = running.honest.silence_s(start_s)
        after_mb = running.memory_mb()
        asked_s = time.monotonic()
        running.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(20)
        note = f"worker killed; SIGTERM obeyed in {time.monotonic() - asked_s:.1f} s"
    os.close(read)
    os.close(write)
    return Row("unread terminal", silence_s, 1, before_mb, after_mb, note)


def clip_gone() -> Row:
    """One of two clips is deleted while it plays: the other one's scores go on."""
    with tempfile.TemporaryDirectory() as folder:
        clip = shutil.copy(SAMPLE, Path(folder) / "gone.mp4")
        options = ("--stream", "main=sample", "--stream", f"gone={clip}")
        with engine(*options) as running:
            before_mb, pids = running.memory_mb(), {c.pid for c in running.children()}
            start_s = time.monotonic()
            Path(clip).write_bytes(Path(clip).read_bytes()[:1000])
            time.sleep(2)
            Path(clip).unlink()
            others = 0
            end_s = time.monotonic() + 60
            while time.monotonic() < end_s:  # until its last pass has ended
                others = running.honest.others
                time.sleep(3)
                if running.honest.others == others:
                    break
            left = len({child.pid for child in running.children()} & pids)
            note = f"{len(pids)} processes before, {left} of them after"
            return Row(
                "clip cut and deleted",
                running.honest.silence_s(start_s),
                0,
                before_mb,
                running.memory_mb(),
                note,
            )


def disk_full() -> Row | str:
    """A recorder on a full disk ends with one line; the engine does not notice."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return "disk full: skipped, a small tmpfs needs root"
        try:
            with engine() as running:
                before_mb, start_s = running.memory_mb(), time.monotonic()
                command = [sys.executable, "-m", "clients", "record", "--scores", running.scores]
                done = subprocess.run(
                    [*command, "--out", f"{folder}/x.jsonl"],
                    cwd=REPOSITORY,
                    capture_output=True,
                    text=True,
                    timeout=180,
                    check=False,
                )
                return Row(
                    "disk full",
                    running.honest.silence_s(start_s),
                    0,
                    before_mb,
                    running.memory_mb(),
                    f"recorder: code {done.returncode}, {done.stderr.splitlines()[-1][-60:]}",
                )
        finally:
            subprocess.run(["umount", folder], check=False)


def killed_supervisor() -> Row:
    """The supervisor is killed while its worker is frozen: nobody stays."""
    with engine() as running:
        before_mb, children = running.memory_mb(), running.children()
        children[0].suspend()
        start_s = time.monotonic()
        running.process.kill()
        _, alive = psutil.wait_procs(children, timeout=10)
        note = f"{len(alive)} processes left after {time.monotonic() - start_s:.1f} s"
        return Row("supervisor killed, worker frozen", 0.0, 0, before_mb, 0.0, note)


def strangers_in_turn() -> Row:
    """One engine and every stranger, one after another: what is left of their memory."""
    with engine() as running:
        time.sleep(LOADED_S)
        before_mb, pids = running.memory_mb(), {child.pid for child in running.children()}
        start_s = time.monotonic()
        for name in STRANGERS:
            FAULTS[name](running, TURN_S)
        time.sleep(FORGOTTEN_S)
        return Row(
            "all strangers in turn",
            running.honest.silence_s(start_s),
            len(pids - {child.pid for child in running.children()}),
            before_mb,
            running.memory_mb(),
            f"{len(STRANGERS)} kinds, {TURN_S:g} s of each",
        )


def recorder_hour() -> Row:
    """Simulated: the rows of an hour of 64 streams, in Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RECORDER_HOUR, f"{folder}/hour.parquet"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        before_mb, largest_mb, rows = map(float, done.stdout.split())
        note = f"a recorder's memory, {rows:.0f} rows of 64 streams"
        return Row("hour of 64 streams", 0.0, 0, before_mb, largest_mb, note)


STRANGERS = (
    "200 subscribers",
    "flood of subscriptions",
    "subscribed and unsubscribed",
    "prefixes of 8 MB",
    "endless parts on scores",
    "endless parts on ingest",
    "endless parts on control",
    "flood of describe",
    "malformed messages",
    "valid sound of 2000 strangers",
    "300 idle connections each",
)
TURN_S = 5.0
FORGOTTEN_S = 45.0
"""Streams are forgotten after 30 s without a message."""
RECORDER_HOUR = """
import resource, sys
from pathlib import Path
import psutil
from clients.record import new_recording
from engine.wire.rows import row_of
from tests.support.stage import score
recording, rows = new_recording(Path(sys.argv[1])), 0
print(psutil.Process().memory_info().rss / 2**20)
for hop in range(7200):
    for stream in range(64):
        recording.write(row_of(score(f"s{stream}", 0, hop, hop * 500_000_000, None)))
        rows += 1
    recording.tick()
recording.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, rows)
"""


OTHERS: dict[str, Callable[[], Row | str]] = {
    "all strangers in turn": strangers_in_turn,
    "hour of 64 streams": recorder_hour,
    "unread terminal": unread_terminal,
    "clip cut and deleted": clip_gone,
    "disk full": disk_full,
    "supervisor killed, worker frozen": killed_supervisor,
}


def soak(minutes: float) -> None:
    """Four streams for a long time: the slope of every process's memory."""
    streams = [f"--stream=s{number}=sample" for number in range(3)]
    with engine("--stream", "main=sample", *streams) as running:
        children = running.children()
        start_s, samples = time.monotonic(), list[list[float]]()
        while time.monotonic() - start_s < minutes * 60:
            time.sleep(5)
            sizes = [child.memory_info().rss / MB for child in children]
            samples.append([(time.monotonic() - start_s) / 3600, *sizes])
            if len(samples) % 60 == 0:
                print(
                    f"{samples[-1][0] * 60:.0f} min:",
                    *(f"{size:.0f}" for size in sizes),
                    flush=True,
                )
        table = np.array(samples)
        settled = table[len(table) // 4 :]
        print(f"{minutes:g} min: longest silence {running.honest.silence_s(start_s):.2f} s")
        for place, child in enumerate(children, 1):
            slope = np.polyfit(settled[:, 0], settled[:, place], 1)[0]
            name = "inference" if place == 1 else f"capture {place - 1}"
            print(f"{name} ({child.pid}): {settled[-1, place]:.0f} MB, {slope:+.1f} MB/h")


def main(
    only: Annotated[list[str] | None, typer.Option(help="Rows whose name holds this.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each stranger continues.")] = 10.0,
    words: Annotated[bool, typer.Option(help="Engines that read words.")] = True,
    soak_minutes: Annotated[float, typer.Option(help="Instead: memory over this time.")] = 0.0,
) -> None:
    """Print the table of faults."""
    if not words:
        os.environ["UNDERTONE_WORDS__MODE"] = "off"
    if soak_minutes:
        soak(soak_minutes)
        return
    table = Table(title=f"{seconds:g} s of each, load {os.getloadavg()[0]:.1f} at the start")
    for column in ("fault", "silent s", "replaced", "MB before", "after", ""):
        table.add_column(column, justify="left" if column in ("fault", "") else "right")
    for name in [*FAULTS, *OTHERS]:
        if only and not any(part in name for part in only):
            continue
        row = OTHERS[name]() if name in OTHERS else measure(name, seconds)
        if isinstance(row, str):
            print(row, flush=True)
            continue
        cells = (row.fault, f"{row.silence_s:.1f}", str(row.replaced), f"{row.before_mb:.0f}",
                 f"{row.after_mb:.0f}", row.note)  # fmt: skip
        table.add_row(*cells)
        print(*cells, sep=" | ", flush=True)
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
