"""What words cost and how soon they count: ``python benchmarks/words.py [--clip X]``.

CPU is measured in a process like a worker's, part by part, per second of a person who speaks
without a pause (the voiced parts of the clip, one right after the other); latency and the number
of streams over a real worker. Give a clip in which somebody speaks English; its words are printed
nowhere. The end of a word is where the transcript puts it, which spreads the words of a piece over
its voice.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import typer
from msgspec.structs import replace
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.harness import (
    SPAWN,
    default_clip,
    generate,
    in_a_worker,
    local_settings,
    measure,
    subscribe,
    wait_ready,
    worker_process,
)
from engine.backends.select import choose
from engine.capture.clip import read_clip
from engine.inference.core import InferenceCore
from engine.inference.text.backlog import Job
from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.pieces import PieceCutter, Reading
from engine.inference.text.recognition import Transcripts
from engine.inference.text.words import BundleWords, load_recogniser
from engine.settings import EngineSettings, WordsSettings
from engine.wire.messages import Audio, Score, Word
from models import bundle as bundles
from models.bundle import Bundle

BUDGETS = {"words, tentative too": 0.12, "words when busy": 0.05, "tone": 0.04}
BUDGET_LATENCY_S = 1.5
BUDGET_STREAMS = 16
BUDGET_RATIO = 1.5
MS = 1_000_000
SAME_NS = 700 * MS
"""Two mentions of one word lie this near to each other: its time is only about right."""


@dataclass(frozen=True)
class Costs:
    """CPU seconds per second of speech."""

    tentative: float
    final: float
    tone: float
    speech_s: float


def speech_of(clip: Path, settings: EngineSettings) -> list[Audio]:
    return [message for message in read_clip(clip, settings) if isinstance(message, Audio)]


def without_pauses(sound: list[Audio]) -> list[Audio]:
    """The voiced chunks of a clip, one right after the other."""
    voiced = [message for message in sound if all(message.speech)]
    moved, at_ns = [], 0
    for number, message in enumerate(voiced):
        length_ns = message.envelope.t_end_ns - message.envelope.t_start_ns
        envelope = replace(
            message.envelope,
            seq=number,
            t_start_ns=at_ns,
            t_end_ns=at_ns + length_ns,
            t_sent_ns=at_ns + length_ns,
        )
        moved.append(replace(message, envelope=envelope, gap_samples=0))
        at_ns += length_ns
    return moved


def costs(directory: Path, clip: Path) -> Costs:
    """Measure tone by scoring the sound without words, words by reading its pieces."""
    settings = EngineSettings(bundle=str(directory))
    sound = without_pauses(speech_of(clip, settings))
    bundle = bundles.open(settings.bundle)
    spec = bundle.config.recogniser
    assert spec is not None
    backend = choose("onnx", bundle).backend
    backend.warm_up()
    spent = {}
    for with_tone in (True, False):
        core = InferenceCore(bundle, backend, settings.inference)
        began = time.process_time()
        for message in sound:
            quiet = (
                message if with_tone else replace(message, speech=(False,) * len(message.speech))
            )
            core.push(quiet, message.envelope.t_end_ns)
            core.pop_ready(message.envelope.t_end_ns)
        spent[with_tone] = time.process_time() - began
    cutter = PieceCutter(spec.max_piece_ms * MS, settings.words.delay_ms * MS)
    readings: list[Reading] = []
    for message in sound:
        cutter.push(message, False, 0)
        readings += cutter.pop_ready()
    model = BundleWords(load_recogniser(bundle), GivenTextEncoder(bundle, wait=True))
    seconds = sound[-1].envelope.t_end_ns / 1e9

    def share(chosen: list[Reading]) -> float:
        transcripts = Transcripts(spec, model, bundle.config.network.text_dim)
        began = time.process_time()
        for reading in chosen:
            transcripts.recognise(Job("s", 0, reading, 0, 0))
        return (time.process_time() - began) / seconds

    share(readings[:2])  # the first run is slower than the others
    final = share([reading for reading in readings if reading.final])
    return Costs(share(readings), final, (spent[True] - spent[False]) / seconds, seconds)


def word_latencies(clip: Path, seconds: float, bundle: str) -> NDArray[np.float64]:
    """Seconds from the end of each word to the arrival of the first score that knows it."""
    from engine.wire.codec import decode

    settings = local_settings(bundle=bundle, words=WordsSettings(publish=True))
    known: list[Word] = []
    found: list[float] = []
    with worker_process(settings) as worker:
        subscriber = subscribe(settings)
        wait_ready(subscriber, worker)
        unsent = SPAWN.Value("i", 0)
        generator = SPAWN.Process(
            target=generate, args=(settings, str(clip), 1, seconds, unsent), daemon=True
        )
        generator.start()
        while generator.is_alive():
            if not subscriber.poll(100):
                continue
            message = decode(subscriber.recv_multipart())
            received_ns = time.monotonic_ns()
            if not isinstance(message, Score):
                continue
            for word in message.transcript.words or ():
                if not any(_same(word, other) for other in known):
                    known.append(word)
                    found.append((received_ns - word.t_end_ns) / 1e9)
        subscriber.close()
    return np.array(found)


def _same(one: Word, other: Word) -> bool:
    return one.text.strip(".,!?") == other.text.strip(".,!?") and (
        abs(one.t_start_ns - other.t_start_ns) < SAME_NS
    )


PARTS = ("cpu", "latency", "streams")


def main(
    clip: Annotated[Path | None, typer.Option(help="Clip in which somebody speaks.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each live run.")] = 20.0,
    streams: Annotated[list[int] | None, typer.Option(help="Numbers of streams to try.")] = None,
    bundle: Annotated[str, typer.Option(help="Bundle to run.")] = "default",
    part: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}.")] = None,
) -> None:
    """Measure CPU per speaker, latency of a word, and how many streams can speak at once."""
    clip = clip or default_clip()
    parts = part or PARTS
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"--part: expected one of {', '.join(PARTS)}, got {', '.join(unknown)}")
    opened = bundles.open(bundle)
    if opened.config.recogniser is None:
        raise SystemExit(f"bundle {opened.config.name!r} has no recogniser")
    console = Console(width=110)
    if "cpu" in parts:
        _show_costs(console, opened, clip)
    if "latency" in parts:
        _show_latency(console, word_latencies(clip, seconds, bundle))
    if "streams" in parts:
        _show_streams(console, clip, streams or [1, BUDGET_STREAMS, 40], seconds, bundle)


def _show_costs(console: Console, bundle: Bundle, clip: Path) -> None:
    spent = in_a_worker(costs, bundle.directory, clip)
    table = Table(title=f"CPU of one speaker, {spent.speech_s:.0f} s of speech without a pause")
    for name in ("part", "of a core", "budget", ""):
        table.add_column(name, justify="left" if name == "part" else "right")
    for (name, budget), value in zip(
        BUDGETS.items(), (spent.tentative, spent.final, spent.tone), strict=True
    ):
        verdict = "within" if value <= budget else "OVER"
        table.add_row(name, f"{value:.1%}", f"{budget:.0%}", verdict)
    console.print(table)


def _show_latency(console: Console, waited: NDArray[np.float64]) -> None:
    if not len(waited):
        raise SystemExit("no score knew a word: does anybody speak English in the clip?")
    p50, p90 = np.percentile(waited, (50, 90))
    verdict = "within" if p50 <= BUDGET_LATENCY_S else "OVER"
    console.print(
        f"end of a word to the first score that knows it: p50 {p50:.2f} s, p90 {p90:.2f} s, "
        f"{len(waited)} words, budget {BUDGET_LATENCY_S} s: {verdict}"
    )


def _show_streams(
    console: Console, clip: Path, numbers: list[int], seconds: float, bundle: str
) -> None:
    best = 0
    for count in numbers:
        ends = {}
        for mode in ("off", "auto"):
            words = WordsSettings.model_validate({"mode": mode})
            run = measure(clip, count, seconds, bundle=bundle, words=words)
            p50, p99 = np.percentile(run.stages_ms["total"], (50, 99))
            ends[mode] = p99
            counted = {name: run.counters.get(f"words_{name}", 0)
                       for name in ("read", "late", "thinned", "dropped")}  # fmt: skip
            console.print(
                f"{count} streams, words {mode}: {run.scores} of {run.expected} scores, "
                f"{run.windows_dropped} windows dropped, p50 {p50:.1f} p99 {p99:.1f} ms, "
                f"{run.cpu_share:.0%} of a core, {run.memory_mb[-1][1]:.0f} MB"
                + (f", words {counted}" if mode == "auto" else "")
            )
            if mode == "auto" and not run.windows_dropped and run.scores >= run.expected:
                best = count
        ratio = ends["auto"] / ends["off"]
        verdict = "within" if ratio <= BUDGET_RATIO else "OVER"
        console.print(f"  p99 with words {ratio:.2f} times that without: {verdict}")
    verdict = "within" if best >= BUDGET_STREAMS else "BELOW"
    console.print(
        f"{best} streams with words, no window dropped, budget {BUDGET_STREAMS}: {verdict}"
    )


if __name__ == "__main__":
    typer.run(main)
