"""``python -m trainer``."""

import os

# Read when torch and numpy load their libraries: a thread that waits for others sleeps instead
# of spinning (94 % of the CPU time on a shared machine), and numpy's products use one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from trainer.cli import app

app(prog_name="python -m trainer")
