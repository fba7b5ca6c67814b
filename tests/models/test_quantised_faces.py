"""The face network in 8 bits: close to the exact one, taken by a CPU and by later bundles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from engine.backends.onnx import OnnxBackend
from models import bundle as bundles
from models.calibration import Calibration
from models.encoders.embedded import FaceEncoder
from models.encoders.specs import face_spec
from models.export import Label, Parts, write_bundle
from models.network import SentimentNetwork
from models.spec import NetworkSpec

LABEL = Label("tiny", "0", trained=False, licence="Apache-2.0")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 1, 48, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    face = FaceEncoder(face_spec(dim=16, channels=4))
    network = SentimentNetwork(
        NetworkSpec(audio_dim=1, text_dim=1, video_dim=16, hidden_dim=8, fused_dim=8)
    )
    return Parts(network, video_encoder=face)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, parts: Parts, crops: np.ndarray) -> Path:
    directory = tmp_path_factory.mktemp("quantised") / "bundle"
    write_bundle(directory, parts, LABEL, Calibration(), "# tiny\n", crops=crops)
    return directory


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_eight_bits_say_about_what_float_does_and_a_cpu_takes_them(
    written: Path, crops: np.ndarray
) -> None:
    bundle = bundles.open(written)
    assert bundle.config.quantised == {"video_encoder": "video_encoder_int8.onnx"}
    assert bundle.cpu_path("video_encoder") != bundle.path("video_encoder")
    assert bundle.cpu_path("fusion") == bundle.path("fusion")
    graph = onnx.load(bundle.cpu_path("video_encoder")).graph
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    exact = ort.InferenceSession(bundle.path("video_encoder")).run(None, {"input": crops})[0]
    taken = OnnxBackend(bundle).run("video_encoder", {"input": crops})["frames"]
    assert np.abs(taken - exact).max() > 0
    assert np.corrcoef(taken.ravel(), exact.ravel())[0, 1] > 0.97


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_later_bundle_takes_the_quantised_graph_along(
    written: Path, parts: Parts, tmp_path: Path
) -> None:
    first = bundles.open(written)
    kept = replace(parts, quantised={"video_encoder": first.cpu_path("video_encoder")})
    write_bundle(tmp_path / "later", kept, LABEL, Calibration(), "# tiny\n")
    later = bundles.open(tmp_path / "later")
    assert later.cpu_path("video_encoder").read_bytes() == (
        first.cpu_path("video_encoder").read_bytes()
    )
    later.cpu_path("video_encoder").unlink()
    with pytest.raises(bundles.BundleError, match="video_encoder_int8"):
        bundles.open(tmp_path / "later")
