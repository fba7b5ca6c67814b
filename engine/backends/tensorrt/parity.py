"""Parity: a backend against ONNX Runtime on random input, beyond a tolerance refused.

Every graph, full and odd batches and lengths; the fusion network with every subset of the
modalities in both flows. Two runs of the same shapes with other numbers, so that a CUDA graph
that replays stale outputs does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engine.backends.protocol import Array, Backend, BackendError, Inputs, Outputs
from engine.backends.tensorrt.build import Precision
from engine.backends.tensorrt.profiles import FusionLayout, Layout, SequenceLayout
from models.spec import MODALITIES, GraphName

TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1.5e-1}
"""Largest difference, as part of 1 + the expected value's size."""
SUBSETS = tuple(product((False, True), repeat=len(MODALITIES)))
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Parity:
    """How well one graph agreed."""

    graph: str
    difference: float
    """Largest, as part of 1 + the expected value's size."""


def verify(
    graph: GraphName, layout: Layout, backend: Backend, reference: Backend, precision: Precision
) -> Parity:
    """Compare a graph on both backends.

    Raises:
        BackendError: they differ by more than the tolerance, in shape or in where they are NaN.
    """
    worst = 0.0
    for inputs in random_inputs(layout):
        expected, actual = reference.run(graph, inputs), backend.run(graph, inputs)
        worst = max(worst, _difference(graph, expected, actual))
    if not worst <= TOLERANCE[precision]:
        raise BackendError(
            f"{graph}: the plan differs from ONNX Runtime by {worst:.2g} of 1 + the value, "
            f"expected at most {TOLERANCE[precision]:g} in {precision}"
        )
    return Parity(graph, worst)


def random_inputs(layout: Layout) -> Iterator[Inputs]:
    """Make inputs of usual and of odd shapes, the same at every call."""
    rng = np.random.default_rng(20241029)
    for _ in range(ROUNDS):
        if isinstance(layout, FusionLayout):
            yield from (_fusion(layout, lengths, rng) for lengths in _fusion_lengths(layout))
        elif isinstance(layout, SequenceLayout):
            usual, most = layout.usual_frames, layout.longest_frames
            for batch, frames in ((1, usual), (3, 1), (2, usual + 1), (1, most + 2)):
                shape = (batch, layout.context + frames * layout.stride, *layout.features)
                yield {"input": rng.standard_normal(shape, np.float32)}
        else:
            shape = layout.usual(1)["input"][1:]
            for batch in (1, 3, 8):
                yield {"input": rng.standard_normal((batch, *shape), np.float32)}


def _fusion_lengths(layout: FusionLayout) -> Iterator[tuple[int, ...]]:
    yield layout.full
    yield tuple(max(1, length // 3) for length in layout.full)
    longest = zip(layout.full, layout.longest, strict=True)
    yield tuple(min(2 * length, most) for length, most in longest)


def _fusion(layout: FusionLayout, lengths: tuple[int, ...], rng: np.random.Generator) -> Inputs:
    """Every subset of the modalities, once simulated and once with a given text."""
    batch = 2 * len(SUBSETS)
    present = np.array(SUBSETS * 2)
    inputs: dict[str, Array] = {"text_simulated": np.arange(batch) < len(SUBSETS)}
    for column, (name, length) in enumerate(zip(MODALITIES, lengths, strict=True)):
        counts = rng.integers(1, length + 1, batch) * present[:, column]
        mask: NDArray[np.bool_] = np.arange(length) < counts[:, None]
        frames = rng.standard_normal((batch, length, layout.dim), np.float32)
        inputs[name] = np.where(mask[:, :, None], frames, np.float32(0))
        inputs[f"{name}_mask"] = mask
    return inputs


def _difference(graph: str, expected: Outputs, actual: Outputs) -> float:
    worst = 0.0
    for name, values in expected.items():
        found = actual.get(name)
        if found is None or found.shape != values.shape:
            shape = None if found is None else list(found.shape)
            raise BackendError(f"{graph}: {name}: expected {list(values.shape)}, got {shape}")
        known = np.isfinite(values)
        if not np.array_equal(known, np.isfinite(found)):
            raise BackendError(
                f"{graph}: the plan differs from ONNX Runtime: {name} is NaN in other places"
            )
        difference = np.abs(found[known] - values[known]) / (1 + np.abs(values[known]))
        worst = max(worst, float(difference.max(initial=0.0)))
    return worst
