"""Who may come in: the ZAP callback of a cluster's process, fed while it runs.

A worker lets in the pool's own key, and a client's key for the streams that the directory has
placed for it here; the list changes with every placement, so it is no directory of files.
"""

from __future__ import annotations

from collections.abc import Iterable

import zmq
from zmq.auth.thread import ThreadAuthenticator

MAX_KEYS = 100_000


class Gate:
    """Keys (Z85) and the streams that each may send; asked by the authenticator's thread."""

    def __init__(self, pool: str, clients: Iterable[str] = ()) -> None:
        """Admit the pool's key for everything, and each of ``clients`` to the door."""
        self._pool = pool
        self._streams: dict[str, set[str]] = {key: set() for key in clients}

    def admit(self, key: str, stream: str) -> None:
        """Let a key in for a stream."""
        if key in self._streams or len(self._streams) < MAX_KEYS:
            self._streams.setdefault(key, set()).add(stream)

    def forget(self, stream: str) -> None:
        """A stream lives elsewhere now; who has no other is not let in any more."""
        for key in [key for key, streams in self._streams.items() if stream in streams]:
            self._streams[key].discard(stream)
            if not self._streams[key]:
                del self._streams[key]

    def callback(self, domain: str, key: bytes) -> bool:
        """The authenticator's question: may this key connect?"""
        return (name := key.decode()) == self._pool or name in self._streams

    def allows(self, key: str, stream: str) -> bool:
        """Whether a key that is connected may send this stream."""
        return key == self._pool or stream in self._streams.get(key, ())


def start_gate(gate: Gate) -> ThreadAuthenticator:
    """Guard this process's context; before anything is bound. Stop it at the end."""
    authenticator = ThreadAuthenticator(zmq.Context.instance())
    authenticator.start()
    authenticator.configure_curve_callback(domain="*", credentials_provider=gate)
    return authenticator
