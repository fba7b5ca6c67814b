"""The network's graphs, run one after the other on frames that are not projected yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from models.spec import MODALITIES, PROJECTIONS

Run = Callable[[str, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a graph by name on its inputs: a backend's ``run``."""


def run_network(run: Run, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Outputs of the fusion for its ``inputs`` with frames [B, T, D] in place of projected ones."""
    projected = {}
    for name, graph in zip(MODALITIES, PROJECTIONS, strict=True):
        batch, length, dim = inputs[name].shape
        rows = run(graph, {"input": inputs[name].reshape(batch * length, dim)})["frames"]
        projected[name] = rows.reshape(batch, length, -1)
    return run("fusion", {**inputs, **projected})
