"""A recogniser's graphs in ONNX Runtime sessions of their own, for use in threads of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.recogniser.decoding import Floats, GreedyDecoder, RecogniserError, TokenTable
from models.sessions import SessionError, open_session

GRAPHS = ("recogniser_lower", "recogniser_upper", "recogniser_cross", "recogniser_decoder")


class OnnxGraphs:
    """Runs graphs by name; safe to be called from several threads."""

    def __init__(self, paths: Mapping[str, Path], threads: int = 1) -> None:
        """Load the graphs; ``threads`` of each run.

        Raises:
            RecogniserError: a file that ONNX Runtime cannot load.
        """
        self._sessions: dict[str, Any] = {}
        self._outputs: dict[str, list[str]] = {}
        for name, path in paths.items():
            try:
                session = open_session(path, threads)
            except SessionError as error:
                raise RecogniserError(str(error)) from None
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
