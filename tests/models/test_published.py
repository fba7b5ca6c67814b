"""The published vectors, in both flows and at several batch sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models import bundle
from models.published import PublishedWeightsError, Variant, load
from trainer.import_published import CheckpointFileError, import_published

pytestmark = pytest.mark.slow

OUTPUTS = ("valence", "fused", "rnc", "text_query", "text_cross")


def _weights(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {k.removeprefix("weights/"): file[k] for k in file.files if k.startswith("weights/")}


@pytest.mark.parametrize("variant", ["released", "imagination"])
@pytest.mark.parametrize("flow", ["complete", "missing_text"])
@pytest.mark.parametrize("batch", [1, 2, None])
def test_parity(shared_reference: Path, variant: Variant, flow: str, batch: int | None) -> None:
    path = shared_reference / f"sdumc_{variant}.npz"
    network = load(_weights(path), variant)
    missing = flow == "missing_text"
    with np.load(path) as file:
        names = ("audio", "simulated_text" if missing else "text", "video")
        given = [torch.from_numpy(file[f"input/{name}"]).float()[:batch] for name in names]
        with torch.inference_mode():
            output = network(*given, missing_text=missing)
        for name in OUTPUTS:
            expected = file[f"output/{flow}/{name}"][:batch].astype(np.float32)
            difference = np.abs(getattr(output, name).numpy().reshape(expected.shape) - expected)
            print(f"{variant:12} {flow:13} {name:11} {difference.max():.1e}")
            assert difference.max() <= 1e-4


def test_faulty_keys_are_all_listed(shared_reference: Path) -> None:
    weights = _weights(shared_reference / "sdumc_released.npz")
    del weights["fc_out_v.bias"]
    weights["stranger"] = np.zeros(1)
    with pytest.raises(PublishedWeightsError, match=r"missing fc_out_v\.bias; unknown stranger"):
        load(weights, "released")


def test_misshapen_key_is_named(shared_reference: Path) -> None:
    weights = _weights(shared_reference / "sdumc_released.npz")
    weights["fc_att.bias"] = np.zeros(4)
    with pytest.raises(PublishedWeightsError, match=r"fc_att\.bias: expected \[3\], got \[4\]"):
        load(weights, "released")


def test_checkpoint_becomes_a_bundle(shared_reference: Path, tmp_path: Path) -> None:
    weights = _weights(shared_reference / "sdumc_imagination.npz")
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    torch.save({"state_dict": state}, tmp_path / "published.pt")
    import_published(tmp_path / "published.pt", tmp_path / "bundle", "imagination")
    assert bundle.open(tmp_path / "bundle").config.network.mia == "text"


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointFileError, match=r"x\.pt: expected a PyTorch checkpoint"):
        import_published(tmp_path / "x.pt", tmp_path / "out")
