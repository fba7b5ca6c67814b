"""The codec: messages to frames and back. Pure; docs/protocol.md says the same in words.

A message is ``[topic, header]`` or ``[topic, header, buffer]``: the header is one msgpack map,
an array is a raw frame after it. What a header holds follows from the structs in ``messages``.
What is decoded is not trusted: sizes are checked before unpacking, types and ranges by the
structs, dtype and shape before an array is made of a buffer. Unknown header fields are ignored,
so that fields may be added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from engine.wire.fields import WireError, describe, explain, optional
from engine.wire.messages import (
    ADDED,
    SCHEMA,
    Audio,
    Envelope,
    Message,
    Raw,
    Score,
    Status,
    Text,
    Video,
)

__all__ = ["Frame", "WireError", "decode", "encode", "repeated", "topic"]

Frame = bytes | memoryview

STREAM = re.compile(r"[^/]+(/[0-9]{1,4}(\.[a-z]{1,16})?)?")
"""A stream, a person's stream, or the worker that feeds one."""
MAX_TOPIC = 320
MAX_HEADER = 64 * 1024
MAX_BUFFER = 1024 * 1024
KINDS: dict[type[Message], str] = {
    Audio: "audio",
    Video: "video",
    Text: "text",
    Score: "score",
    Status: "status",
}


class Buffer(Struct, frozen=True):
    """A raw frame that follows the header."""

    name: Annotated[str, Meta(max_length=16)]
    dtype: Annotated[str, Meta(max_length=8)]
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=2**31)]], Meta(max_length=3)]


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of message is laid out on the wire."""

    message: type[Message]
    header: Any
    """Struct of the whole header: the envelope's fields and the message's own."""
    fields: tuple[str, ...]
    arrays: dict[str, Raw]
    required: frozenset[str]
    """Arrays without which there is no message."""


def _form(message: type[Message], kind: str) -> _Form:
    hints = get_type_hints(message, include_extras=True)
    arrays, required = {}, set()
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [("schema", Any)]
    for owner in (Envelope, message):
        defaults = {info.name: info for info in msgspec.structs.fields(owner)}
        for name, hint in get_type_hints(owner, include_extras=True).items():
            marks = get_args(hint) if get_origin(hint) is Annotated else ()
            raw = next((mark for mark in marks if isinstance(mark, Raw)), None)
            if raw is not None:
                arrays[name] = raw
                required |= set() if optional(hint) else {name}
            elif name != "envelope":
                left_out = None if optional(hint) else msgspec.NODEFAULT
                if ADDED in marks:
                    left_out = defaults[name].default
                written = defaults[name].encode_name
                fields.append((name, hint, msgspec.field(default=left_out, name=written)))
    names = tuple(name for name in hints if name != "envelope" and name not in arrays)
    fields.append(("buffers", Annotated[list[Buffer], Meta(max_length=1)]))
    header = msgspec.defstruct(
        f"{message.__name__}Header",
        fields,
        frozen=True,
        kw_only=True,
        tag_field="kind",
        tag=kind,
    )
    return _Form(message, header, names, arrays, frozenset(required))


FORMS = {kind: _form(message, kind) for message, kind in KINDS.items()}
_BY_HEADER = {form.header: form for form in FORMS.values()}
_HEADERS: Any = Union[tuple(_BY_HEADER)]  # noqa: UP007 - made at run time
_DECODER: Any = msgspec.msgpack.Decoder(_HEADERS)
_SCHEMA: Any = msgspec.msgpack.Decoder(dict[str, Any])


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected a plain value, got {type(value).__name__}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)


def topic(kind: str, stream: str) -> bytes:
    """Topic of a kind and stream; the last slash keeps ``s1`` from matching ``s10``."""
    return f"{kind}/{stream}/".encode()


def encode(message: Message, t_sent_ns: int | None = None) -> list[Frame]:
    """Make the frames of a message; ``t_sent_ns`` takes the place of the envelope's, if given."""
    envelope, kind = message.envelope, KINDS[type(message)]
    form = FORMS[kind]
    values = {name: getattr(message, name) for name in form.fields}
    buffers, frames = [], []
    for name, raw in form.arrays.items():
        array: NDArray[Any] | None = getattr(message, name)
        if array is not None:
            array = np.ascontiguousarray(array, raw.dtype)
            buffers.append(Buffer(name, raw.dtype, list(array.shape)))
            frames.append(array.data.cast("B"))
    header = form.header(
        schema=SCHEMA,
        stream=envelope.stream,
        seq=envelope.seq,
        t_start_ns=envelope.t_start_ns,
        t_end_ns=envelope.t_end_ns,
        t_sent_ns=envelope.t_sent_ns if t_sent_ns is None else t_sent_ns,
        clock=envelope.clock,
        repeated=envelope.repeated,
        epoch=envelope.epoch,
        resume=envelope.resume,
        buffers=buffers,
        **values,
    )
    return [topic(kind, envelope.stream), _ENCODER.encode(header), *frames]


def repeated(frames: Sequence[Frame]) -> list[Frame]:
    """The frames of a message again, marked as a repetition; as they are, where that cannot be."""
    try:
        header = _SCHEMA.decode(frames[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return list(frames)  # a relay passes on what it does not read
    return [frames[0], _ENCODER.encode({**header, "repeated": True}), *frames[2:]]


def decode(frames: Sequence[Frame]) -> Message:
    """Read a message; arrays are read-only views of their frame.

    Raises:
        WireError: anything that is not by the protocol; names the field, expected and actual.
    """
    if not 2 <= len(frames) <= 3:
        raise WireError(f"frames: expected 2 or 3, got {len(frames)}")
    limits = (MAX_TOPIC, MAX_HEADER, MAX_BUFFER)
    for name, frame, limit in zip(("topic", "header", "buffer"), frames, limits, strict=False):
        if len(frame) > limit:
            raise WireError(f"{name}: expected at most {limit} bytes, got {len(frame)}")
    try:
        header = _DECODER.decode(frames[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(_reason(frames[1], error)) from None
    form = _BY_HEADER[type(header)]
    if type(header.schema) is not int or header.schema != SCHEMA:
        raise WireError(_reason(frames[1], ValueError()))
    envelope = _envelope(header)
    kind = KINDS[form.message]
    if bytes(frames[0]) != topic(kind, envelope.stream):
        raise WireError(f"topic: expected that of the header's kind and stream, {kind}/")
    values = {name: getattr(header, name) for name in form.fields}
    array = _array(form, header.buffers, frames[2:])
    return form.message(envelope=envelope, **values, **array)


def _reason(header: Frame, error: Exception) -> str:
    """Say what is wrong with a header, its schema first: another one's fields mean other things."""
    try:
        values = _SCHEMA.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        if isinstance(fault, msgspec.ValidationError):
            return "header: expected a map with text keys"
        return f"header: not msgpack ({type(fault).__name__})"
    schema, kind = values.get("schema"), values.get("kind")
    if type(schema) is not int or schema != SCHEMA:
        return f"header.schema: expected {SCHEMA}, got {describe(schema)}"
    form = FORMS.get(kind) if isinstance(kind, str) else None
    if form is None:
        return f"header.kind: expected one of {', '.join(FORMS)}, got {describe(kind)}"
    return explain(error, values, form.header, "header")


def _envelope(header: Any) -> Envelope:
    stream = header.stream
    if not STREAM.fullmatch(stream) or not stream.isprintable():
        raise WireError(
            "header.stream: expected a printable name without a slash, or one with the number of "
            "a person before its camera (room/1)"
        )
    start, end = header.t_start_ns, header.t_end_ns
    if end < start:
        raise WireError(f"header.t_end_ns: expected at least t_start_ns {start}, got {end}")
    return Envelope(
        stream,
        header.seq,
        start,
        end,
        header.t_sent_ns,
        header.clock,
        header.repeated,
        header.epoch,
        header.resume,
    )


def _array(form: _Form, described: list[Buffer], frames: Sequence[Frame]) -> dict[str, Any]:
    if len(described) != len(frames):
        raise WireError(f"buffers: header describes {len(described)}, {len(frames)} came")
    if form.required - {buffer.name for buffer in described}:
        raise WireError(f"buffers: expected {', '.join(sorted(form.required))}")
    if not frames:
        return {}
    buffer, place = described[0], "header.buffers[0]"
    raw = form.arrays.get(buffer.name)
    if raw is None:
        known = ", ".join(form.arrays) or "none"
        raise WireError(f"{place}.name: expected {known} in a {KINDS[form.message]} message")
    if buffer.dtype != raw.dtype:
        raise WireError(f"{place}.dtype: expected {raw.dtype}, got a text of {len(buffer.dtype)}")
    fixed = raw.last is not None and buffer.shape[-1:] != [raw.last]
    if len(buffer.shape) != raw.axes or max(buffer.shape) > raw.longest or fixed:
        last = "" if raw.last is None else f", the last {raw.last}"
        raise WireError(
            f"{place}.shape: expected {raw.axes} axes of at most {raw.longest}{last}, "
            f"got {buffer.shape}"
        )
    size = raw.itemsize * math.prod(buffer.shape)
    if size != len(frames[0]):
        raise WireError(f"buffers[0]: expected {size} bytes by its shape, got {len(frames[0])}")
    values = np.frombuffer(frames[0], raw.dtype).reshape(buffer.shape)
    values.flags.writeable = False
    return {buffer.name: values}
