"""Puts low precision into an ONNX graph, by casts: what a strongly typed compiler then obeys.

Matrix products and convolutions compute in float16 or bfloat16; normalisation, pooling, softmax,
reductions and the last layers stay in float32, and so do the graph's inputs and outputs. Layers
that only move or clip values follow their input, so that the narrow type also saves bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from models.errors import UserError

LowPrecision = Literal["fp16", "bf16"]

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
"""Compute in low precision (their sums are kept in float32 by the hardware)."""
FOLLOWERS = frozenset(
    {"Relu", "Transpose", "Reshape", "Slice", "Concat", "Split", "Squeeze", "Unsqueeze",
     "Identity", "Flatten", "Add"}
)  # fmt: skip
"""Low where every value that they take is; their results need no wider type."""
NARROW_HEAD = 8
"""A product with at most this many outputs is a head: its rounding is the score's own."""
LOW = "__low"


class PrecisionError(UserError, ValueError):
    """A graph that cannot be converted; names the graph and why."""


def lowered(onnx_model: bytes, precision: LowPrecision, heads: bool = False) -> bytes:
    """Return the serialised graph with its products in ``precision``.

    Args:
        onnx_model: a serialised ONNX model in float32.
        precision: ``fp16`` or ``bf16``.
        heads: the last layers too, for a GPU without float32 products.

    Raises:
        PrecisionError: the graph holds no product, or is in low precision already.
    """
    import onnx

    model = onnx.load_from_string(onnx_model)
    _Rewriter(model, precision, heads).rewrite()
    converted: bytes = model.SerializeToString()
    return converted


class _Rewriter:
    """One pass over the nodes, which ONNX keeps in topological order."""

    def __init__(self, model: Any, precision: LowPrecision, heads: bool) -> None:
        from onnx import TensorProto

        self._heads = heads
        # Small sums over modalities: low only where nothing else can be computed.
        self._products = PRODUCTS | {"Einsum"} if heads else PRODUCTS
        self._graph = model.graph
        self._type = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.BFLOAT16
        self._float32 = TensorProto.FLOAT
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._low: dict[str, str] = {}
        """Name of before to that of the low tensor, where there is one."""
        self._wide = {entry.name for entry in self._graph.input} | self._weights.keys()
        """Tensors that exist as they were before."""
        self._nodes: list[Any] = []
        types = {tensor.data_type for tensor in self._graph.initializer}
        if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16}:
            raise PrecisionError("expected a float32 graph, it holds low precision weights already")

    def rewrite(self) -> None:
        products = 0
        for node in list(self._graph.node):
            if node.op_type in self._products and (self._heads or not self._is_head(node)):
                products += 1
                self._append_low(node)
            elif node.op_type in FOLLOWERS and self._follows(node):
                self._append_low(node)
            else:
                self._append_wide(node)
        if not products:
            raise PrecisionError("expected a graph with matrix products or convolutions, got none")
        for output in self._graph.output:
            self._need_wide(output.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = self._names_of_inputs() | {output.name for output in self._graph.output}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        del self._graph.value_info[:]  # they state the types of before

    def _names_of_inputs(self) -> set[str]:
        return {name for node in self._graph.node for name in _needed(node)}

    def _is_head(self, node: Any) -> bool:
        """Whether this is a last layer: a product with constant weights and few outputs."""
        weight = self._weights.get(node.input[1])
        if weight is None or node.op_type not in ("MatMul", "Gemm"):
            return False
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return bool(weight.dims[0 if transposed else -1] <= NARROW_HEAD)

    def _follows(self, node: Any) -> bool:
        values = self._values_of(node)
        moving = [name for name in values if name not in self._weights]
        constant = [name for name in values if name in self._weights]
        return (
            bool(moving)
            and all(name in self._low for name in moving)
            and all(self._weights[name].data_type == self._float32 for name in constant)
        )

    @staticmethod
    def _values_of(node: Any) -> list[str]:
        """Inputs that hold values; the others are shapes and indices."""
        many = node.op_type in ("Concat", "Add")
        return [name for name in (node.input if many else node.input[:1]) if name]

    def _append_low(self, node: Any) -> None:
        every = node.op_type in self._products
        values = set(node.input) if every else set(self._values_of(node))
        names = [self._as_low(name) if name in values else name for name in node.input]
        del node.input[:]
        node.input.extend(names)
        for index, name in enumerate(node.output):
            if name:
                self._low[name] = node.output[index] = name + LOW
        self._nodes.append(node)

    def _append_wide(self, node: Any) -> None:
        for name in _needed(node):
            self._need_wide(name)
        self._wide.update(node.output)
        self._nodes.append(node)

    def _as_low(self, name: str) -> str:
        if not name:
            return name
        if name not in self._low:
            self._low[name] = name + LOW
            if name in self._weights:
                self._add_low_weight(name)
            else:
                self._cast(name, name + LOW, self._type)
        return self._low[name]

    def _need_wide(self, name: str) -> None:
        """Widen a tensor that exists in low precision only."""
        if name in self._low and name not in self._wide:
            self._wide.add(name)
            self._cast(self._low[name], name, self._float32)

    def _cast(self, source: str, target: str, to: int) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=to))

    def _add_low_weight(self, name: str) -> None:
        from onnx import TensorProto, numpy_helper

        values = numpy_helper.to_array(self._weights[name])
        low = TensorProto(name=name + LOW, data_type=self._type, dims=values.shape)
        low.raw_data = _narrow(values, self._type == TensorProto.FLOAT16).tobytes()
        self._graph.initializer.append(low)


def _needed(node: Any) -> Iterable[str]:
    """Names that a node takes, those of its subgraphs (If, Loop) included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _needed(inner)


def _narrow(values: np.ndarray[Any, Any], half: bool) -> np.ndarray[Any, Any]:
    """Round float32 weights to float16, or to bfloat16 as its 16 bits, to nearest even."""
    narrow: np.ndarray[Any, Any]
    if half:
        largest = float(np.finfo(np.float16).max)
        narrow = np.clip(values, -largest, largest).astype(np.float16)
    else:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        narrow = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return narrow
