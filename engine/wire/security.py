"""CURVE encryption with an allow-list.

CURVE alone encrypts but admits anyone who knows the server's public key, so the server asks the
ZAP authenticator, which knows the public keys of ``clients/``. A refused client just hears
nothing: its socket monitor tells, and that becomes an error.

Files in the keys directory: ``server.key`` and ``server.key_secret`` (the server's), and
``clients/NAME.key`` (who may come in); a client keeps ``client.key_secret`` and ``server.key``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from engine.wire.fields import WireError

REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
SERVER, CLIENT, ALLOWED = "server", "client", "clients"


def generate_keys(directory: Path, name: str = CLIENT) -> list[Path]:
    """Make a server key where there is none, and the key of client ``name``, allowed at once.

    Secret files can be read by their owner only. Returns the files that were written.

    Raises:
        WireError: the client has a key already, or the directory cannot be written.
    """
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

    @staticmethod
    def read(directory: Path) -> ServerSecurity:
        """Read the server's key pair.

        Raises:
            WireError: no keys there; says how to make them.
        """
        directory = directory.expanduser()
        public, secret = _load(directory / f"{SERVER}.key_secret", directory)
        return ServerSecurity(public, secret, directory / ALLOWED)

    def start(self) -> ThreadAuthenticator:
        """Start the allow-list for this process's context; stop it at the end."""
        authenticator = ThreadAuthenticator(zmq.Context.instance())
        authenticator.start()
        authenticator.configure_curve(domain="*", location=str(self.allowed))
        return authenticator

    def as_client(self) -> ClientSecurity:
        """The same key on the side that connects: workers and relays of one pool share it."""
        return ClientSecurity(self.public, self.secret, self.public)

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket speak CURVE as the server."""
        socket.curve_publickey = self.public
        socket.curve_secretkey = self.secret
        socket.curve_server = True


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

    def watch(self, socket: zmq.Socket[bytes], endpoint: str) -> RefusalWatch:
        """Apply the keys and watch for a refusal."""
        self.apply(socket)
        return RefusalWatch(socket, endpoint)


class RefusalWatch:
    """Listens to a socket's monitor and turns a refused handshake into an error."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._monitor = socket.get_monitor_socket(REFUSALS)
        self._socket = socket
        self._endpoint = endpoint

    def check(self) -> None:
        """Raise WireError if the server has refused this client."""
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            raise WireError(
                f"{self._endpoint}: the server refused this client's key; put its .key file into "
                f"the server's {ALLOWED}/ directory and check that server.key is the server's"
            )

    def wait(self, timeout_s: float) -> None:
        """Check until the time is over."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.check()
            time.sleep(0.02)

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
            f"{path}: no usable key; make one with: python -m engine keys --keys-dir {directory}"
        )
    return public, private or b""
