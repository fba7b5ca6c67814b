"""Both TensorRTs behind one seam: ``tensorrt`` (data centre) and ``tensorrt_rtx`` (RTX cards).

Their Python modules are nearly the same; what differs is here and nowhere else. TensorRT for RTX
builds for named compute capabilities, without a GPU, and compiles kernels when a plan is loaded,
which its runtime cache keeps; the data-centre one builds and times kernels on the GPU itself.
Both are used strongly typed: precision is in the graph. TensorRT answers many calls with a bool
or None; every one becomes a ``BackendError`` here.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.callbacks import make_logger, make_monitor
from models.graphs import Shape

log = logging.getLogger(__name__)

Kind = Literal["rtx", "datacentre"]
MODULES: dict[Kind, str] = {"datacentre": "tensorrt", "rtx": "tensorrt_rtx"}
VERSIONS: dict[Kind, tuple[tuple[int, int], tuple[int, int]]] = {
    "datacentre": ((10, 13), (12, 0)),
    "rtx": ((1, 2), (2, 0)),
}
"""Lowest version, and the first that is too new."""
NOT_INSTALLED = (
    'TensorRT is not installed: for GeForce and RTX cards pip install -e ".[rtx]"; for '
    'data-centre cards pip install -e ".[tensorrt]" --extra-index-url '
    "https://pypi.nvidia.com (its vendor's own index)"
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a plan."""

    name: str
    is_input: bool
    boolean: bool
    shape: Shape
    """-1 where it varies."""
    largest: Shape
    """Largest shape of an input; of an output ()."""


class Context(Protocol):
    """A plan ready to be run at one set of shapes after another."""

    def set_shape(self, name: str, shape: Shape) -> None:
        """State the shape of an input.

        Raises:
            BackendError: it is outside the profile.
        """
        ...

    def bind(self, name: str, address: int) -> None:
        """Set the address of a tensor on the device."""
        ...

    def output_shape(self, name: str) -> Shape:
        """Shape of an output at the stated input shapes."""
        ...

    def enqueue(self, stream: int) -> None:
        """Queue one run.

        Raises:
            BackendError: TensorRT refused; what the outputs hold then is old.
        """
        ...

    def capturable(self, stream: int) -> bool:
        """Whether the run may be recorded into a CUDA graph now."""
        ...


class LoadedPlan(Protocol):
    """A plan on the device."""

    tensors: tuple[Tensor, ...]
    scratch_bytes: int
    """Device memory that a run needs; runs in one stream may share it."""

    def context(self, scratch: int, one_shape: bool) -> Context:
        """Make a context that works in ``scratch`` (an address).

        ``one_shape``: it is run at one set of shapes, worth compiling kernels for.
        """
        ...

    def kernel_cache(self) -> bytes:
        """Kernels compiled so far (TensorRT for RTX), for the next start; else empty."""
        ...

    def inspect(self) -> str:
        """What TensorRT's inspector says of every layer, as JSON."""
        ...


def installed() -> Kind | None:
    """Which TensorRT there is; the data-centre one, which nobody installs by chance, first."""
    return next((kind for kind, module in MODULES.items() if find_spec(module)), None)


class TensorRT:
    """One of the two packages.

    Raises:
        BackendError: it is missing, cannot be imported, or is of an unknown version.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        found = kind or installed()
        if found is None or find_spec(MODULES[found]) is None:
            raise BackendError(NOT_INSTALLED)
        try:
            self.trt: Any = importlib.import_module(MODULES[found])
        except (ImportError, OSError) as error:
            raise BackendError(f"{MODULES[found]} cannot be imported: {error}") from None
        self.kind: Kind = found
        self.version: str = self.trt.__version__
        low, high = VERSIONS[found]
        if not low <= _number(self.version) < high:
            raise BackendError(
                f"{MODULES[found]}: expected a version from {low[0]}.{low[1]} to below "
                f"{high[0]}.{high[1]}, got {self.version}"
            )

    @cached_property
    def logger(self) -> Any:
        """One for the process: TensorRT complains of a second."""
        return make_logger(self.trt)

    @property
    def builds_without_gpu(self) -> bool:
        """Whether plans can be built on a machine without a GPU."""
        return self.kind == "rtx"

    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that plans can be built for without such a GPU."""
        if not self.builds_without_gpu:
            return ()
        names = self.trt.ComputeCapability.__members__
        return tuple(name.lower() for name in names if name.startswith("SM"))

    def has_wide_products(self, capability: str) -> bool:
        """Whether matrix products can be in float32: TensorRT for RTX has none on Turing."""
        return not (self.kind == "rtx" and capability == "sm75")

    def network(self, builder: Any) -> Any:
        """Make an empty, strongly typed network (the only kind from TensorRT 11 on)."""
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return builder.create_network(0 if flag is None else 1 << int(flag))

    def target(self, config: Any, capability: str | None) -> None:
        """Build for recording, and for ``capability``.

        None, or a capability unknown to the builder: its own choice.

        Raises:
            BackendError: the builder refuses, or builds only for the GPU at hand.
        """
        # A plan that allocates as it runs cannot be recorded; NaN says that there is no score.
        for name in ("REQUIRE_USER_ALLOCATION", "STRICT_NANS"):
            if (flag := getattr(self.trt.BuilderFlag, name, None)) is not None:
                config.set_flag(flag)
        if capability is None or not self.builds_without_gpu:
            return
        known = getattr(self.trt.ComputeCapability, capability.upper(), None)
        if known is None:
            log.warning("TensorRT for RTX does not list %s; it decides itself", capability)
            return
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(known, 0):
            raise BackendError(f"TensorRT cannot build for {capability}")

    def use_timing_cache(self, config: Any, blob: bytes) -> Any:
        """Let a build use the timings of earlier ones; TensorRT for RTX times nothing: None."""
        if self.kind == "rtx":
            return None
        cache = config.create_timing_cache(blob)
        # One of another version or GPU is refused: then an empty one is filled.
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            if not config.set_timing_cache(cache, ignore_mismatch=False):
                raise BackendError(f"TensorRT refuses a timing cache: {self.logger.last}")
        return cache

    def watch(self, config: Any, report: Callable[[str], None]) -> Any:
        """Report the phases of a build; the returned monitor must outlive it."""
        monitor = make_monitor(self.trt, report)
        config.progress_monitor = monitor
        return monitor

    def load(self, plan: bytes, kernel_cache: bytes = b"") -> LoadedPlan:
        """Load a plan onto the current GPU.

        Raises:
            BackendError: TensorRT does not take the plan.
        """
        return _Plan(self, plan, kernel_cache)


class _Plan:
    def __init__(self, api: TensorRT, plan: bytes, kernel_cache: bytes) -> None:
        trt = api.trt
        self._trt = trt
        self._runtime = trt.Runtime(api.logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise BackendError(f"TensorRT cannot load the plan: {api.logger.last}")
        engine = self.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.tensors = tuple(self._tensor(name) for name in names)
        self.scratch_bytes = int(engine.device_memory_size_v2)
        self._logger = api.logger
        self._strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._config: Any = None
        self._cache: Any = None
        if api.kind == "rtx":
            self._configure(kernel_cache)

    def _configure(self, kernel_cache: bytes) -> None:
        """TensorRT for RTX only: how kernels are compiled, kept and captured."""
        config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._strategy)
        # Our own graphs hold the copies as well as the kernels.
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.DISABLED
        self._cache = config.create_runtime_cache()
        if kernel_cache and not self._cache.deserialize(kernel_cache):
            log.info("compiled kernels of another driver or GPU are not used")
        if not config.set_runtime_cache(self._cache):
            raise BackendError("TensorRT for RTX refuses its runtime cache")
        self._config = config

    def _tensor(self, name: str) -> Tensor:
        engine, trt = self.engine, self._trt
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        kind = engine.get_tensor_dtype(name)
        if kind not in (trt.DataType.FLOAT, trt.DataType.BOOL):
            raise BackendError(f"plan: {name}: expected float32 or bool, got {kind}")
        largest = tuple(engine.get_tensor_profile_shape(name, 0)[2]) if is_input else ()
        shape = tuple(engine.get_tensor_shape(name))
        return Tensor(name, is_input, kind == trt.DataType.BOOL, shape, largest)

    def context(self, scratch: int, one_shape: bool) -> Context:
        if self._config is not None:
            # A recorded shape gets its own kernels at once, in the warm-up; a shape that comes
            # by chance must not wait for a compiler.
            kinds = self._trt.DynamicShapesKernelSpecializationStrategy
            self._config.dynamic_shapes_kernel_specialization_strategy = (
                kinds.EAGER if one_shape else kinds.NONE
            )
        made = self.engine.create_execution_context(
            self._strategy if self._config is None else self._config
        )
        if made is None:
            raise BackendError(f"TensorRT makes no execution context: {self._logger.last}")
        if hasattr(made, "set_device_memory"):
            made.set_device_memory(scratch, max(self.scratch_bytes, 256))
        else:  # the older TensorRT 10
            made.device_memory = scratch
        return _Context(made, self._logger)

    def kernel_cache(self) -> bytes:
        return b"" if self._cache is None else bytes(self._cache.serialize())

    def inspect(self) -> str:
        inspector = self.engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text


class _Context:
    def __init__(self, context: Any, logger: Any) -> None:
        self._context = context
        self._logger = logger

    def set_shape(self, name: str, shape: Shape) -> None:
        if not self._context.set_input_shape(name, shape):
            raise BackendError(f"{name}: TensorRT refuses shape {shape}: {self._logger.last}")

    def bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"{name}: TensorRT refuses its address: {self._logger.last}")

    def output_shape(self, name: str) -> Shape:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise BackendError(f"{name}: TensorRT cannot tell its shape, got {shape}")
        return shape

    def enqueue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"TensorRT refuses to run: {self._logger.last}")

    def capturable(self, stream: int) -> bool:
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))


def _number(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
