"""A backend whose tone encoder runs in ONNX Runtime: an 8-bit graph that others cannot take."""

from __future__ import annotations

import numpy as np

from engine.backends.protocol import Backend, BackendError, Inputs, Outputs
from engine.backends.warm import example_inputs
from models.bundle import Bundle
from models.recogniser.decoding import RecogniserError
from models.recogniser.runner import OnnxGraphs
from models.spec import GraphName

TONE: GraphName = "audio_encoder"


class MixedBackend:
    """Runs a recogniser's lower graph on the CPU, and all others with the backend behind it.

    Args:
        backend: cannot run the audio encoder.
        bundle: holds its graph.

    Raises:
        BackendError: the graph cannot be loaded.
    """

    def __init__(self, backend: Backend, bundle: Bundle) -> None:
        self._backend = backend
        self._config = bundle.config
        try:
            self._tone = OnnxGraphs({TONE: bundle.path(TONE)})
        except RecogniserError as error:
            raise BackendError(str(error)) from None
        self.name = backend.name
        self.device = backend.device
        self.precision = backend.precision
        self.at_once = 1

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        return self._backend.graphs | {TONE}

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph; see ``protocol.Backend``."""
        if graph != TONE:
            return self._backend.run(graph, inputs)
        rows = np.asarray(inputs["input"])
        # One row at a time: activations are quantised by the range that a run sees.
        found = [self._tone(TONE, {"input": row[None]})["frames"] for row in rows]
        return {"frames": np.concatenate(found)}

    def warm_up(self) -> None:
        """Run every graph once, so that the first score does not pay for lazy set-up."""
        self._backend.warm_up()
        for graph, inputs in example_inputs(self._config):
            if graph == TONE:
                self.run(graph, inputs)


def with_tone(backend: Backend, bundle: Bundle) -> Backend:
    """The backend, able to run the bundle's audio encoder.

    Raises:
        BackendError: the encoder's graph cannot be loaded.
    """
    audio = bundle.config.audio_encoder
    if audio is None or audio.kind != "recogniser" or TONE in backend.graphs:
        return backend
    return MixedBackend(backend, bundle)
