"""Runs the graphs for all due streams, one batch per graph: encoders, projections, fusion."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import numpy as np

from engine.backends.protocol import Array, Backend
from engine.inference.batch import pad_left, pad_right
from engine.inference.explanation import Said, alone, present
from engine.inference.stream import StreamState
from engine.inference.tracks.audio import AudioTrack, Segment
from engine.inference.tracks.evidence import Evidence, TimedStream
from engine.inference.tracks.rings import Frames
from engine.inference.tracks.words import WordsTrack
from engine.inference.window import Window
from models.bundle import Bundle
from models.hearing import levelled
from models.spec import MODALITIES, GraphName

log = logging.getLogger(__name__)

MAX_ROWS = 16
"""Sequences per run: with more due streams there are more runs, not more memory."""
MAX_CROPS = 64
MAX_FRAMES = 1024

TextEncode = Callable[[str], Frames | None]
"""A transcript to its token frames [T, D], or None where no text encoder is available."""


def encode(
    streams: Sequence[StreamState],
    backend: Backend,
    encode_text: TextEncode | None,
    counters: Counter[str],
    blocks: int = 1,
) -> None:
    """Encode what waits in ``streams`` and leave the projected frames in their tracks.

    An encoder that takes whole blocks of sound is given ``blocks`` of a stream at a time, or waits.
    """
    segments = [(stream.audio, segment) for stream in streams for segment in stream.audio.prepare()]
    if any(stream.audio.in_blocks for stream in streams):
        _run_blocks(backend, segments, blocks)
    else:
        _run_sequences(
            backend, "audio_encoder", segments, lambda segment: segment.audio,
            AudioTrack.accept_audio,
        )  # fmt: skip
    _run_sequences(
        backend, "text_simulation", segments, lambda segment: segment.text, AudioTrack.accept_text
    )
    _encode_faces(streams, backend)
    for stream in streams:
        for message in stream.text.prepare():
            frames = None
            try:
                frames = encode_text(message.text) if encode_text is not None else None
            except Exception:  # one client's text must not end the worker
                counters["text_failed"] += 1
                log.exception("a transcript could not be encoded")
            if frames is None:
                counters["text_unavailable"] += 1
            else:
                stream.text.accept(message, frames)
    _project(backend, "audio_projection", [stream.audio.frames for stream in streams])
    texts = [text for stream in streams for text in (stream.audio.text, stream.text.frames)]
    _project(backend, "text_projection", [*texts, *(stream.words for stream in streams)])
    _project(backend, "video_projection", [stream.video.frames for stream in streams])


def encode_ahead(
    stream: StreamState, others: Iterable[StreamState], backend: Backend, blocks: int = 1
) -> bool:
    """Encode a part of what waits in ``stream`` before its window is due; False: nothing does.

    A part is ``blocks`` whole blocks of sound, or the faces that came: little enough for a window
    of another stream not to be late. A block's frames are the same whenever it is encoded. Where
    the backend has a thread for it, sound of another stream is encoded at the same time.
    """
    if stream.audio.has_blocks(blocks):
        companions = (other for other in others if other.audio.has_blocks(blocks))
        together = [stream, *islice(companions, backend.at_once - 1)]
        segments = [(one.audio, segment) for one in together for segment in one.audio.prepare()]
        if _run_blocks(backend, segments, blocks, most=len(together)):
            return True
    if stream.video.waiting:
        _encode_faces([stream], backend)
        return True
    return False


def encode_blocks(stream: StreamState, backend: Backend, blocks: int = 1) -> None:
    """Encode every whole block of sound that waits in ``stream``, ``blocks`` at a time."""
    if stream.audio.has_blocks(blocks):
        segments = [(stream.audio, segment) for segment in stream.audio.prepare()]
        _run_blocks(backend, segments, blocks)


def _run_blocks(
    backend: Backend,
    segments: list[tuple[AudioTrack, Segment]],
    blocks: int,
    most: int | None = None,
) -> int:
    """Encode whole blocks of sound, one run each, ``most`` of them; return how many.

    A recogniser's activations are quantised by the range that a run sees: alone, a stream's
    frames do not depend on the others'. So several streams are not one batch, but each has a
    thread, as far as the backend has any.
    """
    waiting: dict[int, deque[tuple[AudioTrack, Segment]]] = {}
    for track, segment in segments:
        waiting.setdefault(id(track), deque()).append((track, segment))
    done = 0
    while waiting and done != most:
        turn: list[tuple[AudioTrack, Segment, Frames]] = []
        room = backend.at_once if most is None else min(backend.at_once, most - done)
        for key, queue in list(waiting.items()):
            inputs = None
            while queue and (inputs := queue[0][1].audio.pending(blocks)) is None:
                queue.popleft()
            if inputs is None:
                del waiting[key]
            else:
                turn.append((*queue[0], levelled(inputs[None])))
            if len(turn) == room:
                break
        for (track, segment, _), frames in zip(turn, _encoded(backend, turn), strict=True):
            track.accept_audio(segment, frames)
        done += len(turn)
    return done


def _encoded(backend: Backend, jobs: Sequence[tuple[AudioTrack, Segment, Frames]]) -> list[Frames]:
    """Frames of some blocks: the first one's in this thread, the others' in threads of theirs."""

    def run(inputs: Frames) -> Frames:
        frames: Frames = backend.run("audio_encoder", {"input": inputs})["frames"][0]
        return frames

    others = [_threads(backend.at_once - 1).submit(run, inputs) for _, _, inputs in jobs[1:]]
    return [run(inputs) for _, _, inputs in jobs[:1]] + [other.result() for other in others]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads for the blocks of streams that speak at once, kept: the runtime lets go of Python."""
    return ThreadPoolExecutor(count, "encode")


def _run_sequences(
    backend: Backend,
    graph: str,
    segments: list[tuple[AudioTrack, Segment]],
    stream_of: Callable[[Segment], TimedStream | None],
    accept: Callable[[AudioTrack, Segment, Frames], None],
) -> None:
    jobs: list[tuple[AudioTrack, Segment, Frames]] = []
    for track, segment in segments:
        sequence = stream_of(segment)
        inputs = sequence.pending() if sequence is not None else None
        if inputs is not None:
            jobs.append((track, segment, inputs))
    for batch in _batches(jobs, stream_of):
        stacked = pad_left([inputs for _, _, inputs in batch])
        outputs = backend.run(graph, {"input": stacked})["frames"]
        for (track, segment, _), output in zip(batch, outputs, strict=True):
            accept(track, segment, output)


def _batches(
    jobs: list[tuple[AudioTrack, Segment, Frames]],
    stream_of: Callable[[Segment], TimedStream | None],
) -> Iterator[list[tuple[AudioTrack, Segment, Frames]]]:
    """Jobs for one run each; an encoder that looks at all of its input is given no padding."""
    groups: dict[int, list[tuple[AudioTrack, Segment, Frames]]] = {}
    for job in jobs:
        sequence = stream_of(job[1])
        causal = sequence is None or sequence.causal
        groups.setdefault(0 if causal else len(job[2]), []).append(job)
    for group in groups.values():
        for first in range(0, len(group), MAX_ROWS):
            yield group[first : first + MAX_ROWS]


def _encode_faces(streams: Sequence[StreamState], backend: Backend) -> None:
    prepared = [(stream.video, *stream.video.prepare()) for stream in streams]
    jobs = [(track, np.stack(crops), t_end_ns) for track, crops, t_end_ns in prepared if crops]
    found = _run_rows(backend, "video_encoder", [crops for _, crops, _ in jobs], MAX_CROPS)
    for (track, _, t_end_ns), frames in zip(jobs, found, strict=True):
        track.accept(frames, t_end_ns)


def _project(
    backend: Backend, graph: GraphName, evidence: Sequence[Evidence | WordsTrack | None]
) -> None:
    jobs = [(item, rows) for item in evidence if item and (rows := item.pending()) is not None]
    found = _run_rows(backend, graph, [rows for _, rows in jobs], MAX_FRAMES)
    for (item, _), projected in zip(jobs, found, strict=True):
        item.accept(projected)


def _run_rows(
    backend: Backend, graph: GraphName, parts: Sequence[Frames], most: int
) -> list[Frames]:
    """Run a graph whose rows are independent on all parts, ``most`` rows at a time.

    Returns:
        The frames of each part.
    """
    if not parts:
        return []
    rows = np.concatenate(parts)
    frames = np.concatenate(
        [
            backend.run(graph, {"input": rows[first : first + most]})["frames"]
            for first in range(0, len(rows), most)
        ]
    )
    return np.split(frames, np.cumsum([len(part) for part in parts[:-1]], dtype=np.intp))


VIDEO = MODALITIES.index("video")


@dataclass(frozen=True, slots=True)
class Fused:
    """What the network says of one window."""

    valence: float
    low: float
    high: float
    weights: tuple[float, ...]
    alone: Mapping[str, Said] | None = None
    """What each present modality says by itself; None where nobody asked."""


class Fuser:
    """The fusion graph of one bundle.

    Args:
        bundle: its calibration makes the intervals.
        backend: runs its graphs.
        counters: where scores that are no numbers are counted.
    """

    def __init__(self, bundle: Bundle, backend: Backend, counters: Counter[str]) -> None:
        self._projected_dim = bundle.config.network.projected_dim
        self._full_lengths = bundle.config.full_lengths
        self._calibration = bundle.calibration
        self._backend = backend
        self._counters = counters

    def fuse(self, windows: Sequence[Window], explained: Sequence[bool]) -> list[Fused | None]:
        """Run the network on the windows that hold anything, MAX_ROWS rows at a time.

        A window that is ``explained`` also gives what each of its modalities says by itself.
        """
        jobs: list[tuple[int, str | None, Window]] = []
        for row, window in enumerate(windows):
            names = present(window)
            if names:
                jobs.append((row, None, window))
            if explained[row] and len(names) > 1:
                jobs += [(row, name, alone(window, name)) for name in names]
        results: list[Fused | None] = [None] * len(windows)
        singles: list[dict[str, Said]] = [{} for _ in windows]
        for first in range(0, len(jobs), MAX_ROWS):
            batch = jobs[first : first + MAX_ROWS]
            outputs = self._run([window for _, _, window in batch])
            for (row, name, _), fused in zip(batch, outputs, strict=True):
                if fused is None:
                    continue
                if name is None:
                    results[row] = fused
                else:
                    singles[row][name] = Said(fused.valence, fused.low, fused.high)
        for row, fused in enumerate(results):
            if fused is not None and explained[row]:
                names = present(windows[row])
                if len(names) == 1:
                    singles[row][names[0]] = Said(fused.valence, fused.low, fused.high)
                results[row] = replace(fused, alone=singles[row])
        return results

    def _run(self, windows: Sequence[Window]) -> list[Fused | None]:
        outputs = self._backend.run("fusion", self._inputs(windows))
        results: list[Fused | None] = []
        for row, window in enumerate(windows):
            valence, low, high = (
                float(outputs[name].reshape(len(windows), -1)[row, 0])
                for name in ("valence", "low", "high")
            )
            if not math.isfinite(valence):
                self._counters["scores_not_finite"] += 1
                results.append(None)
                continue
            if not (math.isfinite(low) and math.isfinite(high)):
                low = high = valence
            weights = tuple(float(weight) for weight in outputs["weights"][row])
            doubt = weights[VIDEO] * (1 - window.clarity) if math.isfinite(weights[VIDEO]) else 0.0
            low, high = self._calibration.interval(window.pattern, valence, low, high, doubt)
            results.append(Fused(valence, low, high, weights))
        return results

    def _inputs(self, windows: Sequence[Window]) -> dict[str, Array]:
        inputs: dict[str, Array] = {}
        for name, full in zip(MODALITIES, self._full_lengths, strict=True):
            sequences = [window.frames[name] for window in windows]
            inputs[name], inputs[f"{name}_mask"] = pad_right(sequences, self._projected_dim, full)
        simulated = [window.text_source != "given" for window in windows]
        return {**inputs, "text_simulated": np.array(simulated, np.bool_)}
