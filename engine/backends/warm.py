"""The inputs a backend is warmed up with: every graph at its smallest and its usual size."""

from __future__ import annotations

import numpy as np

from engine.backends.protocol import Backend, Inputs
from models.graphs import FusionGraph, Graph, RowGraph, SequenceGraph, graphs_of
from models.spec import BundleConfig


def warm_up(backend: Backend, config: BundleConfig) -> None:
    """Run each graph of ``backend`` on zeros of the sizes that ``config`` implies."""
    for graph, inputs in example_inputs(config):
        if graph in backend.graphs:
            backend.run(graph, inputs)


def example_inputs(config: BundleConfig) -> list[tuple[str, Inputs]]:
    """Return (graph, inputs) of zeros: batches of one and of several, shapes as the core makes."""
    return [
        (name, inputs) for name, graph in graphs_of(config).items() for inputs in _examples(graph)
    ]


def _examples(graph: Graph) -> list[Inputs]:
    match graph:
        case SequenceGraph():
            shapes = [graph.shape(batch, graph.usual_frames) for batch in (1, 2)]
            return [{"input": np.zeros(shape, np.float32)} for shape in shapes]
        case RowGraph():
            rows = (1, graph.usual_rows)
            return [{"input": np.zeros((count, *graph.shape), np.float32)} for count in rows]
        case FusionGraph():
            return [_windows(graph, batch) for batch in (1, 2)]


def _windows(graph: FusionGraph, batch: int) -> Inputs:
    """Full windows: frames of zeros, all of them real."""
    return {
        name: np.zeros(shape, np.float32) if len(shape) == 3 else np.ones(shape, np.bool_)
        for name, shape in graph.shapes(batch, graph.full).items()
    }
