"""Who may come in: the ZAP callback of a cluster's process, fed while it runs.

A worker lets in the pool's own key, and a client's key for the streams that the directory has
placed for it here; the list changes with every placement, so it is no directory of files.
"""

from __future__ import annotations

from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

MAX_KEYS = 100_000
POOL = "pool"
"""ZAP domain of a socket that is for the pool's own processes only."""


class Gate:
    """Keys (Z85) and the streams that each may send; asked by the authenticator's thread.

    Args:
        pool: the pool's own key, which may do everything.
        allowed: directory of the clients' keys, at the hub's door; a worker's has none.
    """

    def __init__(self, pool: str, allowed: Path | None = None) -> None:
        self._pool, self._allowed = pool, allowed
        self._streams: dict[str, set[str]] = {}

    def admit(self, key: str, stream: str) -> None:
        """Let a key in for a stream."""
        if key in self._streams or len(self._streams) < MAX_KEYS:
            self._streams.setdefault(key, set()).add(stream)

    def forget(self, stream: str) -> None:
        """A stream has moved away; a key without another stream is refused from now on."""
        for key in [key for key, streams in self._streams.items() if stream in streams]:
            self._streams[key].discard(stream)
            if not self._streams[key]:
                del self._streams[key]

    def callback(self, domain: str, key: bytes) -> bool:
        """The authenticator's question: may this key connect?"""
        name = key.decode()
        if name == self._pool or domain == POOL:
            return name == self._pool
        return name in self._streams or self._is_listed(key)

    def _is_listed(self, key: bytes) -> bool:
        # Read at every handshake, so that a key that is added or removed counts at once.
        if self._allowed is None or not self._allowed.is_dir():
            return False
        return key in zmq.auth.load_certificates(self._allowed)

    def allows(self, key: str, stream: str) -> bool:
        """Whether a key that is connected may send this stream, or its capture's status."""
        if key == self._pool:
            return True
        streams, camera = self._streams.get(key, ()), stream.partition("/")[0]
        return camera in streams or camera.rpartition(".")[0] in streams


def key_of(frame: zmq.Frame) -> str:
    """The sender's public key (Z85); empty without CURVE."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # nobody asked for it
        return ""


def start_gate(gate: Gate) -> ThreadAuthenticator:
    """Guard this process's context; before anything is bound. Stop it at the end."""
    authenticator = ThreadAuthenticator(zmq.Context.instance())
    authenticator.start()
    for domain in ("*", POOL):
        authenticator.configure_curve_callback(domain=domain, credentials_provider=gate)
    return authenticator
