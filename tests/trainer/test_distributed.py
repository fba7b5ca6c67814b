"""Two processes over gloo have the loss and the gradients of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
STEP = REPOSITORY / "tests" / "support" / "team_step.py"


def run(*launcher: str, rows: int) -> dict[str, float]:
    command = [sys.executable, *launcher, str(STEP), str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.mark.parametrize("rows", [7, 1])
def test_two_processes_agree_with_one(rows: int) -> None:
    alone = run(rows=rows)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    together = run(*launcher, rows=rows)
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert together["gradient"] == pytest.approx(alone["gradient"], rel=1e-4)
    assert alone["gradient"] > 0
