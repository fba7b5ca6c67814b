"""Every graph of every bundle is really parsed and built by TensorRT for RTX, without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.backends.onnx import OnnxBackend
from engine.backends.protocol import BackendError, Inputs, Outputs
from engine.backends.tensorrt.api import TensorRT
from engine.backends.tensorrt.build import (
    Precision,
    build,
    check_arithmetic,
    check_inspected,
    prepared,
)
from engine.backends.tensorrt.parity import TOLERANCE, verify
from engine.backends.tensorrt.profiles import InputRange, RowLayout, layouts
from models import bundle as bundles
from models.precision import PrecisionError, lowered
from models.spec import PROJECTIONS, GraphName
from tests.support.tiny_bundles import paper_like

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # the first exports a bundle

pytest.importorskip("tensorrt_rtx", reason='needs TensorRT for RTX: pip install -e ".[rtx]"')

EMBEDDED: tuple[GraphName, ...] = ("audio_encoder", "text_simulation")
GRAPHS: tuple[GraphName, ...] = ("video_encoder", *PROJECTIONS, "fusion")
"""Of the default bundle; its audio encoder, of 8 bits, is left to ONNX Runtime."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
CASES = [("untrained", graph) for graph in EMBEDDED]
CASES += [(name, graph) for name in ("default", "paper-like") for graph in GRAPHS]


@pytest.fixture(scope="module")
def api() -> TensorRT:
    return TensorRT("rtx")


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, untrained: bundles.Bundle
) -> dict[str, bundles.Bundle]:
    directory = tmp_path_factory.mktemp("bundles") / "paper-like"
    return {
        "default": bundles.open("default"),
        "paper-like": paper_like(directory),
        "untrained": untrained,
    }


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "graph"), CASES)
def test_every_graph_is_taken_in_every_precision(
    api: TensorRT,
    opened: dict[str, bundles.Bundle],
    name: str,
    graph: GraphName,
    precision: Precision,
) -> None:
    bundle = opened[name]
    model = prepared(bundle.path(graph).read_bytes(), precision, bundle.config.precision)
    layout = layouts(bundle.config, 64)[graph]
    ranges = layout.ranges
    rows = 64 * (layout.rows if isinstance(layout, RowLayout) else 1)
    assert all(entry.minimum[0] == 1 and entry.maximum[0] == rows for entry in ranges)
    made = build(api, model, ranges, precision, "sm89")
    assert len(made.plan) > 10_000
    arithmetic = made.arithmetic
    # What is not low is a head: valence, its interval, modality and query weights; relevance.
    heads = dict.fromkeys(PROJECTIONS, 1) | {"fusion": 4 if name == "default" else 3}
    wide = arithmetic.products - arithmetic.low_products
    assert wide == (heads.get(graph, 0) if precision != "fp32" else 0)
    # The voice network's normalisation is folded into its convolutions: nothing stays wide there.
    folded = ("audio_encoder", *PROJECTIONS)
    assert (arithmetic.wide_layers > 0) == (graph not in folded)


def test_low_precision_makes_a_smaller_plan(
    api: TensorRT, opened: dict[str, bundles.Bundle]
) -> None:
    bundle = opened["default"]
    ranges = layouts(bundle.config, 8)["video_encoder"].ranges
    raw = bundle.path("video_encoder").read_bytes()
    sizes = [
        len(build(api, prepared(raw, precision, "float32"), ranges, precision, "sm86").plan)
        for precision in PRECISIONS
    ]
    assert max(sizes[1:]) < 0.65 * sizes[0]


@pytest.mark.parametrize("capability", ["sm120", None])
def test_other_gpus_are_built_for(
    api: TensorRT, opened: dict[str, bundles.Bundle], capability: str | None
) -> None:
    bundle = opened["paper-like"]
    ranges = layouts(bundle.config, 4)["fusion"].ranges
    assert build(api, bundle.path("fusion").read_bytes(), ranges, "fp32", capability).plan


def test_turing_has_no_float32_products_so_its_heads_are_half_too(
    api: TensorRT, opened: dict[str, bundles.Bundle]
) -> None:
    bundle = opened["paper-like"]
    ranges = layouts(bundle.config, 4)["fusion"].ranges
    raw = bundle.path("fusion").read_bytes()
    heads_low = not api.has_wide_products("sm75")
    arithmetic = build(
        api, prepared(raw, "fp16", "float32", heads_low), ranges, "fp16", "sm75"
    ).arithmetic
    assert arithmetic.low_products == arithmetic.products
    with pytest.raises(BackendError, match="not supported"):
        build(api, raw, ranges, "fp32", "sm75")


class LowRunner:
    """ONNX Runtime on the converted graph: what the plan will compute."""

    def __init__(self, model: bytes) -> None:
        self._session = ort.InferenceSession(model)

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


@pytest.mark.parametrize(("name", "graph"), [case for case in CASES if case[0] != "paper-like"])
def test_half_precision_stays_far_within_its_tolerance(
    opened: dict[str, bundles.Bundle], name: str, graph: GraphName
) -> None:
    bundle = opened[name]
    low = lowered(bundle.path(graph).read_bytes(), "fp16")
    onnx.checker.check_model(onnx.load_from_string(low), full_check=True)
    parity = verify(
        graph,
        layouts(bundle.config, 64)[graph],
        LowRunner(low),  # type: ignore[arg-type]
        OnnxBackend(bundle, "cpu", threads=1, eight_bit=False),
        "fp16",
    )
    assert 0 < parity.difference < TOLERANCE["fp16"] / 2


def one_product(weight: np.ndarray) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["z"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", weight.shape[0]])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["B", weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


def test_bfloat16_weights_round_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.1415927] * 4, np.float32).reshape(1, 16)
    low = onnx.load_from_string(lowered(one_product(values), "bf16"))
    (weight,) = [t for t in low.graph.initializer if t.data_type == TensorProto.BFLOAT16]
    found = numpy_helper.to_array(weight).astype(np.float32)
    np.testing.assert_array_equal(found[0, :4], np.float32([1.0, 1.0, 1.015625, -3.140625]))


def test_a_head_stays_wide_and_then_nothing_is_left_to_convert() -> None:
    with pytest.raises(PrecisionError, match="expected a graph with matrix products"):
        lowered(one_product(np.ones((16, 3))), "fp16")


def test_a_graph_is_not_converted_twice(opened: dict[str, bundles.Bundle]) -> None:
    low = lowered(one_product(np.ones((16, 16))), "fp16")
    with pytest.raises(PrecisionError, match="low precision weights already"):
        lowered(low, "bf16")
    assert prepared(low, "fp16", "float16") == low
    with pytest.raises(BackendError, match="stored in float16"):
        prepared(low, "fp32", "float16")


def test_arithmetic_other_than_asked_for_is_refused(api: TensorRT) -> None:
    model = one_product(np.ones((16, 16)))
    ranges = (InputRange("x", False, (1, 16), (2, 16), (4, 16)),)
    assert build(api, model, ranges, "fp32", "sm86").arithmetic.low_products == 1
    with pytest.raises(BackendError, match="expected products in fp16, got none among 1"):
        build(api, model, ranges, "fp16", "sm86")
    low = lowered(model, "fp16")
    with pytest.raises(BackendError, match="expected bf16, got"):
        build(api, low, ranges, "bf16", "sm86")
    half = onnx.load_from_string(low)
    for node in half.graph.node:  # the softmax behind the product, without the cast between
        if node.op_type == "Softmax":
            node.input[0] = "y__low"
            node.output[0] = "z__low"
    half.graph.node.append(helper.make_node("Cast", ["z__low"], ["z"], to=TensorProto.FLOAT))
    network = api.network(api.trt.Builder(api.logger))
    assert api.trt.OnnxParser(network, api.logger).parse(half.SerializeToString())
    with pytest.raises(BackendError, match="expected softmax in fp32"):
        check_arithmetic(api, network, "fp16")


def test_an_operator_that_is_not_taken_is_named(api: TensorRT) -> None:
    model = onnx.load_from_string(one_product(np.ones((16, 16))))
    model.graph.node[1].op_type = "StringNormalizer"
    ranges = (InputRange("x", False, (1, 16), (2, 16), (4, 16)),)
    with pytest.raises(BackendError, match=r"cannot parse the graph: .*StringNormalizer"):
        build(api, model.SerializeToString(), ranges, "fp32", "sm86")


def test_inputs_other_than_the_profiles_are_refused(api: TensorRT) -> None:
    model = one_product(np.ones((16, 16)))
    with pytest.raises(BackendError, match=r"graph inputs: expected \['sound'\], got \['x'\]"):
        build(api, model, (InputRange("sound", False, (1,), (1,), (1,)),), "fp32")
    backwards = (InputRange("x", False, (4, 16), (2, 16), (1, 16)),)
    with pytest.raises(BackendError, match="refuses"):
        build(api, model, backwards, "fp32")


def test_the_phases_of_a_build_are_told(api: TensorRT) -> None:
    told: list[str] = []
    ranges = (InputRange("x", False, (1, 16), (2, 16), (4, 16)),)
    build(api, one_product(np.ones((16, 16))), ranges, "fp32", "sm86", report=told.append)
    assert told


def test_the_inspectors_word_is_checked() -> None:
    layer = '{"Layers": [{"Name": "m", "Outputs": [{"Format/Datatype": "Half"}]}]}'
    assert check_inspected(layer, "fp16") == 1
    with pytest.raises(BackendError, match="expected layers in bf16, none of 1"):
        check_inspected(layer, "bf16")


def test_a_plan_cannot_be_loaded_without_a_driver_but_says_so(api: TensorRT) -> None:
    from engine.backends.tensorrt import cuda

    if cuda.missing() is None:
        pytest.skip("this machine has a GPU")
    ranges = (InputRange("x", False, (1, 16), (2, 16), (4, 16)),)
    plan = build(api, one_product(np.ones((16, 16))), ranges, "fp32", "sm86").plan
    with pytest.raises(BackendError, match=r"cannot load the plan: .*[Dd]river"):
        api.load(plan)


def test_the_command_builds_for_other_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.cli import main

    command = ["build", "--for", "sm75,sm120", "--max-batch", "4", "--plans-dir", str(tmp_path)]
    assert main(command) == 0
    found = [len(list(tmp_path.glob(f"*.{suffix}"))) for suffix in ("plan", "json")]
    assert found == [2 * len(GRAPHS)] * 2
    assert "not compared with ONNX Runtime" in capsys.readouterr().out
    assert main(["build", "--for", "sm42", "--plans-dir", str(tmp_path)]) == 2
    assert "builds for sm75, " in capsys.readouterr().err
