"""Control requests: what a client may ask of the inference worker, and the sockets that carry it.

A request is one msgpack map, and so is its reply (REQ, REP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgpack
import zmq
from msgspec import Meta, Struct

from engine.wire.closing import Closing
from engine.wire.codec import MAX_HEADER
from engine.wire.fields import WireError, convert
from engine.wire.messages import Clock, Label, Name, Natural
from engine.wire.peers import REQUESTS
from engine.wire.security import ClientSecurity, ServerSecurity
from engine.wire.sockets import MAX_FRAME, MAX_REQUEST, UNLIMITED, BoundSocket, Socket

REQUESTS_AT_ONCE = 32
"""Requests answered in one step; the next step takes the next ones."""

Command = Literal["describe", "ping", "pause", "resume", "mark", "clock", "release"]


class Request(Struct, frozen=True):
    """One request; ``stream`` None means all streams."""

    command: Command
    stream: Name | None = None
    label: Label = ""
    """Of a ``mark``."""
    clock: Clock | None = None
    """Whose offset ``clock`` publishes."""
    offset_ns: Annotated[int, Meta(ge=-(2**62), le=2**62)] = 0
    """The worker's clock minus the sender's."""
    epoch: Natural = 0
    """Of a ``release``: up to which placement of the stream."""


def parse(values: Mapping[str, Any]) -> Request:
    """Check a request's map.

    Raises:
        WireError: an unknown command or a field out of its range.
    """
    request = convert(dict(values), Request, "request")
    if request.command == "mark" and not (request.label and request.label.isprintable()):
        raise WireError("request.label: expected a printable text")
    if request.command == "clock" and request.clock is None:
        raise WireError("request.clock: expected a map with text keys, got nil")
    if request.command == "clock" and "offset_ns" not in values:
        raise WireError("request.offset_ns: expected an integer, got nil")
    if request.command == "release" and not request.stream:
        raise WireError("request.stream: expected the name of a stream, got nil")
    return request


class ControlServer(BoundSocket):
    """Answers control requests (REP): one map in, one map out."""

    def __init__(self, endpoint: str, security: ServerSecurity | None = None) -> None:
        super().__init__(zmq.REP, MAX_REQUEST)
        self._zmq.rcvhwm = UNLIMITED
        self._zmq.sndhwm = REQUESTS_AT_ONCE
        self.listen(endpoint, REQUESTS, security)

    def serve(self, answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> int:
        """Answer the requests that have arrived, ``REQUESTS_AT_ONCE`` at most; returns how many.

        ``answer`` raises WireError for a request that it cannot take: the client gets its text.
        """
        served = 0
        while served < REQUESTS_AT_ONCE:
            try:
                frames = self._zmq.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            try:
                if len(frames) != 1:
                    raise WireError(f"request: expected one frame, got {len(frames)}")
                reply = {"ok": True, **answer(_unpack(frames[0]))}
            except WireError as fault:
                reply = {"ok": False, "error": str(fault)}
            self._zmq.send(msgpack.packb(reply))
            served += 1
        return served


class ControlClient(Closing):
    """Sends control requests (REQ); a socket that lost its reply is replaced."""

    def __init__(
        self, endpoint: str, timeout_ms: int = 2_000, security: ClientSecurity | None = None
    ) -> None:
        self._endpoint, self._timeout_ms, self._security = endpoint, timeout_ms, security
        self._socket: Socket | None = None

    def request(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and return the reply's map.

        Raises:
            WireError: no reply in time, or the worker refused; says which.
        """
        if self._socket is None:
            self._socket = Socket(zmq.REQ, MAX_FRAME)
            if self._security is not None:
                self._security.apply(self._socket.raw)
            self._socket.connect_to(self._endpoint)
        raw = self._socket.raw
        raw.send(msgpack.packb({"command": command, **arguments}))
        if not raw.poll(self._timeout_ms):
            self.close()
            waited = f"within {self._timeout_ms} ms: is an engine running?"
            raise WireError(f"no reply from {self._endpoint} {waited}")
        reply = dict(_unpack(raw.recv()))
        if reply.pop("ok", False) is not True:
            raise WireError(f"{command}: {reply.get('error', 'refused')}")
        return reply

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _unpack(frame: bytes) -> Mapping[str, Any]:
    if len(frame) > MAX_HEADER:
        raise WireError(f"request: expected at most {MAX_HEADER} bytes, got {len(frame)}")
    try:
        values = msgpack.unpackb(frame, strict_map_key=True)
    except Exception as error:  # msgpack raises a dozen kinds
        raise WireError(f"request: not msgpack ({type(error).__name__})") from None
    if not isinstance(values, dict):
        raise WireError(f"request: expected a map, got {type(values).__name__}")
    return values
