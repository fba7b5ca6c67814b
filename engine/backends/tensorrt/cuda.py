"""The CUDA runtime, as far as running plans needs it: memory, one stream, CUDA graphs.

Through NVIDIA's own ``cuda-bindings`` (30 MB, no torch): it carries the runtime in itself and
finds the driver when it is used, so that a machine without one can say so. Every status is
checked; ``Device`` is the seam behind which tests put a device of host memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import BackendError

NO_DRIVER = "no NVIDIA driver, or one too old for CUDA {cuda}: install or update the GPU driver"


class Device(Protocol):
    """One GPU, with one stream on which everything is ordered."""

    name: str
    capability: str
    """Compute capability, such as ``sm89``."""
    stream: int
    """Handle of the stream; never the default one."""

    def allocate(self, size_bytes: int) -> int:
        """Device memory that lives as long as the device; returns its address."""
        ...

    def pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        """Host memory that the GPU reads and writes by itself; lives as long as the device."""
        ...

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Queue a copy of pinned memory to the device."""
        ...

    def download(self, target: NDArray[Any], source: int) -> None:
        """Queue a copy of device memory to pinned memory."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` queues, without running it; return what replays it.

        Raises:
            BackendError: ``work`` raised it, or queued what cannot be recorded.
        """
        ...

    def synchronise(self) -> None:
        """Wait until everything queued is done."""
        ...

    def close(self) -> None:
        """Give everything back; nothing of it must be used any more."""
        ...


def missing() -> str | None:
    """Say why no GPU can be used here, or None if one can."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return 'cuda-bindings is not installed: pip install -e ".[rtx]"'
    from cuda.bindings import runtime

    error, count = runtime.cudaGetDeviceCount()
    codes = runtime.cudaError_t
    if error in (codes.cudaErrorInsufficientDriver, codes.cudaErrorSystemDriverMismatch):
        _, version = runtime.cudaRuntimeGetVersion()
        return NO_DRIVER.format(cuda=version // 1000)
    if error == codes.cudaErrorNoDevice or (error == codes.cudaSuccess and count == 0):
        return "the NVIDIA driver finds no GPU (in a container: start it with --gpus all)"
    if error != codes.cudaSuccess:
        return f"CUDA does not start: {_text(error)}"
    return None


class CudaDevice:
    """GPU ``index``, through the CUDA runtime.

    Raises:
        BackendError: no driver, no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        if (reason := missing()) is not None:
            raise BackendError(reason)
        from cuda.bindings import runtime

        self._cuda = runtime
        _check(runtime.cudaSetDevice(index))
        properties = _check(runtime.cudaGetDeviceProperties(index))
        self.name = properties.name.split(b"\0")[0].decode()
        self.capability = f"sm{properties.major}{properties.minor}"
        self._stream = _check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.stream = int(self._stream)
        self._device: list[int] = []
        self._host: list[int] = []
        self._graphs: list[Any] = []

    def allocate(self, size_bytes: int) -> int:
        """Device memory, 256-byte aligned as ``cudaMalloc`` gives it."""
        address = int(_check(self._cuda.cudaMalloc(max(size_bytes, 256))))
        self._device.append(address)
        return address

    def pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        """Page-locked host memory, zeroed."""
        size = max(size_bytes, 1)
        address = int(_check(self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault)))
        self._host.append(address)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        array[...] = 0
        return array

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """Queue a copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _check(
            self._cuda.cudaMemcpyAsync(
                target, source.ctypes.data, source.nbytes, kind, self._stream
            )
        )

    def download(self, target: NDArray[Any], source: int) -> None:
        """Queue a copy to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _check(
            self._cuda.cudaMemcpyAsync(
                target.ctypes.data, source, target.nbytes, kind, self._stream
            )
        )

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record a CUDA graph; the stream is usable again even where that fails."""
        # Thread-local: another thread's allocation (a text encoder's) must not break it.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _check(self._cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(self._stream)
            raise
        graph = _check(self._cuda.cudaStreamEndCapture(self._stream))
        executable = _check(self._cuda.cudaGraphInstantiate(graph, 0))
        _check(self._cuda.cudaGraphDestroy(graph))
        self._graphs.append(executable)
        return lambda: _check(self._cuda.cudaGraphLaunch(executable, self._stream))

    def synchronise(self) -> None:
        """Wait for the stream; a fault of any kernel shows here."""
        _check(self._cuda.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give everything back; arrays from ``pinned`` must not be used any more."""
        self._cuda.cudaStreamSynchronize(self._stream)
        for graph in self._graphs:
            self._cuda.cudaGraphExecDestroy(graph)
        for address in self._device:
            self._cuda.cudaFree(address)
        for address in self._host:
            self._cuda.cudaFreeHost(address)
        self._cuda.cudaStreamDestroy(self._stream)
        self._graphs, self._device, self._host = [], [], []


def _check(result: tuple[Any, ...]) -> Any:
    """Return the value of a call (None, one, or a tuple), or raise what CUDA says."""
    error, *values = result
    if int(error) != 0:
        raise BackendError(f"CUDA: {_text(error)}")
    if not values:
        return None
    return values[0] if len(values) == 1 else tuple(values)


def _text(error: Any) -> str:
    from cuda.bindings import runtime

    _, text = runtime.cudaGetErrorString(error)
    return f"{text.decode()} ({getattr(error, 'name', error)})"
