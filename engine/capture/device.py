"""A device: what the capture loop opens, reads and closes, be it hardware, a clip or a browser."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from engine.wire.messages import Audio, Video

Media = Audio | Video
Item = TypeVar("Item")


class DeviceLostError(Exception):
    """A device went silent or away; it is to be opened again."""


class Device(Protocol):
    """One source of sound, pictures or both; used by one thread, and opened again when lost."""

    @property
    def counters(self) -> Counter[str]:
        """What the device counts; part of the worker's status."""
        ...

    def open(self) -> None:
        """Begin to capture.

        Raises:
            CaptureError: a user's mistake: unknown device, no such clip, a missing package.
            DeviceLostError: it cannot be opened now.
        """
        ...

    def read(self, timeout_s: float) -> Sequence[Media] | None:
        """The next messages, waited for at most ``timeout_s``; [] if none came, None at the end.

        Raises:
            CaptureError: a clip that cannot be decoded.
            DeviceLostError: the device went silent or away.
        """
        ...

    def close(self) -> Sequence[Media]:
        """Release the device and return its last messages; one that is not open has none."""
        ...


class Feed(Generic[Item]):
    """What a driver's thread hands to the capture loop, item by item.

    Args:
        what: what is missing when nothing comes, such as ``picture from the camera``.
        stall_ms: silence after which the device counts as lost.
        size: items that wait for the loop; 0 for any number.
    """

    def __init__(self, what: str, stall_ms: int, size: int = 0) -> None:
        self._what = what
        self._patience_s = stall_ms / 1000
        self._items: queue.Queue[Item] = queue.Queue(size)
        self._waited_s = 0.0
        self._ended = False

    def put(self, item: Item) -> bool:
        """Hand over an item; False where the loop has not read the last ones."""
        try:
            self._items.put_nowait(item)
        except queue.Full:
            return False
        return True

    def end(self) -> None:
        """Say that the driver gives no more."""
        self._ended = True

    def get(self, timeout_s: float) -> Item | None:
        """The next item, or None if none came in time.

        Raises:
            DeviceLostError: the driver has ended, or nothing came for ``stall_ms``.
        """
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            self._waited_s += timeout_s
            if self._ended:
                raise DeviceLostError(f"no more {self._what}") from None
            if self._waited_s >= self._patience_s:
                raise DeviceLostError(f"no {self._what} for {self._patience_s:g} s") from None
            return None
        self._waited_s = 0.0
        return item
