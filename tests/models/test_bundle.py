"""Bundles: whole and unaltered, or an error that names what is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from models import bundle
from models.bundle import BundleError, digest
from models.calibration import WHOLE_SCALE, Calibration, PatternCalibration, widened
from models.export import Label, Parts, write_bundle
from models.network import SentimentNetwork
from models.spec import MODALITIES, PROJECTIONS, NetworkSpec

pytestmark = pytest.mark.slow

SPEC = NetworkSpec(audio_dim=6, text_dim=5, video_dim=4, hidden_dim=16, fused_dim=8)
LABEL = Label("tiny", "1", trained=False, licence="Apache-2.0")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "tiny"
    torch.manual_seed(0)
    write_bundle(directory, Parts(SentimentNetwork(SPEC)), LABEL, Calibration(), "# tiny\n")
    return directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def edit(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_written_opens(original: Path) -> None:
    opened = bundle.open(original)
    assert opened.config.network == SPEC
    assert opened.sha256 == digest(original / "config.json")
    assert opened.path("fusion").is_file()
    assert opened.weights_path.is_file()
    known = ", ".join((*PROJECTIONS, "fusion"))
    with pytest.raises(
        BundleError, match=f"no ONNX graph 'audio_encoder', expected one of: {known}"
    ):
        opened.path("audio_encoder")


def test_the_default_opens_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; import models.bundle as b; "
        "print(b.open('default').config.window_ms)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "4000"


@pytest.mark.parametrize("name", ["fusion.onnx", "weights.safetensors", "README.md"])
def test_a_missing_or_altered_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=rf"{name}: sha256: expected [0-9a-f]{{64}}, got"):
        bundle.open(copy)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name}: the file is missing"):
        bundle.open(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 9}, "schema_version: expected 2, got 9: another version"),
        ({"windows_ms": 1}, "windows_ms: Extra inputs are not permitted"),
        ({"network": {"audio_dim": 0}}, r"network.audio_dim: Input should be greater than 0"),
        (
            {"files": {"../../etc/passwd": "0"}},
            "no sha256 of audio_projection.onnx, calibration.json, fusion.onnx, "
            "text_projection.onnx, video_projection.onnx",
        ),
    ],
)
def test_a_wrong_config_is_named(copy: Path, changes: dict[str, object], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError, match=message):
        bundle.open(copy)


def test_no_file_leads_out_of_the_bundle(copy: Path) -> None:
    files = json.loads((copy / "config.json").read_text())["files"]
    edit(copy, files={**files, "../secret": "0"})
    with pytest.raises(BundleError, match=r"'\.\./secret' leads out of the bundle"):
        bundle.open(copy)


def test_names_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="or one of: default"):
        bundle.open("defualt")
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(BundleError, match=r"config\.json: expected JSON"):
        bundle.open(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"\.\[hub\]"):
        bundle.open("somebody/something")


def test_half_precision_graphs_take_and_give_floats(original: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = Parts(SentimentNetwork(SPEC))
    config = write_bundle(tmp_path / "half", parts, LABEL, Calibration(), "# half\n", half=True)
    assert config.precision == "float16"
    generator = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {"text_simulated": np.array([False, True])}
    for name in MODALITIES:
        inputs[name] = generator.normal(size=(2, 7, SPEC.projected_dim)).astype(np.float32)
        inputs[f"{name}_mask"] = np.ones((2, 7), bool)
    found = [
        onnxruntime.InferenceSession(str(directory / "fusion.onnx")).run(["valence"], inputs)[0]
        for directory in (original, tmp_path / "half")
    ]
    assert found[1].dtype == np.float32
    np.testing.assert_allclose(found[1], found[0], atol=2e-2)
    full, half = (d / "fusion.onnx" for d in (original, tmp_path / "half"))
    assert half.stat().st_size < full.stat().st_size


def test_other_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="expected no directory or a bundle's"):
        write_bundle(tmp_path, Parts(SentimentNetwork(SPEC)), LABEL, Calibration(), "")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_calibration_widens_known_patterns_and_doubts_unknown_ones() -> None:
    known = {"audio": PatternCalibration(margin=0.5, clips=100)}
    calibration = Calibration(patterns=known)
    assert calibration.interval("audio", 0.0, -0.5, 0.5) == (-1.0, 1.0)
    assert calibration.interval("audio", 0.0, -2.9, 2.9) == (-3.0, 3.0)
    assert calibration.interval("video", 0.0, -0.1, 0.1) == (-3.0, 3.0)
    narrow = Calibration(patterns={"audio": PatternCalibration(margin=-3, clips=9)})
    assert narrow.interval("audio", 0.5, 0.0, 1.0) == (0.5, 0.5)


@pytest.mark.parametrize("margin", [0.4, -0.6, WHOLE_SCALE])
def test_reports_and_the_live_engine_widen_an_interval_alike(margin: float) -> None:
    rng = np.random.default_rng(5)
    valence = rng.uniform(-3, 3, 50)
    low, high = valence - rng.uniform(-0.2, 1, 50), valence + rng.uniform(0.2, 1, 50)
    patterns = {} if margin == WHOLE_SCALE else {
        "audio": PatternCalibration(margin=margin, clips=9)
    }  # fmt: skip
    live = [
        Calibration(patterns=patterns).interval("audio", *row)
        for row in zip(valence, low, high, strict=True)
    ]
    reported = np.stack(widened(valence, low, high, margin), axis=1)
    np.testing.assert_allclose(reported, live)
    assert np.all((reported[:, 0] <= valence) & (valence <= reported[:, 1]))
