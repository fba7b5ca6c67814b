"""What bridges to other systems share: their error, and names bounded in number."""

from __future__ import annotations

MAX_STREAMS = 64
"""Streams and workers that a bridge carries by name: whoever sends decides on names, and a new one
for every message must not fill a metrics store or open sockets without end."""


class BridgeError(Exception):
    """A bridge that cannot run; one line."""


class Names:
    """The first ``limit`` names are known ever after; the others are counted."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._others: set[int] = set()

    @property
    def refused(self) -> int:
        """Different names beyond the limit, counted up to a thousand times it."""
        return len(self._others)

    def admit(self, name: str) -> bool:
        """Whether the name is one of the known ones."""
        if name in self._known:
            return True
        if len(self._known) < self._limit:
            self._known.add(name)
            return True
        if len(self._others) < 1000 * self._limit:
            self._others.add(hash(name))
        return False

    def forget(self, name: str) -> None:
        """Make room: the name is gone."""
        self._known.discard(name)
