"""Control requests, checked: what a client may ask of the inference worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.wire.fields import Fields, WireError
from engine.wire.messages import Clock

Command = Literal["describe", "ping", "pause", "resume", "mark", "clock"]
COMMANDS: tuple[Command, ...] = ("describe", "ping", "pause", "resume", "mark", "clock")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``stream`` None means all streams."""

    command: Command
    stream: str | None = None
    label: str = ""
    """Of a ``mark``."""
    clock: Clock | None = None
    """Whose offset ``clock`` publishes."""
    offset_ns: int = 0
    """The worker's clock minus the sender's."""


def parse(values: Mapping[str, Any]) -> Request:
    """Check a request's map.

    Raises:
        WireError: an unknown command or a field out of its range.
    """
    fields = Fields.of(dict(values), "request")
    command = fields.choice("command", COMMANDS)
    stream = fields.optional_text("stream", 64)
    if command == "mark":
        label = fields.text("label", 256)
        if not label.isprintable() or not label:
            raise WireError("request.label: expected a printable text")
        return Request(command, stream, label)
    if command == "clock":
        clock = fields.map("clock")
        whose = Clock(clock.text("host"), clock.text("boot_id"))
        offset = fields.integer("offset_ns", -(2**62), 2**62)
        return Request(command, stream, clock=whose, offset_ns=offset)
    return Request(command, stream)
