"""The flag that ends a worker's loop."""

from __future__ import annotations

from typing import Protocol


class Stop(Protocol):
    """A flag from outside, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it; True when it is set."""
        ...
