"""Building one plan: an ONNX graph through TensorRT's parser and builder to bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.api import TensorRT
from engine.backends.tensorrt.profiles import InputRange
from models.precision import PrecisionError, lowered

Precision = Literal["fp16", "bf16", "fp32"]
ARITHMETIC: dict[Precision, str] = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
"""As scores and bundles name it."""
WORKSPACE_BYTES = 1 << 30
WIDE_LAYERS = ("SOFTMAX", "NORMALIZATION", "REDUCE")
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION")
INSPECTOR_NAMES: dict[Precision, str] = {
    "fp16": r"half|fp16|float16",
    "bf16": r"bfloat16|bf16",
    "fp32": r"float|fp32",
}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How many layers compute in which type."""

    low_products: int
    products: int
    """Matrix products and convolutions in all; the difference are heads, kept in float32."""
    wide_layers: int
    """Softmax, normalisation and reduction, all of them in float32."""


@dataclass(frozen=True, slots=True)
class Build:
    """What came out of a build."""

    plan: bytes
    arithmetic: Arithmetic
    timing_cache: bytes


def prepared(
    onnx_model: bytes, precision: Precision, stored: str, heads_low: bool = False
) -> bytes:
    """Put ``precision`` into a graph whose bundle stores it as ``stored``.

    Args:
        onnx_model: a serialised graph.
        precision: of its products.
        stored: the arithmetic that it holds now.
        heads_low: of the last layers as well.

    Raises:
        BackendError: the graph is in low precision already, and in another.
    """
    if ARITHMETIC[precision] == stored:
        return onnx_model
    if stored != "float32":
        raise BackendError(f"the bundle is stored in {stored}: expected --precision fp16")
    assert precision != "fp32"  # it is what float32 is stored as
    try:
        return lowered(onnx_model, precision, heads_low)
    except PrecisionError as error:
        raise BackendError(str(error)) from None


def build(
    api: TensorRT,
    onnx_model: bytes,
    ranges: Sequence[InputRange],
    precision: Precision,
    capability: str | None = None,
    timing_cache: bytes = b"",
    report: Callable[[str], None] | None = None,
) -> Build:
    """Build a plan with one optimisation profile.

    Args:
        api: which TensorRT.
        onnx_model: a serialised graph with its precision in it.
        ranges: shapes of every input.
        precision: what the graph was converted to; the network is checked for it.
        capability: compute capability to build for (TensorRT for RTX); None: that at hand.
        timing_cache: of an earlier build (data-centre TensorRT).
        report: called with the phases of the build.

    Raises:
        BackendError: an operator, a shape or the build is refused, or the network computes in
            other types than the graph was given.
    """
    trt = api.trt
    builder = trt.Builder(api.logger)
    network = api.network(builder)
    _parse(api, network, onnx_model)
    arithmetic = check_arithmetic(api, network, precision)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # who asks for float32 gets its 24 bits
    api.target(config, capability)
    _set_profile(api, builder, config, network, ranges)
    timings = api.use_timing_cache(config, timing_cache)
    monitor = None if report is None else api.watch(config, report)
    plan = builder.build_serialized_network(network, config)
    del monitor  # it had to live until here
    if plan is None:
        raise BackendError(f"TensorRT builds no plan: {api.logger.last}")
    return Build(bytes(plan), arithmetic, b"" if timings is None else bytes(timings.serialize()))


def _parse(api: TensorRT, network: Any, onnx_model: bytes) -> None:
    parser = api.trt.OnnxParser(network, api.logger)
    if parser.parse(onnx_model) and not parser.num_errors:
        return
    faults = [parser.get_error(index) for index in range(parser.num_errors)]
    messages = [
        f"{fault.node_operator()} {fault.node_name()!r}: {fault.desc()}" for fault in faults
    ]
    raise BackendError(
        "TensorRT cannot parse the graph: " + ("; ".join(messages) or "no reason given")
    )


def _set_profile(
    api: TensorRT, builder: Any, config: Any, network: Any, ranges: Sequence[InputRange]
) -> None:
    actual = {network.get_input(index).name for index in range(network.num_inputs)}
    if actual != {entry.name for entry in ranges}:
        expected = sorted(entry.name for entry in ranges)
        raise BackendError(f"graph inputs: expected {expected}, got {sorted(actual)}")
    profile = builder.create_optimization_profile()
    for entry in ranges:
        profile.set_shape(entry.name, entry.minimum, entry.optimum, entry.maximum)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT refuses the optimisation profile: {api.logger.last}")


def check_arithmetic(api: TensorRT, network: Any, precision: Precision) -> Arithmetic:
    """Check the type of every layer of a parsed, strongly typed network: the builder keeps them.

    Raises:
        BackendError: no product is in the low precision, or a softmax, a normalisation or a
            reduction is.
    """
    trt = api.trt
    low = {"fp16": trt.DataType.HALF, "bf16": trt.DataType.BF16, "fp32": trt.DataType.FLOAT}
    narrow = {trt.DataType.HALF, trt.DataType.BF16}
    products = low_products = wide = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind, dtype = layer.type.name, layer.get_output(0).dtype
        if kind in PRODUCTS:
            products += 1
            low_products += dtype == low[precision]
            if dtype in narrow and dtype != low[precision]:
                raise BackendError(f"{layer.name}: expected {precision}, got {dtype}")
        elif kind in WIDE_LAYERS:
            if dtype in narrow:
                raise BackendError(f"{layer.name}: expected {kind.lower()} in fp32, got {dtype}")
            wide += dtype == trt.DataType.FLOAT
    if not low_products:
        raise BackendError(f"expected products in {precision}, got none among {products}")
    return Arithmetic(low_products, products, wide)


def check_inspected(inspected: str, precision: Precision) -> int:
    """Check a loaded plan's inspector output; return how many layers are in ``precision``.

    Raises:
        BackendError: layers are described, and none is in ``precision``.
    """
    layers = json.loads(inspected).get("Layers", [])
    described = [json.dumps(layer) for layer in layers if isinstance(layer, dict)]
    pattern = re.compile(INSPECTOR_NAMES[precision], re.IGNORECASE)
    found = sum(1 for text in described if pattern.search(text))
    if described and not found:
        raise BackendError(f"inspector: expected layers in {precision}, none of {len(described)}")
    return found
