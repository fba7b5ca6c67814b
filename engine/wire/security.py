"""CURVE encryption with an allow-list.

CURVE alone encrypts but admits anyone who knows the server's public key, so the server asks the
ZAP authenticator, which knows the public keys of ``clients/`` and reads them again when they
change. ZeroMQ tells a refused client nothing; its socket monitor does, and that becomes an error.

Files in the keys directory: ``server.key`` and ``server.key_secret`` (the server's), and
``clients/NAME.key`` (who may come in); a client keeps ``client.key_secret`` and ``server.key``.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from engine.wire.fields import WireError

log = logging.getLogger(__name__)

REFUSALS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
BREAKS = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
CHANGES = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
MAX_CHANGES = 64
MAX_BREAKS = 5
"""Handshakes in a row that may break off without a reason: a server that ends breaks off one, a
server with another key all of them."""
SERVER, CLIENT, ALLOWED = "server", "client", "clients"
KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RELOAD_S = 1.0
"""A key that was added or removed counts after this long."""


def generate_keys(directory: Path, name: str = CLIENT) -> list[Path]:
    """Make a server key where there is none, and the key of client ``name``, allowed at once.

    Secret files can be read by their owner only. Returns the files that were written.

    Raises:
        WireError: the client has a key already, its name is none, or the directory cannot be
            written.
    """
    if not KEY_NAME.fullmatch(name) or name == SERVER:
        raise WireError(
            f"expected a client's name of letters, digits, dots, dashes and underlines, "
            f"other than {SERVER!r}, got {name!r:.80}"
        )
    directory = directory.expanduser()
    allowed = directory / ALLOWED
    try:
        allowed.mkdir(parents=True, exist_ok=True, mode=0o700)
        written: list[Path] = []
        if not (directory / f"{SERVER}.key_secret").exists():
            written += _create(directory, SERVER)
        if (allowed / f"{name}.key").exists():
            raise WireError(f"{allowed / f'{name}.key'}: client {name!r} has a key already")
        public, secret = _create(directory, name)
        moved = allowed / public.name
        public.replace(moved)
    except OSError as error:
        raise WireError(f"{directory}: cannot write keys: {error.strerror}") from None
    return [*written, moved, secret]


def _create(directory: Path, name: str) -> list[Path]:
    before = os.umask(0o077)
    try:
        public, secret = zmq.auth.create_certificates(directory, name)
    finally:
        os.umask(before)
    return [Path(public), Path(secret)]


@dataclass(frozen=True)
class ServerSecurity:
    """Keys of the side that binds; ``start`` the allow-list before binding anything."""

    public: bytes
    secret: bytes
    allowed: Path
    standing: list[Callable[[], None]] = field(default_factory=list, compare=False)
    """Each cuts the open connections of one socket; called when a key was removed."""

    @staticmethod
    def read(directory: Path) -> ServerSecurity:
        """Read the server's key pair.

        Raises:
            WireError: no keys there; says how to make them.
        """
        directory = directory.expanduser()
        public, secret = _load(directory / f"{SERVER}.key_secret", directory)
        return ServerSecurity(public, secret, directory / ALLOWED)

    def start(self) -> AllowList:
        """Start the allow-list for this process's context; stop it at the end."""
        return AllowList(self)

    def as_client(self) -> ClientSecurity:
        """The same key on the side that connects: workers and relays of one pool share it."""
        return ClientSecurity(self.public, self.secret, self.public)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket speak CURVE as the server."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_server = True


class AllowList:
    """The keys that may come in, read again when the directory changes.

    ZeroMQ asks only when a connection begins. So when a key is removed, every connection is cut:
    those who may still come in are back within a moment.
    """

    def __init__(self, security: ServerSecurity) -> None:
        self._security = security
        self._authenticator = ThreadAuthenticator(zmq.Context.instance())
        self._authenticator.start()
        self._keys = self._read()
        self._load()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and watching."""
        self._over.set()
        self._thread.join()
        self._authenticator.stop()

    def _run(self) -> None:
        while not self._over.wait(RELOAD_S):
            found = self._read()
            if found == self._keys:
                continue
            removed = set(self._keys.items()) - set(found.items())
            self._keys = found
            self._load()
            log.info("keys: %d clients are allowed", len(found))
            if removed:
                for cut in list(self._security.standing):
                    cut()

    def _read(self) -> dict[str, tuple[int, int]]:
        """Name, size and time of every key."""
        try:
            entries = [entry for entry in os.scandir(self._security.allowed) if entry.is_file()]
            stats = {entry.name: entry.stat() for entry in entries if entry.name.endswith(".key")}
        except OSError:  # the directory is gone, or a key went while it was read: nobody then
            return {}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}

    def _load(self) -> None:
        self._security.allowed.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._authenticator.configure_curve(domain="*", location=str(self._security.allowed))


@dataclass(frozen=True)
class ClientSecurity:
    """Keys of a side that connects."""

    public: bytes
    secret: bytes
    server: bytes

    @staticmethod
    def read(directory: Path, name: str = CLIENT) -> ClientSecurity:
        """Read a client's key pair and the server's public key.

        Raises:
            WireError: no keys there; says how to make them.
        """
        directory = directory.expanduser()
        public, secret = _load(directory / f"{name}.key_secret", directory)
        server, _ = _load(directory / f"{SERVER}.key", directory, secret=False)
        return ClientSecurity(public, secret, server)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket speak CURVE as a client."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_serverkey = self.server

    def watch(self, socket: zmq.Socket[bytes], endpoint: str) -> ConnectionWatch:
        """Apply the keys and watch for a refusal."""
        self.apply(socket)
        return ConnectionWatch(socket, endpoint, keyed=True)


class ConnectionWatch:
    """Listens to a socket's monitor: a refusal is an error, a lost connection a notice.

    Only a client with a key (``keyed``) can be refused. One without notices changes alone: its
    handshakes break off, too, where a server hangs or ends.
    """

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str, keyed: bool) -> None:
        self._keyed = keyed
        self._monitor = socket.get_monitor_socket(REFUSALS | BREAKS | CHANGES)
        self._changes: deque[bool] = deque(maxlen=MAX_CHANGES)
        self._socket = socket
        self._endpoint = endpoint
        self._breaks = 0

    def check(self) -> None:
        """Raise WireError if the server has refused this client."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED):
                connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                self._breaks = 0 if connected else self._breaks
                self._changes.append(connected)
                continue
            if not self._keyed:
                continue
            self._breaks += 1
            if event != BREAKS or self._breaks >= MAX_BREAKS:
                raise WireError(
                    f"{self._endpoint}: the server refused this client's key; put its .key file "
                    f"into the server's {ALLOWED}/ directory and check that server.key is the "
                    "server's"
                )

    def pop_changes(self) -> list[bool]:
        """What ``check`` has seen since the last call: True a connection, False a lost one."""
        changes = list(self._changes)
        self._changes.clear()
        return changes

    def close(self) -> None:
        """Stop listening."""
        self._socket.disable_monitor()
        self._monitor.close(0)


def _load(path: Path, directory: Path, secret: bool = True) -> tuple[bytes, bytes]:
    try:
        public, private = zmq.auth.load_certificate(path)
    except (OSError, ValueError):
        public, private = b"", None
    if not public or (secret and not private):
        raise WireError(
            f"{path}: no usable key; make one with: undertone keys --keys-dir {directory}"
        )
    return public, private or b""
