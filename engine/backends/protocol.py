"""What the inference core asks of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError

Array = NDArray[np.float32] | NDArray[np.bool_]
Inputs = Mapping[str, Array]
Outputs = dict[str, NDArray[np.float32]]


class BackendError(UserError):
    """A backend that cannot be used: what is missing and how to get it."""


class Backend(Protocol):
    """Runs the graphs of one bundle, by ``models.spec.GraphName``."""

    name: str
    """``onnx``, ``pytorch`` or ``tensorrt``."""
    device: str
    """``cpu`` or ``cuda:0``."""
    precision: str
    """Arithmetic of the graphs' products: ``float32``, ``float16`` or ``bfloat16``."""
    at_once: int
    """Threads that may run a graph at the same time, and gain by it."""

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        ...

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph on named float32 or bool arrays, batch first; outputs by name.

        Raises:
            BackendError: the bundle has no such graph.
        """
        ...

    def warm_up(self) -> None:
        """Run every graph once, so that the first score does not pay for lazy set-up."""
        ...
