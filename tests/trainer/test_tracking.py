"""Epochs in MLflow and Weights & Biases, through their own libraries, without a server."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.corpora import mmsa_split, write_pickle
from trainer import tracking
from trainer.checkpoint import Epoch
from trainer.command import carry_out
from trainer.recipe import Recipe

# What the libraries do inside is not ours to mend.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::UserWarning"),
]
GENERATOR = np.random.default_rng(0)


def fit(folder: Path, *settings: str) -> int:
    """Train on a small MMSA pickle."""
    path = folder / "mosei.pkl"
    if not path.is_file():
        tree = {}
        for split, count in (("train", 12), ("valid", 6), ("test", 6)):
            labels = [round(float(v), 2) for v in GENERATOR.uniform(-3, 3, count)]
            tree[split] = mmsa_split([f"{split}{i}$_$0" for i in range(count)], labels, False)
        write_pickle(path, tree)
    run = folder / "out.run"
    small = ("network.hidden_dim=8", "network.fused_dim=8", *settings)
    return carry_out("fit", [path], folder / "out", run, run / "features", None, None, small)


def epoch(number: int) -> Epoch:
    return Epoch(number, 1e-3, {"total": 2.0}, {"complete/mae": 1.0 - number / 10}, 1.0)


@pytest.mark.slow
def test_a_run_in_mlflows_files_continues_as_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (extra tracking)")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    assert fit(tmp_path, "training.tracking=mlflow", "training.epochs=1") == 0
    assert fit(tmp_path, "training.tracking=mlflow", "training.epochs=2") == 0
    client = mlflow.MlflowClient((tmp_path / "out.run" / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "out.run"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "1"
    history = client.get_metric_history(run.info.run_id, "valid/complete/mae")
    assert [point.step for point in history] == [0, 1]
    assert all(0 < point.value < 10 for point in history)


def test_weights_and_biases_keeps_files_where_it_knows_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (extra tracking)")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    told: list[str] = []
    folder = tmp_path / "out.run" / "seed-0"
    with tracking.tracking("wandb", folder, Recipe(), 0, told.append) as log:
        log(epoch(0))
    assert told == []
    wandb.teardown()  # its process writes what it still holds
    (kept,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    assert b"valid/complete/mae" in kept.read_bytes()
    assert json.loads((folder / "tracking.json").read_text())["wandb"] in kept.name


def test_a_tracker_that_fails_is_said_once_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            self.calls = 0

        def log(self, *_: object) -> None:
            raise ConnectionError("no route to the server")

        def close(self) -> None:
            raise ConnectionError("no route to the server")

    monkeypatch.setattr(tracking, "_MlFlow", Broken)
    told: list[str] = []
    with tracking.tracking("mlflow", tmp_path, Recipe(), 0, told.append) as log:
        log(epoch(0))
        log(epoch(1))
    assert told == ["mlflow: nothing more is logged there: no route to the server"]


def test_a_tracker_that_is_not_installed_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(tracking, "find_spec", lambda n: None if n == "mlflow" else found(n))
    assert fit(tmp_path, "training.tracking=mlflow") == 2
    err = capsys.readouterr().err
    assert 'mlflow is not installed: pip install "undertone-sentiment[tracking]"' in err
    assert not list((tmp_path / "out.run").rglob("checkpoint.pt"))
