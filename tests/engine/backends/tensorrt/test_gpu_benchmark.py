"""The GPU benchmark on a machine without a GPU: one clear line, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.backends.tensorrt import cuda

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[4]


def test_without_a_gpu_it_says_so_and_ends() -> None:
    if (reason := cuda.missing()) is None:
        pytest.skip("this machine has a GPU: run python benchmarks/gpu.py")
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.splitlines() == [f"no GPU figures: {reason}"]
    assert done.stderr == ""
