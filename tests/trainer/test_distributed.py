"""Two processes over gloo have the loss and the gradients of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.corpora import write_tone
from tests.support.tiny_models import wavlm
from trainer.features.store import FrameStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
STEP = REPOSITORY / "tests" / "support" / "team_step.py"


NORMS = STEP.with_name("team_norms.py")
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def run(script: Path, argument: int, *launcher: str) -> Any:
    command = [sys.executable, *launcher, str(script), str(argument)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("rows", [7, 1])
def test_two_processes_agree_with_one(rows: int) -> None:
    alone, together = run(STEP, rows), run(STEP, rows, *LAUNCHER)
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert together["gradient"] == pytest.approx(alone["gradient"], rel=1e-4)
    assert alone["gradient"] > 0
    assert alone["collated"] == [rows]
    assert together["collated"] == ([3, 4] if rows == 7 else [1, 1])  # its own part each


@pytest.mark.parametrize("split", [4, 9])  # 9: the second process has no row at all
def test_batch_norms_see_the_rows_of_all_processes(split: int) -> None:
    (one,) = run(NORMS, split)
    together = run(NORMS, split, *LAUNCHER)
    first, second = together
    assert first["loss"] + second["loss"] == pytest.approx(one["loss"], rel=1e-9)
    for told in together:
        assert told["gradient"] == pytest.approx(one["gradient"], rel=1e-9)
        assert told["moments"] == pytest.approx(one["moments"], rel=1e-9)
        assert told["evaluated"] == pytest.approx(one["evaluated"], rel=1e-9)


def speech(folder: Path) -> Path:
    folder.mkdir()
    rows = ["id,split,valence,audio"]
    for number in range(14):
        write_tone(folder / f"{number}.wav", 0.4 + 0.11 * number, 200 + 40 * number)
        split = ("train", "valid", "test")[number % 3]
        rows.append(f"{number},{split},{number % 5 - 2},{number}.wav")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_two_processes_extract_into_files_of_their_own_what_one_would(tmp_path: Path) -> None:
    corpus, model = speech(tmp_path / "speech"), wavlm(tmp_path / "wavlm")
    options = ["--corpus", str(corpus), "--set", "encoders.audio.kind=transformers"]
    options += ["--set", f"encoders.audio.source={model}", "--set", "training.device=cpu"]
    options += ["--set", "encoders.text_simulation.kind=none", "--set", "encoders.video.kind=none"]
    stores = []
    for name, launcher in (("one", ()), ("two", LAUNCHER)):
        features = tmp_path / name
        command = [sys.executable, *launcher, "-m", "trainer", "features", *options]
        command += ["--out", str(tmp_path / f"{name}.bundle"), "--features", str(features)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=150, check=False
        )
        assert done.returncode == 0, done.stderr
        (folder,) = features.glob("audio-*")
        told = json.loads((folder / "store.json").read_text())
        stores.append(FrameStore(folder, told["identity"], tuple(told["shape"]), told["dtype"]))
        indices = sorted(path.name for path in folder.glob("index*.jsonl"))
        expected = ["index.jsonl"] if name == "one" else ["index-rank0.jsonl", "index-rank1.jsonl"]
        assert indices == expected
    one, two = stores
    assert len(one) == len(two) == 14
    for line in (one.folder / "index.jsonl").read_text().splitlines():
        key = json.loads(line)["key"]
        assert two.entry(key).seconds == one.entry(key).seconds
        np.testing.assert_allclose(two.read(key), one.read(key), atol=2e-3)
