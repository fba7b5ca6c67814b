"""Shapes of a plan: what each graph may be given, and how inputs are cut and padded to fit.

Pure. A plan is built for ranges of shapes and run fastest at few of them. The *usual* shape of
a graph is that of a running stream, at batch sizes that are powers of two; it has a CUDA graph
of its own. Other shapes are run as they are, and what exceeds the ranges in several pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import Array, BackendError, Inputs, Outputs
from models.graphs import (
    MODALITIES,
    FusionGraph,
    Graph,
    GraphName,
    RowGraph,
    SequenceGraph,
    Shape,
    graphs_of,
)
from models.spec import BundleConfig

MAX_BATCH = 1024


@dataclass(frozen=True, slots=True)
class InputRange:
    """Smallest, most frequent and largest shape of one input."""

    name: str
    boolean: bool
    minimum: Shape
    optimum: Shape
    maximum: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One run of a plan: what to copy into zeroed inputs of which shapes, and what to take."""

    shapes: Mapping[str, Shape]
    sources: Mapping[str, Array]
    rows: int
    """Rows of the batch that count; the rest is padding."""
    frames: int | None = None
    """The last frames of each row count, so many; None: outputs without a time axis."""
    usual: bool = False
    first: bool = True
    """Begins new rows; the frames of others follow on those of the piece before."""

    def fill(self, staging: Mapping[str, Array]) -> None:
        """Copy the sources into ``staging``, arrays of ``shapes``; zeros (False) elsewhere."""
        for name, source in self.sources.items():
            target = staging[name]
            if target.shape != source.shape:
                target[...] = 0
            if self.frames is not None and source.ndim > 1:  # left padding: the last frames count
                target[: self.rows, target.shape[1] - source.shape[1] :] = source
            elif source.ndim > 1:
                target[: self.rows, : source.shape[1]] = source
            else:
                target[: self.rows] = source


class Layout(Protocol):
    """The shapes of one graph."""

    @property
    def ranges(self) -> tuple[InputRange, ...]:
        """Shapes that the plan is built for, one range per input."""
        ...

    def pieces(self, inputs: Inputs) -> Iterator[Piece]:
        """Cut and pad inputs of any size into runs."""
        ...

    def usual(self, batch: int) -> Mapping[str, Shape]:
        """Shapes of a running stream's inputs at a batch bucket."""
        ...


@dataclass(frozen=True, slots=True)
class SequenceLayout:
    """A sequence encoder: ``input`` [B, N, F], padded on the left by whole strides."""

    features: Shape
    stride: int
    context: int
    usual_frames: int
    longest_frames: int
    max_batch: int

    @property
    def ranges(self) -> tuple[InputRange, ...]:
        """One input."""
        return (
            InputRange(
                "input",
                False,
                (1, self._inputs(1), *self.features),
                (_optimum(self.max_batch), self._inputs(self.usual_frames), *self.features),
                (self.max_batch, self._inputs(self.longest_frames), *self.features),
            ),
        )

    def usual(self, batch: int) -> Mapping[str, Shape]:
        """Inputs of one hop behind their context."""
        return {"input": (batch, self._inputs(self.usual_frames), *self.features)}

    def pieces(self, inputs: Inputs) -> Iterator[Piece]:
        """Cut by rows and, behind the context again, by time.

        Raises:
            BackendError: inputs of another width, or too short for one frame.
        """
        values = inputs["input"]
        if values.shape[2:] != self.features or values.shape[1] < self._inputs(1):
            expected = ["B", f">= {self._inputs(1)}", *self.features]
            raise BackendError(f"input: expected {expected}, got {list(values.shape)}")
        frames = (values.shape[1] - self.context) // self.stride
        last = values[:, values.shape[1] - self._inputs(frames) :]
        for row in range(0, len(values), self.max_batch):
            rows = last[row : row + self.max_batch]
            for frame in range(0, frames, self.longest_frames):
                count = min(self.longest_frames, frames - frame)
                begin = frame * self.stride
                yield self._piece(rows[:, begin : begin + self._inputs(count)], count, frame == 0)

    def _piece(self, source: Array, frames: int, first: bool) -> Piece:
        usual = frames <= self.usual_frames
        padded = self.usual_frames if usual else frames
        batch = bucket(len(source), self.max_batch) if usual else len(source)
        shape = (batch, self._inputs(padded), *self.features)
        return Piece({"input": shape}, {"input": source}, len(source), frames, usual, first)

    def _inputs(self, frames: int) -> int:
        return self.context + frames * self.stride


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Independent rows: ``input`` [B, ...], pictures or frames."""

    shape: Shape
    max_batch: int
    rows: int = 1
    """Of one unit of the batch: of a stream's hop."""

    @property
    def ranges(self) -> tuple[InputRange, ...]:
        """One input."""
        optimum, most = (self.rows * size for size in (_optimum(self.max_batch), self.max_batch))
        low, middle, high = ((size, *self.shape) for size in (1, optimum, most))
        return (InputRange("input", False, low, middle, high),)

    def usual(self, batch: int) -> Mapping[str, Shape]:
        """Every shape is usual, in whole units."""
        return {"input": (batch * self.rows, *self.shape)}

    def pieces(self, inputs: Inputs) -> Iterator[Piece]:
        """Cut by rows.

        Raises:
            BackendError: rows of another shape.
        """
        values = inputs["input"]
        if values.shape[1:] != self.shape:
            raise BackendError(f"input: expected {['B', *self.shape]}, got {list(values.shape)}")
        most = self.max_batch * self.rows
        for row in range(0, len(values), most):
            source = values[row : row + most]
            units = -(-len(source) // self.rows)
            shapes = self.usual(bucket(units, self.max_batch))
            yield Piece(shapes, {"input": source}, len(source), usual=True)


@dataclass(frozen=True, slots=True)
class FusionLayout:
    """The fusion: projected frames and masks per modality, padded on the right, masked."""

    dim: int
    """Width of a projected frame."""
    full: Shape
    """Frames of a running stream's window, per modality."""
    longest: Shape
    max_batch: int

    @property
    def ranges(self) -> tuple[InputRange, ...]:
        """Frames and mask of every modality, and the flow."""
        found = []
        most = _optimum(self.max_batch)
        for name, full, longest in self._axes():
            sizes = ((1, 1), (most, full), (self.max_batch, longest))
            low, middle, high = ((*size, self.dim) for size in sizes)
            found.append(InputRange(name, False, low, middle, high))
            found.append(InputRange(f"{name}_mask", True, *sizes))
        found.append(InputRange("text_simulated", True, (1,), (most,), (self.max_batch,)))
        return tuple(found)

    def usual(self, batch: int) -> Mapping[str, Shape]:
        """Full windows."""
        return self._shapes(batch, self.full)

    def pieces(self, inputs: Inputs) -> Iterator[Piece]:
        """Cut by rows, and pad short windows to full ones.

        Raises:
            BackendError: another width, or a window longer than the plan takes.
        """
        lengths = []
        for name, full, longest in self._axes():
            shape = inputs[name].shape
            if shape[2:] != (self.dim,) or not 1 <= shape[1] <= longest:
                expected = f"[B, 1..{longest}, {self.dim}]"
                raise BackendError(f"{name}: expected {expected}, got {list(shape)}")
            lengths.append(full if shape[1] <= full else shape[1])
        usual = tuple(lengths) == self.full
        count = len(inputs["text_simulated"])
        for row in range(0, count, self.max_batch):
            rows = slice(row, row + self.max_batch)
            sources = {name: value[rows] for name, value in inputs.items()}
            size = len(sources["text_simulated"])
            batch = bucket(size, self.max_batch) if usual else size
            yield Piece(self._shapes(batch, tuple(lengths)), sources, size, usual=usual)

    def _shapes(self, batch: int, lengths: Shape) -> Mapping[str, Shape]:
        shapes: dict[str, Shape] = {"text_simulated": (batch,)}
        for name, length in zip(MODALITIES, lengths, strict=True):
            shapes[name] = (batch, length, self.dim)
            shapes[f"{name}_mask"] = (batch, length)
        return shapes

    def _axes(self) -> Iterator[tuple[str, int, int]]:
        return zip(MODALITIES, self.full, self.longest, strict=True)


def bucket(count: int, max_batch: int) -> int:
    """Round a batch up to a power of two, at most ``max_batch``.

    Raises:
        ValueError: ``count`` is not within 1..max_batch.
    """
    if not 1 <= count <= max_batch:
        raise ValueError(f"expected a batch within 1..{max_batch}, got {count}")
    return min(1 << (count - 1).bit_length(), max_batch)


def buckets(max_batch: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to and with ``max_batch``."""
    return tuple(sorted({bucket(count, max_batch) for count in range(1, max_batch + 1)}))


def join(pieces: Sequence[Piece], results: Sequence[Outputs]) -> Outputs:
    """Put the outputs of several pieces together, padding left out.

    Args:
        pieces: as a layout cut them.
        results: outputs of each, as the plan gave them.
    """
    rows: list[dict[str, list[NDArray[np.float32]]]] = []
    for piece, result in zip(pieces, results, strict=True):
        if piece.first:
            rows.append({name: [] for name in result})
        for name, value in result.items():
            kept = value[: piece.rows]
            if piece.frames is not None:
                kept = kept[:, kept.shape[1] - piece.frames :]
            rows[-1][name].append(kept)
    names = rows[0]
    whole = {name: [_concatenate(row[name], 1) for row in rows] for name in names}
    return {name: _concatenate(parts, 0) for name, parts in whole.items()}


def _concatenate(parts: Sequence[NDArray[np.float32]], axis: int) -> NDArray[np.float32]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def layouts(config: BundleConfig, max_batch: int) -> dict[GraphName, Layout]:
    """Shapes of every graph of a bundle, for batches up to ``max_batch``.

    Raises:
        BackendError: ``max_batch`` is out of range.
    """
    if not 1 <= max_batch <= MAX_BATCH:
        raise BackendError(f"max_batch: expected 1..{MAX_BATCH}, got {max_batch}")
    found = {name: _layout(graph, max_batch) for name, graph in graphs_of(config).items()}
    if config.audio_encoder is not None and config.audio_encoder.kind == "recogniser":
        del found["audio_encoder"]  # of 8 bits: ONNX Runtime runs it (``backends.mixed``)
    return {graph: layout for graph, layout in found.items() if graph in config.graphs}


def _layout(graph: Graph, max_batch: int) -> Layout:
    match graph:
        case SequenceGraph(features, stride, context, usual, longest):
            return SequenceLayout(features, stride, context, usual, longest, max_batch)
        case RowGraph(shape, _, unit):
            return RowLayout(shape, max_batch, rows=unit)
        case FusionGraph(dim, full, longest):
            return FusionLayout(dim, full, longest, max_batch)


def _optimum(max_batch: int) -> int:
    return min(8, max_batch)
