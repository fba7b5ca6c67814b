"""A stranger who speaks ZeroMQ's protocol by hand, to say what no library would."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
MORE, LONG, COMMAND = 1, 2, 4


class Stranger:
    """A TCP connection with ZMTP's greeting and the NULL mechanism done."""

    def __init__(self, endpoint: str, kind: str, greet: bool = True) -> None:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 5)
        if greet:
            self.socket.sendall(SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
            self._read(64)
            name, value = b"Socket-Type", kind.encode()
            ready = bytes([5]) + b"READY" + bytes([len(name)]) + name
            self.socket.sendall(frame(ready + struct.pack(">I", len(value)) + value, flags=COMMAND))
            size = self._read(2)[1]
            self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the other side has closed")
            data += piece
        return data

    def pour(self, data: bytes, seconds: float) -> int:
        """Send the same bytes again and again until cut or ``seconds`` are over; bytes sent."""
        end_s, sent = time.monotonic() + seconds, 0
        self.socket.settimeout(0.2)
        with contextlib.suppress(OSError):  # cut, or closed by the test
            while time.monotonic() < end_s:
                with contextlib.suppress(TimeoutError):  # nobody reads
                    sent += self.socket.send(data[sent % len(data) :])
        return sent

    def is_cut(self, seconds: float = 10.0) -> bool:
        """Whether the other side closes within ``seconds``; what it sends is read and dropped."""
        end_s = time.monotonic() + seconds
        self.socket.settimeout(0.2)
        while time.monotonic() < end_s:
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                continue
            except ConnectionError:
                return True
        return False

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frame(body: bytes, flags: int = 0) -> bytes:
    """One ZMTP frame."""
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | LONG]) + struct.pack(">Q", len(body)) + body
