"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

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
def shared_reference() -> Path:
    """Numeric vectors of the published network; the test is skipped without them."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"no reference vectors at {SHARED / 'reference'}")
    return SHARED / "reference"
