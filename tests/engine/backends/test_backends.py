import importlib.util
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from engine.backends import select
from engine.backends.onnx import OnnxBackend, cuda_available
from engine.backends.protocol import BackendError
from engine.backends.tensorrt import api as tensorrt_api
from engine.backends.tensorrt import cuda, loading
from engine.backends.warm import example_inputs
from engine.settings import TensorrtSettings
from models import bundle as bundles

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.open("default")


@pytest.fixture(scope="module")
def onnx(bundle: bundles.Bundle) -> OnnxBackend:
    return OnnxBackend(bundle, "cpu", threads=1)


def test_auto_says_why_it_chose(bundle: bundles.Bundle) -> None:
    choice = select.choose("auto", bundle, threads=1)
    if loading.available() is not None:
        assert choice.backend.name == "onnx"
        assert choice.reasons[0].startswith("tensorrt: no, ")
    assert choice.reasons[-1].endswith(": yes")
    choice.backend.warm_up()


def test_tensorrt_by_name_is_a_clear_error(bundle: bundles.Bundle) -> None:
    reason = loading.available()
    if reason is None:
        pytest.skip("TensorRT can be used here")
    with pytest.raises(BackendError, match="tensorrt: ") as caught:
        select.choose("tensorrt", bundle)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (
            "tensorrt_rtx",
            r'pip install -e "\.\[rtx\]"; .*--extra-index-url https://pypi.nvidia',
        ),
        ("cuda", "cuda-bindings is not installed"),
    ],
)
def test_what_tensorrt_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, named: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="shows what is said with a package too few")
    known = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> object:
        hidden = {module, "tensorrt" if module == "tensorrt_rtx" else module}
        return None if name in hidden else known(name, package)

    for user in (cuda, tensorrt_api, loading):
        monkeypatch.setattr(user, "find_spec", find)
    with pytest.raises(BackendError, match=named):
        select.choose("tensorrt", bundles.open("default"))


class Stand:
    """A backend that can only be chosen."""

    device, precision = "cuda:0", "float16"
    graphs = frozenset({"fusion"})

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("works", "chosen", "reasons"),
    [
        ({"tensorrt", "cuda", "cpu"}, "tensorrt", ["tensorrt: yes"]),
        ({"cuda", "cpu"}, "cuda", ["tensorrt: no, t", "onnx on cuda: yes"]),
        ({"cpu"}, "cpu", ["tensorrt: no, t", "onnx on cuda: no, c", "onnx on cpu: yes"]),
    ],
)
def test_auto_falls_back_in_order(
    bundle: bundles.Bundle,
    monkeypatch: pytest.MonkeyPatch,
    works: set[str],
    chosen: str,
    reasons: list[str],
) -> None:
    def load(bundle: bundles.Bundle, settings: TensorrtSettings) -> Stand:
        assert settings.precision == "bf16"
        if "tensorrt" not in works:
            raise BackendError("t")
        return Stand("tensorrt")

    def onnx(bundle: bundles.Bundle, device: str, threads: int) -> Stand:
        if device not in works:
            raise BackendError("c")
        return Stand(device)

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("engine.backends.onnx.OnnxBackend", onnx)
    choice = select.choose("auto", bundle, tensorrt=TensorrtSettings(precision="bf16"))
    assert choice.backend.name == chosen
    assert list(choice.reasons) == reasons


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


@pytest.mark.timeout(180)  # may export the bundle
@pytest.mark.parametrize("name", ["untrained", "default"])
def test_pytorch_and_onnx_agree(untrained: bundles.Bundle, name: str) -> None:
    bundle = untrained if name == "untrained" else bundles.open(name)
    onnx = OnnxBackend(bundle, "cpu", threads=1, eight_bit=False)
    pytorch = select.choose("pytorch", bundle).backend
    assert pytorch.graphs == onnx.graphs
    rng = np.random.default_rng(5)
    for graph, example in example_inputs(bundle.config):
        if bundle.config.audio_encoder.kind == "recogniser" and graph == "audio_encoder":
            continue  # 8 bits in ONNX Runtime on either side: see test_mixed
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


def test_compiled_bfloat16_is_near_and_captures_whole_graphs(bundle: bundles.Bundle) -> None:
    pytest.importorskip("torch")
    from engine.backends.pytorch import PytorchBackend

    onnx = OnnxBackend(bundle, "cpu", threads=1, eight_bit=False)
    pytorch = PytorchBackend(bundle, device="cpu", precision="bfloat16", compiler="eager")
    assert pytorch.precision == "bfloat16"
    rng = np.random.default_rng(6)
    for graph in ("fusion", "video_encoder"):
        example = dict(example_inputs(bundle.config))[graph]
        inputs = {
            name: value
            if value.dtype == np.bool_
            else rng.normal(size=value.shape).astype(np.float32)
            for name, value in example.items()
        }
        expected, actual = onnx.run(graph, inputs), pytorch.run(graph, inputs)
        for name, values in expected.items():
            assert actual[name].dtype == np.float32
            np.testing.assert_allclose(actual[name], values, atol=0.1)
            assert np.abs(actual[name] - values).max() > 0


def test_what_cannot_be_compiled_runs_eager(bundle: bundles.Bundle, onnx: OnnxBackend) -> None:
    pytest.importorskip("torch")
    from engine.backends.pytorch import PytorchBackend

    def broken(module: object, inputs: object) -> object:
        raise RuntimeError("no compiler here")

    pytorch = PytorchBackend(bundle, device="cpu", compiler=broken)  # type: ignore[arg-type]
    pytorch.warm_up()
    graph, inputs = example_inputs(bundle.config)[-1]
    expected = onnx.run(graph, inputs)["valence"]
    np.testing.assert_allclose(pytorch.run(graph, inputs)["valence"], expected, atol=1e-4)
