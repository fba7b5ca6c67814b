"""The published checkpoint file becomes a bundle through the command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.backends.onnx import OnnxBackend
from models import bundle
from tests.support.network_graphs import run_network
from trainer.import_published import CheckpointFileError, import_published

pytestmark = pytest.mark.slow


def test_a_checkpoint_becomes_a_bundle_with_the_published_numbers(
    shared_reference: Path, tmp_path: Path
) -> None:
    reference = np.load(shared_reference / "sdumc_released.npz")
    weights = {
        key.removeprefix("weights/"): torch.from_numpy(reference[key])
        for key in reference.files
        if key.startswith("weights/")
    }
    torch.save({"state_dict": weights, "epoch": 25}, tmp_path / "published.pt")
    command = [sys.executable, "-m", "trainer", "import-published", str(tmp_path / "published.pt")]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "bundle")],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = bundle.open(tmp_path / "bundle")
    backend = OnnxBackend(opened)
    given = {name: reference[f"input/{name}"].astype(np.float32) for name in ("audio", "video")}
    for flow, text, simulated in (
        ("complete", "text", False),
        ("missing_text", "simulated_text", True),
    ):
        given["text"] = reference[f"input/{text}"].astype(np.float32)
        inputs: dict[str, np.ndarray] = {**given}
        for name, values in given.items():
            inputs[f"{name}_mask"] = np.ones(values.shape[:2], bool)
        inputs["text_simulated"] = np.full(3, simulated)
        valence = run_network(backend.run, inputs)["valence"]
        expected = reference[f"output/{flow}/valence"].ravel()
        np.testing.assert_allclose(valence, expected, atol=1e-4)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointFileError, match="nothing but tensors"):
        import_published(tmp_path / "evil.pt", tmp_path / "out")
    with pytest.raises(CheckpointFileError, match="No such file"):
        import_published(tmp_path / "nowhere.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
