"""TensorRT: runs a bundle's graphs as plans on a GPU.

Everything is allocated once: pinned buffers on the host and buffers on the device at the plan's
largest shapes, one stream, one scratch memory for all plans. A usual shape (see ``profiles``) is
recorded, copies included, into a CUDA graph when it is first met, in the warm-up; any other is
queued call by call. Each recorded shape keeps an execution context of its own, because a graph
holds pointers into its context.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import BackendError, Inputs, Outputs
from engine.backends.tensorrt.api import (
    Context,
    LoadedPlan,
    Tensor,
)
from engine.backends.tensorrt.cuda import Device
from engine.backends.tensorrt.profiles import Layout, Piece, buckets, join
from models.graphs import Shape
from models.spec import GraphName

log = logging.getLogger(__name__)

ALIGNMENT = 256


class TensorrtBackend:
    """Every graph of a bundle as a loaded plan.

    Args:
        device: where plans run.
        plans: graph name to its plan.
        shapes: graph name to its shapes.
        precision: arithmetic in the plans, as scores name it.
        max_batch: largest batch of one run.
        cuda_graphs: record usual shapes; else queue every run call by call.
        keep_kernels: called at the end of the warm-up, when every kernel has been compiled.

    Raises:
        BackendError: a plan's inputs are not those of its layout.
    """

    name = "tensorrt"
    at_once = 1

    def __init__(
        self,
        device: Device,
        plans: Mapping[GraphName, LoadedPlan],
        shapes: Mapping[GraphName, Layout],
        precision: str,
        max_batch: int,
        cuda_graphs: bool = True,
        keep_kernels: Callable[[], None] | None = None,
    ) -> None:
        self.device = "cuda:0"
        self.precision = precision
        self._max_batch = max_batch
        self._keep_kernels = keep_kernels
        self._gpu = device
        scratch = device.allocate(max(plan.scratch_bytes for plan in plans.values()))
        self._runners = {
            str(graph): _Runner(str(graph), device, plan, shapes[graph], scratch, cuda_graphs)
            for graph, plan in plans.items()
        }

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        return frozenset(self._runners)

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph; see ``protocol.Backend``."""
        runner = self._runners.get(graph)
        if runner is None:
            raise BackendError(f"the bundle has no graph {graph!r}, only {sorted(self._runners)}")
        return runner.run(inputs)

    def warm_up(self) -> None:
        """Record the CUDA graph of every usual shape, so that no score waits for one."""
        for runner in self._runners.values():
            for batch in buckets(self._max_batch):
                runner.warm_up(batch)
        if self._keep_kernels is not None:
            self._keep_kernels()

    def close(self) -> None:
        """Give the GPU's memory back; the backend cannot be used any more."""
        self._runners.clear()
        self._gpu.close()


@dataclass(slots=True)
class _Shaped:
    """A context at one set of shapes, the views of the buffers, and the CUDA graph if any."""

    context: Context
    inputs: dict[str, NDArray[np.generic]]
    outputs: dict[str, NDArray[np.float32]]
    replay: Callable[[], None] | None = None


class _Runner:
    """One plan: its buffers, contexts and CUDA graphs."""

    def __init__(
        self,
        graph: str,
        device: Device,
        plan: LoadedPlan,
        layout: Layout,
        scratch: int,
        cuda_graphs: bool,
    ) -> None:
        self._graph = graph
        self._device = device
        self._plan = plan
        self._layout = layout
        self._scratch = scratch
        self._cuda_graphs = cuda_graphs
        self._tensors = {tensor.name: tensor for tensor in plan.tensors}
        expected = {entry.name: entry.maximum for entry in layout.ranges}
        actual = {tensor.name: tensor.largest for tensor in plan.tensors if tensor.is_input}
        if actual != expected:
            raise BackendError(f"{graph}: plan inputs: expected {expected}, got {actual}")
        self._any = plan.context(scratch, one_shape=False)
        largest = {**expected, **self._largest_outputs(expected)}
        sizes = {name: self._size(name, shape) for name, shape in largest.items()}
        self._host = {name: device.pinned(size) for name, size in sizes.items()}
        self._memory = {name: device.allocate(size) for name, size in sizes.items()}
        self._bind(self._any)
        self._recorded: dict[tuple[Shape, ...], _Shaped] = {}

    def run(self, inputs: Inputs) -> Outputs:
        """Run inputs of any size."""
        pieces = list(self._layout.pieces(inputs))
        return join(pieces, [self._run(piece) for piece in pieces])

    def warm_up(self, batch: int) -> None:
        """Run and record the usual shape of a batch bucket, on what the buffers hold."""
        self._shaped(self._layout.usual(batch))

    def _run(self, piece: Piece) -> Outputs:
        shaped = self._shaped(piece.shapes) if piece.usual else self._at(self._any, piece.shapes)
        piece.fill(shaped.inputs)  # type: ignore[arg-type]
        if shaped.replay is not None:
            shaped.replay()
        else:
            self._enqueue(shaped)
        self._device.synchronise()
        # Copied: the next run writes into the same pinned memory.
        return {name: value.copy() for name, value in shaped.outputs.items()}

    def _shaped(self, shapes: Mapping[str, Shape]) -> _Shaped:
        """The recorded run at ``shapes``, recorded now if it is not yet."""
        key = tuple(shapes[entry.name] for entry in self._layout.ranges)
        if (known := self._recorded.get(key)) is not None:
            return known
        context = self._plan.context(self._scratch, one_shape=True)
        self._bind(context)
        shaped = self._at(context, shapes)
        # Outside of a capture first: kernels are loaded, and compiled, at the first run.
        self._enqueue(shaped)
        self._device.synchronise()
        if self._cuda_graphs and context.capturable(self._device.stream):
            shaped.replay = self._device.capture(lambda: self._enqueue(shaped))
        elif self._cuda_graphs:
            log.warning("%s %s: no CUDA graph, runs are queued one by one", self._graph, key)
        self._recorded[key] = shaped
        return shaped

    def _at(self, context: Context, shapes: Mapping[str, Shape]) -> _Shaped:
        for name, shape in shapes.items():
            context.set_shape(name, shape)
        outputs = {
            tensor.name: self._view(tensor.name, context.output_shape(tensor.name))
            for tensor in self._plan.tensors
            if not tensor.is_input
        }
        inputs = {name: self._view(name, shape) for name, shape in shapes.items()}
        return _Shaped(context, inputs, outputs)  # type: ignore[arg-type]

    def _enqueue(self, shaped: _Shaped) -> None:
        for name, values in shaped.inputs.items():
            self._device.upload(self._memory[name], values)
        shaped.context.enqueue(self._device.stream)
        for name, values in shaped.outputs.items():
            self._device.download(values, self._memory[name])

    def _bind(self, context: Context) -> None:
        for name, address in self._memory.items():
            context.bind(name, address)

    def _largest_outputs(self, expected: Mapping[str, Shape]) -> dict[str, Shape]:
        for name, shape in expected.items():
            self._any.set_shape(name, shape)
        names = [tensor.name for tensor in self._plan.tensors if not tensor.is_input]
        return {name: self._any.output_shape(name) for name in names}

    def _view(self, name: str, shape: Shape) -> NDArray[np.generic]:
        raw = self._host[name][: self._size(name, shape, align=False)]
        return raw.view(_dtype(self._tensors[name])).reshape(shape)

    def _size(self, name: str, shape: Shape, align: bool = True) -> int:
        size = math.prod(shape) * np.dtype(_dtype(self._tensors[name])).itemsize
        return -(-size // ALIGNMENT) * ALIGNMENT if align else size


def _dtype(tensor: Tensor) -> type[np.bool_] | type[np.float32]:
    return np.bool_ if tensor.boolean else np.float32
