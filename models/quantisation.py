"""ONNX graphs with weights of 8 bits: products that run in them, and tables stored in them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = 8
"""Steps of calibration, to keep few activations in memory at once."""
PERCENTILE = 99.999


def quantise_products(source: Path, target: Path, skip: Sequence[str] = ()) -> None:
    """Run a graph's matrix products by constant weights in 8 bits.

    Weights have a step per column and take 7 of the 8 bits: without VNNI, pairs of products of
    two 8-bit numbers would overflow. Activations have one step per call, found as it runs.

    Args:
        source: float32 graph.
        target: where the quantised one goes.
        skip: names of the nodes that stay in float32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises preprocessing that the exporter has done
    try:
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(skip),
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)


def quantise_images(source: Path, target: Path, pictures: NDArray[np.float32]) -> None:
    """Run a convolutional graph in 8 bits from end to end, with steps fixed beforehand.

    Steps of activations come from example inputs: they hold all but one of a hundred thousand
    values, so that a single bright pixel does not cost everybody resolution. Weights have a step
    per channel and take 7 of the 8 bits, as in ``quantise_products``.

    Args:
        source: float32 graph with one input.
        target: where the quantised one goes.
        pictures: [N, C, S, S] inputs as the graph will see them; a few hundred.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Examples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._batches = iter([{name: batch} for batch in np.array_split(pictures, BATCHES)])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self._batches, None)

    import onnx

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            name = onnx.load(prepared).graph.input[0].name
            quantize_static(
                prepared,
                target,
                Examples(name),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"CalibPercentile": PERCENTILE},
            )
    finally:
        root.setLevel(level)


def store(graph: Any, names: Collection[str], axis: int) -> None:
    """Store weights as int8 with a step for each index of ``axis``; loading expands them.

    They cost a quarter on the disk; in memory and in arithmetic they stay float32.
    """
    from onnx import helper, numpy_helper

    for item in [item for item in graph.initializer if item.name in names]:
        whole, step = _whole(numpy_helper.to_array(item), axis)
        name = item.name
        graph.initializer.remove(item)
        graph.initializer.extend(
            [
                numpy_helper.from_array(whole, f"{name}_quantized"),
                numpy_helper.from_array(step, f"{name}_scale"),
            ]
        )
        graph.node.insert(0, helper.make_node("Mul", [f"{name}_whole", f"{name}_scale"], [name]))
        graph.node.insert(
            0, helper.make_node("Cast", [f"{name}_quantized"], [f"{name}_whole"], to=1)
        )


def store_table(graph: Any, name: str) -> None:
    """Keep a table that rows are looked up in as int8 with a step per row, in memory too."""
    from onnx import numpy_helper

    (table,) = [item for item in graph.initializer if item.name == name]
    whole, step = _whole(numpy_helper.to_array(table), 0)
    graph.initializer.remove(table)
    graph.initializer.extend(
        [
            numpy_helper.from_array(whole, f"{name}_quantized"),
            numpy_helper.from_array(step, f"{name}_scale"),
        ]
    )
    look_up_whole(graph, name)


def look_up_whole(graph: Any, name: str) -> bool:
    """Let every lookup in table ``name`` read its int8 form; return whether there was one.

    The int8 rows are ``{name}_quantized`` and their steps ``{name}_scale``.
    """
    from onnx import helper

    lookups = [
        (index, node)
        for index, node in enumerate(graph.node)
        if node.op_type == "Gather" and node.input[0] == name
    ]
    for index, node in reversed(lookups):
        out, ids = node.output[0], node.input[1]
        node.input[0], node.output[0] = f"{name}_quantized", f"{out}_stored"
        added = [
            helper.make_node("Cast", [f"{out}_stored"], [f"{out}_whole"], to=1),
            helper.make_node("Gather", [f"{name}_scale", ids], [f"{out}_step"], axis=0),
            helper.make_node("Mul", [f"{out}_whole", f"{out}_step"], [out]),
        ]
        for offset, item in enumerate(added, 1):
            graph.node.insert(index + offset, item)
    return bool(lookups)


def _whole(values: Any, axis: int) -> tuple[Any, Any]:
    """Nearest int8 values and their steps, of the shape that multiplies them back."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    step = np.abs(values).max(axis=others, keepdims=True).astype(np.float32) / 127
    step = np.maximum(step, np.finfo(np.float32).tiny)
    return np.round(values / step).astype(np.int8), step
