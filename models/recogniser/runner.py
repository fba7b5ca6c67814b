"""A recogniser's graphs in ONNX Runtime sessions of their own, for use in threads of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recogniser.decoding import Floats, GreedyDecoder, RecogniserError, TokenTable

GRAPHS = ("recogniser_lower", "recogniser_upper", "recogniser_cross", "recogniser_decoder")


class OnnxGraphs:
    """Runs graphs by name; safe to be called from several threads."""

    def __init__(self, paths: Mapping[str, Path], threads: int = 1) -> None:
        """Load the graphs; ``threads`` of each run.

        Raises:
            RecogniserError: a file that ONNX Runtime cannot load.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Lengths differ from call to call: arenas and patterns would only keep memory.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._sessions: dict[str, Any] = {}
        self._outputs: dict[str, list[str]] = {}
        for name, path in paths.items():
            try:
                session = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # the runtime's errors have no common base
                reason = str(error).strip().partition("\n")[0][:200]
                raise RecogniserError(f"{path}: cannot be loaded: {reason}") from None
            self._sessions[name] = session
            self._outputs[name] = [output.name for output in session.get_outputs()]

    def __call__(
        self, graph: str, inputs: Mapping[str, NDArray[np.generic]]
    ) -> Mapping[str, Floats]:
        """Run a graph."""
        values = self._sessions[graph].run(None, dict(inputs))
        return dict(zip(self._outputs[graph], values, strict=True))

    def shape(self, graph: str, name: str) -> list[Any]:
        """Axes of an input or output; names where they vary."""
        session = self._sessions[graph]
        for value in (*session.get_inputs(), *session.get_outputs()):
            if value.name == name:
                return list(value.shape)
        raise RecogniserError(f"{graph}: expected an input or output {name!r}, there is none")


def load_decoder(paths: Mapping[str, Path], tokens: Path, threads: int = 1) -> GreedyDecoder:
    """Load a recogniser from its four graphs (by the names in GRAPHS) and its token table.

    Raises:
        RecogniserError: a graph that cannot be loaded, or a token table of another model.
    """
    table = TokenTable.read(tokens)
    graphs = OnnxGraphs(paths, threads)
    parts, _, heads, _, width = graphs.shape("recogniser_decoder", "past")
    vocabulary = graphs.shape("recogniser_decoder", "logits")[-1]
    # A vocabulary is rounded up to a multiple of 1024 or so; more tokens than that, or far fewer,
    # are another model's.
    if not 0 <= vocabulary - len(table) < 1024:
        raise RecogniserError(
            f"{tokens}: expected the {vocabulary} tokens of the decoder, got {len(table)}: "
            f"the table of another model"
        )
    return GreedyDecoder(graphs, table, (parts, heads, width))
