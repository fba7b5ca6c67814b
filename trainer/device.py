"""Where to train: what can be said of ``training.device`` before torch is loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

DRIVER = "libcuda.so.1"
ROCM = Path("/dev/kfd")
"""Torch calls AMD's cards cuda, too."""


class DeviceError(Exception):
    """A device that this machine does not have: one line."""


def refuse_absent_card(device: str) -> None:
    """Ask the driver whether there is a card, in milliseconds: torch takes seconds to load.

    Raises:
        DeviceError: ``device`` is a card's, and the driver is missing or finds none.
    """
    if not device.startswith("cuda") or ROCM.exists():
        return
    cards = cards_found()
    if not cards:
        why = "its driver finds none" if cards == 0 else f"there is no NVIDIA driver ({DRIVER})"
        raise DeviceError(
            f"training.device: expected a device of this machine (cpu), got {device!r}: {why}"
        )


def cards_found() -> int | None:
    """NVIDIA cards that the driver finds; None without a driver."""
    try:
        driver = ctypes.CDLL(DRIVER)
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return None
    return count.value
