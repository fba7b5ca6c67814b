"""Runs encoders and projections on what is new in the due streams: one batch per graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from engine.inference.backends.protocol import Backend
from engine.inference.features import AudioTrack, Evidence, Segment, TimedStream
from engine.inference.scheduler import pad_left
from engine.inference.stream import StreamState
from engine.inference.windows import Frames
from models.spec import GraphName

MAX_ROWS = 16
"""Sequences per run: with more due streams there are more runs, not more memory."""
MAX_CROPS = 64
MAX_FRAMES = 1024

TextEncode = Callable[[str], Frames | None]
"""A transcript to its token frames [T, D], or None where no text encoder can be had."""

Item = TypeVar("Item")


def encode(
    streams: Sequence[StreamState],
    backend: Backend,
    encode_text: TextEncode | None,
    counters: Counter[str],
) -> None:
    """Encode what waits in ``streams`` and leave the projected frames in their tracks."""
    segments = [(stream.audio, segment) for stream in streams for segment in stream.audio.prepare()]
    _run_sequences(
        backend, "audio_encoder", segments, lambda segment: segment.audio, AudioTrack.accept_audio
    )
    _run_sequences(
        backend, "text_simulation", segments, lambda segment: segment.text, AudioTrack.accept_text
    )
    _encode_faces(streams, backend)
    for stream in streams:
        for message in stream.text.prepare():
            frames = encode_text(message.text) if encode_text is not None else None
            if frames is None:
                counters["text_unavailable"] += 1
            else:
                stream.text.accept(message, frames)
    _project(backend, "audio_projection", [stream.audio.frames for stream in streams])
    texts = [text for stream in streams for text in (stream.audio.text, stream.text.frames)]
    _project(backend, "text_projection", texts)
    _project(backend, "video_projection", [stream.video.frames for stream in streams])


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
    for batch in _slices(jobs, MAX_ROWS):
        stacked = pad_left([inputs for _, _, inputs in batch])
        outputs = backend.run(graph, {"input": stacked})["frames"]
        for (track, segment, _), output in zip(batch, outputs, strict=True):
            accept(track, segment, output)


def _encode_faces(streams: Sequence[StreamState], backend: Backend) -> None:
    prepared = [(stream.video, *stream.video.prepare()) for stream in streams]
    crops = [crop for _, stream_crops, _ in prepared for crop in stream_crops]
    if not crops:
        return
    frames = np.concatenate(
        [
            backend.run("video_encoder", {"input": np.stack(batch)})["frames"]
            for batch in _slices(crops, MAX_CROPS)
        ]
    )
    first = 0
    for track, stream_crops, t_end_ns in prepared:
        track.accept(frames[first : first + len(stream_crops)], t_end_ns)
        first += len(stream_crops)


def _project(backend: Backend, graph: GraphName, evidence: Sequence[Evidence | None]) -> None:
    jobs = [(item, rows) for item in evidence if item and (rows := item.pending()) is not None]
    if not jobs:
        return
    frames = np.concatenate([rows for _, rows in jobs])
    projected = np.concatenate(
        [
            backend.run(graph, {"input": frames[first : first + MAX_FRAMES]})["frames"]
            for first in range(0, len(frames), MAX_FRAMES)
        ]
    )
    first = 0
    for item, rows in jobs:
        item.accept(projected[first : first + len(rows)])
        first += len(rows)


def _slices(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
