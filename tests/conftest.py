"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from models import bundle as bundles

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"

# A shell's background job ignores Ctrl-C, and so would every program that a test starts and then
# interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings and labels, beside the repository; the test is skipped without them."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real recordings at {SHARED / 'data'}")
    return SHARED / "data"


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    """A bundle of embedded encoders and a simulated text, in random weights.

    Exported once for all processes of the test run, which takes seconds.
    """
    pytest.importorskip("torch")
    from filelock import FileLock  # torch needs it too

    from models.untrained import write_untrained

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    directory = root / "untrained"
    with FileLock(root / "untrained.lock"):
        if not directory.is_dir():
            write_untrained(directory)
    return bundles.open(directory)


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Numeric vectors of the published network; the test is skipped without them."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"no reference vectors at {SHARED / 'reference'}")
    return SHARED / "reference"
