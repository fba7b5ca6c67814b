"""ONNX Runtime, on the CPU or on CUDA: the default backend."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from engine.backends.protocol import BackendError, Inputs, Outputs
from engine.backends.warm import warm_up
from models.bundle import Bundle
from models.spec import WORDS

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def cuda_available() -> str | None:
    """Return why CUDA cannot be used, or None if this ONNX Runtime has it built in."""
    if PROVIDERS["cuda"] in ort.get_available_providers():
        return None
    return f"onnxruntime {ort.__version__} here has no CUDA provider (onnxruntime-gpu has)"


class OnnxBackend:
    """One session per graph of the bundle.

    Args:
        bundle: an opened bundle with ONNX graphs.
        device: ``cpu`` or ``cuda``.
        threads: intra-op threads; 0 takes one: the graphs are small, capture needs the other core,
            and more threads spend their time waiting for each other.
        eight_bit: on a CPU, take a graph in 8 bits where there is one; without, all run as the
            graphs that other backends are made from, to compare those with.

    Raises:
        BackendError: no graph to run, or the sessions did not come up on ``device``.
    """

    name = "onnx"

    def __init__(
        self,
        bundle: Bundle,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int = 0,
        eight_bit: bool = True,
    ) -> None:
        if device == "cuda" and (reason := cuda_available()) is not None:
            raise BackendError(reason)
        self.device = "cpu" if device == "cpu" else "cuda:0"
        self.precision: str = bundle.config.precision
        # A second core, where there is one, halves what streams that speak at once wait for.
        self.at_once = min(2, _cores()) if device == "cpu" else 1
        self._bundle = bundle
        options = _options(threads)
        self._sessions: dict[str, Any] = {}
        for graph in bundle.config.graphs:
            if graph in WORDS:
                continue  # run by threads of their own
            try:
                small = eight_bit and device == "cpu"
                path = bundle.cpu_path(graph) if small else bundle.path(graph)
                session = ort.InferenceSession(str(path), options, providers=_providers(device))
            except Exception as error:  # onnxruntime raises a type of its own per cause
                raise BackendError(f"onnxruntime cannot load {graph}: {error}") from error
            # ONNX Runtime falls back to the CPU silently.
            if (chosen := session.get_providers()[0]) != PROVIDERS[device]:
                raise BackendError(f"expected {PROVIDERS[device]} for {graph}, got {chosen}")
            self._sessions[graph] = session
        if "fusion" not in self._sessions:
            raise BackendError(
                f"bundle {bundle.config.name!r} has no ONNX graph of its fusion network; "
                f"its graphs: {sorted(self._sessions) or 'none'}"
            )
        self._outputs = {
            graph: [output.name for output in session.get_outputs()]
            for graph, session in self._sessions.items()
        }

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        return frozenset(self._sessions)

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph; see ``protocol.Backend``."""
        session = self._sessions.get(graph)
        if session is None:
            raise BackendError(f"the bundle has no graph {graph!r}, only {sorted(self._sessions)}")
        names = self._outputs[graph]
        values = session.run(names, {name: np.asarray(value) for name, value in inputs.items()})
        return dict(zip(names, values, strict=True))

    def warm_up(self) -> None:
        """Run every graph once at its smallest and its usual sizes."""
        warm_up(self, self._bundle.config)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _providers(device: Literal["cpu", "cuda"]) -> list[Any]:
    if device == "cpu":
        return [PROVIDERS["cpu"]]
    return [(PROVIDERS["cuda"], {"arena_extend_strategy": "kSameAsRequested"}), PROVIDERS["cpu"]]


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Idle pool threads that spin would take a core from the capture workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena would keep the largest batch ever seen, once for each graph: 45 MB after a crowd.
    options.enable_cpu_mem_arena = False
    return options
