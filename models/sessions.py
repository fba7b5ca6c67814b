"""ONNX Runtime sessions of graphs outside of the scoring path: words, transcripts, voices."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class SessionError(ValueError):
    """A graph that ONNX Runtime cannot load; one line with the file and the reason."""


def open_session(path: Path, threads: int = 1) -> Any:
    """Load a graph on the CPU, for inputs whose lengths differ from run to run.

    Args:
        path: ONNX file.
        threads: of one run.

    Raises:
        SessionError: ONNX Runtime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle threads that spin would take a core from capture and scoring.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Lengths differ from run to run: arenas and patterns would only keep memory.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common base
        reason = str(error).strip().partition("\n")[0][:200]
        raise SessionError(f"{path}: cannot be loaded: {reason}") from None
