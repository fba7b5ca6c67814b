"""The tables by one command: trained, measured, written, and gone on with where it stopped."""

import csv
import fcntl
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.corpora import mmsa_split, write_pickle
from trainer.evaluation.metrics import regression_metrics
from trainer.recipe import RecipeError
from trainer.reproduce import reproduce
from trainer.study.degraded import Condition, covered, darkened, mixed, music, reverberation
from trainer.study.runner import StudyOptions
from trainer.study.variants import TABLES, parse_variant

GENERATOR = np.random.default_rng(0)


def corpus(path: Path) -> Path:
    tree = {}
    for split, count in (("train", 24), ("valid", 12), ("test", 12)):
        ids = [f"{split}{index // 3}$_${index % 3}" for index in range(count)]
        labels = [round(float(v), 2) for v in GENERATOR.uniform(-3, 3, count)]
        part = mmsa_split(ids, labels, False)
        for name in ("audio", "vision", "text"):
            part[name] = part[name] * GENERATOR.normal(1, 0.3, part[name].shape)
        tree[split] = part
    return write_pickle(path, tree)


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "seed-0-views.csv").read_text().splitlines()))


def options(folder: Path, **changes: object) -> StudyOptions:
    given: dict[str, object] = {
        "corpora": (folder / "mosei.pkl",),
        "out": folder / "out",
        "features": folder / "features",
        "recipe": None,
        "overrides": ("training.epochs=1", "network.hidden_dim=8", "network.fused_dim=8"),
        "joined": (),
        "seeds": 2,
        "jobs": 1,
        "extra": (parse_variant("one flow:loss.missing=0.0"),),
        **changes,
    }
    return StudyOptions(**given)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tables_predictions_and_going_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path / "mosei.pkl")
    assert reproduce(options(tmp_path), TABLES) == 0
    out = tmp_path / "out"
    folder = out / "tables"
    tables = {
        name: list(csv.reader((folder / f"{name}.csv").read_text().splitlines())) for name in TABLES
    }
    named = [row[0] for row in tables["ablation"]]
    assert "complete: without MIA" in named
    assert "text missing: one flow" in named
    assert "complete: constant" in named
    (zero,) = [row for row in tables["ablation"] if row[0] == "complete: constant 0"]
    labels = {row["id"]: float(row["label"]) for row in _rows(out / "predictions" / "full")}
    assert zero[2] == f"{np.mean(np.abs(list(labels.values()))):.3f}"
    titled = [row[0] for row in tables["main"]]
    assert titled.count("constant 0 on the same clips") == 2
    assert "frames missing: 0.9" in [row[0] for row in tables["missing"]]
    assert r"\toprule" in (folder / "main.tex").read_text()
    assert "<svg" in (folder / "tables.html").read_text()

    parts = [
        pq.read_table(out / "predictions" / "full" / f"seed-{seed}-views.parquet").to_pydict()
        for seed in range(2)
    ]
    maes = []
    for part in parts:
        kept = [index for index, view in enumerate(part["view"]) if view == "complete"]
        found = [part["prediction"][index] for index in kept]
        maes.append(regression_metrics(found, [part["label"][index] for index in kept]).mae)
    cell = next(row for row in tables["main"] if row[0] == "complete")[2]
    assert cell.startswith(f"{np.mean(maes):.3f} ± {np.std(maes, ddof=1):.3f} [")

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    checkpoints = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint.pt")}
    next(iter(before)).unlink()
    capsys.readouterr()
    assert reproduce(options(tmp_path), TABLES) == 0
    assert "epoch" not in capsys.readouterr().err  # nothing was trained again
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert after.keys() == before.keys()
    assert sum(after[path] != before[path] for path in before) == 1
    assert checkpoints == {p: p.stat().st_mtime_ns for p in out.rglob("checkpoint.pt")}


def test_a_recipe_that_does_not_fit_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path / "mosei.pkl")
    assert reproduce(options(tmp_path, recipe="paper"), ("main",)) == 2
    assert "--recipe features fits this corpus" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="expected NAME:KEY=VALUE"):
        parse_variant("network.mia=off")


def test_two_studies_do_not_work_in_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path / "mosei.pkl")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("12345\n")
        lock.flush()
        assert reproduce(options(tmp_path), ("main",)) == 2
    assert "another run (process 12345) is working there" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("checkpoint.pt"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    corpus(tmp_path / "mosei.pkl")
    tables = []
    for jobs in (1, 2):
        out = tmp_path / f"out-{jobs}"
        assert reproduce(options(tmp_path, out=out, jobs=jobs, extra=()), ("main",)) == 0
        tables.append((out / "tables" / "main.csv").read_text())
    assert tables[0] == tables[1]


def test_noise_is_at_the_ratio_that_it_says() -> None:
    clean = (GENERATOR.normal(size=16_000) * 0.05).astype(np.float32)
    for noise in (music(16_000, GENERATOR), reverberation(clean, GENERATOR)):
        for snr_db in (20, 0):
            added = mixed(clean, noise, snr_db) - clean
            ratio = 10 * np.log10((clean**2).mean() / (added**2).mean())
            assert ratio == pytest.approx(snr_db, abs=0.2)
    assert Condition("babble", 5).name == "babble-5dB"


def test_faces_get_dark_or_covered() -> None:
    face = GENERATOR.integers(0, 255, (40, 40, 3)).astype(np.uint8)
    assert darkened(face).mean() < 0.15 * face.mean()
    assert np.array_equal(darkened(face), darkened(face))
    assert np.array_equal(covered(face)[:20], face[:20])
    assert len(np.unique(covered(face)[20:].reshape(-1, 3), axis=0)) == 1
