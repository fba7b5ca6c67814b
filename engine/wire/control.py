"""Control requests, checked: what a client may ask of the inference worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from engine.wire.fields import WireError, convert
from engine.wire.messages import Clock, Label, Name, Natural

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
