"""Two processes over gloo have the loss and the gradients of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
