"""A device of host memory, and plans that ONNX Runtime runs, behind the TensorRT backend's seam.

The numbers are real: padding, buffers, streams of queued work and recorded graphs must all be
right for the outputs to be. Queued work runs when the device is waited for, as on a GPU.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.api import Tensor
from engine.backends.tensorrt.profiles import Layout, Shape


class HostDevice:
    name, capability, stream = "host", "sm00", 7

    def __init__(self) -> None:
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.graphs = 0
        self.replays = 0

    def allocate(self, size_bytes: int) -> int:
        block = np.zeros(max(size_bytes, 1), np.uint8)
        self.memory[block.ctypes.data] = block
        return int(block.ctypes.data)

    def pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        return np.zeros(max(size_bytes, 1), np.uint8)

    def upload(self, target: int, source: NDArray[Any]) -> None:
        assert source.nbytes <= len(self.memory[target])
        self.put(lambda: ctypes.memmove(target, source.ctypes.data, source.nbytes))

    def download(self, target: NDArray[Any], source: int) -> None:
        assert target.nbytes <= len(self.memory[source])
        self.put(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))

    def put(self, work: Callable[[], Any]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recording = recorded = []
        try:
            work()
        finally:
            self.recording = None
        self.graphs += 1

        def replay() -> None:
            self.replays += 1
            self.queue.extend(recorded)

        return replay

    def synchronise(self) -> None:
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def close(self) -> None:
        self.memory.clear()


class OnnxPlan:
    """A graph as a loaded plan; ``refuse`` names what TensorRT would answer False to."""

    def __init__(self, model: bytes, layout: Layout, device: HostDevice) -> None:
        self.session = ort.InferenceSession(model)
        self.device = device
        self.refuse: set[str] = set()
        self.contexts: list[OnnxContext] = []
        self.scratch_bytes = 64
        ranges = {entry.name: entry for entry in layout.ranges}
        self.tensors = tuple(
            Tensor(node.name, True, node.type == "tensor(bool)", (), ranges[node.name].maximum)
            for node in self.session.get_inputs()
        ) + tuple(Tensor(node.name, False, False, (), ()) for node in self.session.get_outputs())
        self.ranges = ranges

    def context(self, scratch: int, one_shape: bool) -> OnnxContext:
        assert scratch in self.device.memory
        self.contexts.append(OnnxContext(self))
        return self.contexts[-1]

    def kernel_cache(self) -> bytes:
        return b"kernels"

    def inspect(self) -> str:
        return '{"Layers": []}'


class OnnxContext:
    def __init__(self, plan: OnnxPlan) -> None:
        self.plan = plan
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}

    def set_shape(self, name: str, shape: Shape) -> None:
        entry = self.plan.ranges[name]
        inside = all(
            low <= size <= high
            for low, size, high in zip(entry.minimum, shape, entry.maximum, strict=True)
        )
        if not inside:
            raise BackendError(f"{name}: shape {shape} is outside the profile")
        self.shapes[name] = tuple(shape)

    def bind(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def output_shape(self, name: str) -> Shape:
        zeros = {
            tensor.name: np.zeros(self.shapes[tensor.name], bool if tensor.boolean else np.float32)
            for tensor in self.plan.tensors
            if tensor.is_input
        }
        (output,) = self.plan.session.run([name], zeros)
        return tuple(output.shape)

    def enqueue(self, stream: int) -> None:
        assert stream == HostDevice.stream
        if "enqueue" in self.plan.refuse:
            raise BackendError("TensorRT refuses to run: fake")
        shapes = dict(self.shapes)
        self.plan.device.put(lambda: self._compute(shapes))

    def _compute(self, shapes: dict[str, Shape]) -> None:
        inputs, outputs = {}, []
        for tensor in self.plan.tensors:
            if not tensor.is_input:
                outputs.append(tensor.name)
                continue
            kind = np.dtype(bool if tensor.boolean else np.float32)
            size = math.prod(shapes[tensor.name])
            raw = self.plan.device.memory[self.addresses[tensor.name]][: size * kind.itemsize]
            inputs[tensor.name] = raw.view(kind).reshape(shapes[tensor.name])
        for name, value in zip(outputs, self.plan.session.run(outputs, inputs), strict=True):
            raw = np.ascontiguousarray(value).view(np.uint8).ravel()
            self.plan.device.memory[self.addresses[name]][: raw.size] = raw

    def capturable(self, stream: int) -> bool:
        return "capture" not in self.plan.refuse
