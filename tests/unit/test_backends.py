from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from engine.inference.backends import select, tensorrt
from engine.inference.backends.onnx import OnnxBackend, cuda_available
from engine.inference.backends.protocol import BackendError
from engine.inference.backends.warm import example_inputs
from models import bundle as bundles


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.open("default")


@pytest.fixture(scope="module")
def onnx(bundle: bundles.Bundle) -> OnnxBackend:
    return OnnxBackend(bundle, "cpu", threads=1)


def test_auto_says_why_it_chose(bundle: bundles.Bundle) -> None:
    choice = select.choose("auto", bundle, threads=1)
    assert choice.backend.name == "onnx"
    assert choice.reasons[0].startswith("tensorrt: no, ")
    assert choice.reasons[-1].endswith(": yes")
    choice.backend.warm_up()


def test_tensorrt_by_name_is_a_clear_error(bundle: bundles.Bundle) -> None:
    reason = tensorrt.available()
    assert reason
    with pytest.raises(BackendError, match="tensorrt: "):
        select.choose("tensorrt", bundle)


def test_cuda_is_never_replaced_by_the_cpu_in_silence(bundle: bundles.Bundle) -> None:
    if cuda_available() is None:
        assert OnnxBackend(bundle, "cuda").device == "cuda:0"
    else:
        with pytest.raises(BackendError, match="CUDA"):
            OnnxBackend(bundle, "cuda")


def test_a_graph_that_is_not_there_is_named(onnx: OnnxBackend) -> None:
    with pytest.raises(BackendError, match=r"no graph 'lips', only \['audio_encoder'"):
        onnx.run("lips", {})


def test_a_bundle_without_its_fusion_graph_is_refused(bundle: bundles.Bundle) -> None:
    config = bundle.config.model_copy(update={"graphs": {}})
    empty = SimpleNamespace(config=config, path=bundle.path)
    with pytest.raises(BackendError, match="no ONNX graph of its fusion network"):
        OnnxBackend(empty)


def test_no_modality_gives_no_number_and_absent_ones_no_weight(
    bundle: bundles.Bundle, onnx: OnnxBackend
) -> None:
    inputs = dict(example_inputs(bundle.config)[-1][1])
    rng = np.random.default_rng(3)
    subsets = list(product((False, True), repeat=3))
    for column, name in enumerate(("audio", "text", "video")):
        frames = inputs[name][:1]
        inputs[name] = rng.normal(size=(8, *frames.shape[1:])).astype(np.float32)
        mask = np.array([[subset[column]] for subset in subsets])
        inputs[f"{name}_mask"] = np.repeat(mask, frames.shape[1], axis=1)
    inputs["text_simulated"] = np.ones(8, np.bool_)
    outputs = onnx.run("fusion", inputs)
    assert np.isnan(outputs["valence"][0])
    assert np.isfinite(outputs["valence"][1:]).all()
    for subset, weights in zip(subsets[1:], outputs["weights"][1:], strict=True):
        assert weights.sum() == pytest.approx(1.0, abs=1e-5)
        assert all((weight == 0) != there for weight, there in zip(weights, subset, strict=True))


def test_pytorch_and_onnx_agree(bundle: bundles.Bundle, onnx: OnnxBackend) -> None:
    pytest.importorskip("torch")
    from engine.inference.backends.pytorch import PytorchBackend

    pytorch = PytorchBackend(bundle, device="cpu")
    assert pytorch.graphs == onnx.graphs
    rng = np.random.default_rng(5)
    for graph, example in example_inputs(bundle.config):
        inputs = {
            name: value if value.dtype == np.bool_ else rng.normal(size=value.shape)
            for name, value in example.items()
        }
        inputs = {
            name: value if value.dtype == np.bool_ else value.astype(np.float32)
            for name, value in inputs.items()
        }
        expected, actual = onnx.run(graph, inputs), pytorch.run(graph, inputs)
        assert expected.keys() == actual.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(actual[name], values, atol=1e-4)
