"""The codec: messages to frames and back. Pure; docs/protocol.md says the same in words.

A message is ``[topic, header]`` or ``[topic, header, buffer]``: the header is one msgpack map,
an array is a raw frame beside it. What is decoded came from a stranger: sizes are checked before
unpacking, types and ranges after, dtype and shape before an array is made of a buffer. Unknown
header fields are ignored, so that fields may be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgpack
import numpy as np
from numpy.typing import NDArray

from engine.wire.fields import Fields, WireError
from engine.wire.messages import (
    SCHEMA,
    VALENCE_RANGE,
    Audio,
    Box,
    Clock,
    Envelope,
    Interval,
    Latency,
    Message,
    ModalityState,
    ModelInfo,
    NoValueReason,
    Score,
    Status,
    Text,
    TextSource,
    Trigger,
    Video,
    WorkerKind,
    WorkerState,
)

__all__ = ["Frame", "WireError", "decode", "encode", "topic"]

Frame = bytes | memoryview

MAX_TOPIC = 128
MAX_HEADER = 64 * 1024
MAX_BUFFER = 1024 * 1024
MAX_SAMPLES = 16_000
MAX_CROP_PX = 512
MAX_TRANSCRIPT = 10_000
KINDS = {Audio: "audio", Video: "video", Text: "text", Score: "score", Status: "status"}


def topic(kind: str, stream: str) -> bytes:
    """Topic of a kind and stream; the last slash keeps ``s1`` from matching ``s10``."""
    return f"{kind}/{stream}/".encode()


def encode(message: Message) -> list[Frame]:
    """Make the frames of a message."""
    envelope, kind = message.envelope, KINDS[type(message)]
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": kind,
        "stream": envelope.stream,
        "seq": envelope.seq,
        "t_start_ns": envelope.t_start_ns,
        "t_end_ns": envelope.t_end_ns,
        "t_sent_ns": envelope.t_sent_ns,
        "clock": {"host": envelope.clock.host, "boot_id": envelope.clock.boot_id},
        "buffers": [],
    }
    array = _WRITERS[kind](message, header)
    frames: list[Frame] = [topic(kind, envelope.stream)]
    if array is None:
        return [*frames, msgpack.packb(header)]
    name, values = array
    header["buffers"] = [{"name": name, "dtype": values.dtype.str, "shape": list(values.shape)}]
    return [*frames, msgpack.packb(header), np.ascontiguousarray(values).data.cast("B")]


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
        header = msgpack.unpackb(frames[1], ext_hook=_refuse_extension, strict_map_key=True)
    except WireError:
        raise
    except Exception as error:  # msgpack raises a dozen kinds, RecursionError among them
        raise WireError(f"header: not msgpack ({type(error).__name__})") from None
    fields = Fields.of(header, "header")
    schema = fields.integer("schema")
    if schema != SCHEMA:
        raise WireError(f"header.schema: expected {SCHEMA}, got {schema}")
    kind = fields.choice("kind", tuple(KINDS.values()))
    envelope = _read_envelope(fields)
    if bytes(frames[0]) != topic(kind, envelope.stream):
        raise WireError(f"topic: expected that of the header's kind and stream, {kind}/")
    array = _read_array(fields, frames[2:])
    if array is not None and kind not in ("audio", "video"):
        raise WireError(f"buffers: expected none in a {kind} message")
    message: Message = _READERS[kind](envelope, fields, array)
    return message


def _refuse_extension(code: int, data: bytes) -> None:
    raise WireError(f"header: expected no extension types, got code {code} of {len(data)} bytes")


def _read_envelope(fields: Fields) -> Envelope:
    stream = fields.text("stream", 64)
    if not stream or "/" in stream or not stream.isprintable():
        raise WireError("header.stream: expected a printable name without a slash")
    clock = fields.map("clock")
    start, end = fields.integer("t_start_ns"), fields.integer("t_end_ns")
    if end < start:
        raise WireError(f"header.t_end_ns: expected at least t_start_ns {start}, got {end}")
    return Envelope(
        stream,
        fields.integer("seq"),
        start,
        end,
        fields.integer("t_sent_ns"),
        Clock(clock.text("host"), clock.text("boot_id")),
    )


def _read_array(fields: Fields, buffers: Sequence[Frame]) -> tuple[str, NDArray[Any]] | None:
    described = fields.items("buffers", 1)
    if len(described) != len(buffers):
        raise WireError(f"buffers: header describes {len(described)}, {len(buffers)} came")
    if not buffers:
        return None
    entry = Fields.of(described[0], "header.buffers[0]")
    name = entry.choice("name", ("samples", "crop"))
    dtype, axes = {"samples": ("<i2", 1), "crop": ("|u1", 3)}[name]
    entry.choice("dtype", (dtype,))
    shape = entry.items("shape", axes)
    if len(shape) != axes or any(type(n) is not int or n < 1 for n in shape):
        raise WireError(f"header.buffers[0].shape: expected {axes} positive integers")
    size = int(np.dtype(dtype).itemsize)
    for axis in shape:
        size *= axis
    if size != len(buffers[0]):
        raise WireError(f"buffers[0]: expected {size} bytes by its shape, got {len(buffers[0])}")
    values = np.frombuffer(buffers[0], dtype).reshape(shape)
    values.flags.writeable = False
    return name, values


# Audio


def _write_audio(message: Audio, header: dict[str, Any]) -> tuple[str, NDArray[Any]]:
    header["rate_hz"] = 16_000
    header["speech"] = list(message.speech)
    header["frame_ms"] = message.frame_ms
    header["level_dbfs"] = message.level_dbfs
    header["gap_samples"] = message.gap_samples
    return "samples", message.samples.astype("<i2", copy=False)


def _read_audio(envelope: Envelope, fields: Fields, array: tuple[str, Any] | None) -> Audio:
    if array is None or array[0] != "samples" or len(array[1]) > MAX_SAMPLES:
        raise WireError(f"buffers: expected samples, int16 [N], N at most {MAX_SAMPLES}")
    fields.integer("rate_hz", 16_000, 16_000)
    speech = fields.items("speech", 100)
    if any(type(flag) is not bool for flag in speech):
        raise WireError("header.speech: expected a list of true and false")
    frame_ms = fields.integer("frame_ms", 10, 30)
    if frame_ms % 10:
        raise WireError(f"header.frame_ms: expected 10, 20 or 30, got {frame_ms}")
    return Audio(
        envelope,
        array[1],
        tuple(speech),
        frame_ms,
        fields.number("level_dbfs", -200, 10),
        fields.integer("gap_samples"),
    )


# Video


def _write_video(message: Video, header: dict[str, Any]) -> tuple[str, NDArray[Any]] | None:
    box = message.box
    header["faces"] = message.faces
    header["box"] = None if box is None else [box.x, box.y, box.width, box.height]
    header["track_id"] = message.track_id
    header["detector_score"] = message.detector_score
    return None if message.crop is None else ("crop", message.crop)


def _read_video(envelope: Envelope, fields: Fields, array: tuple[str, Any] | None) -> Video:
    crop = None
    if array is not None:
        crop = array[1]
        if array[0] != "crop" or crop.shape[2] != 3 or max(crop.shape) > MAX_CROP_PX:
            raise WireError(
                f"buffers: expected a crop, uint8 [H, W, 3], H and W at most {MAX_CROP_PX}"
            )
    box = None
    if fields.has("box"):
        numbers = fields.items("box", 4)
        if len(numbers) != 4 or any(type(n) is not int or abs(n) > 100_000 for n in numbers):
            raise WireError("header.box: expected 4 integers x, y, width, height")
        box = Box(*numbers)
    return Video(
        envelope,
        fields.integer("faces", 0, 10_000),
        crop,
        box,
        fields.optional_integer("track_id"),
        fields.optional_number("detector_score", 0, 1),
    )


# Text


def _write_text(message: Text, header: dict[str, Any]) -> None:
    header["text"] = message.text


def _read_text(envelope: Envelope, fields: Fields, array: tuple[str, Any] | None) -> Text:
    return Text(envelope, fields.text("text", MAX_TRANSCRIPT))


# Score


def _write_score(message: Score, header: dict[str, Any]) -> None:
    interval, latency, model = message.interval, message.latency_ms, message.model
    header["valence"] = message.valence
    header["valence_window"] = message.valence_window
    header["interval"] = None if interval is None else [interval.low, interval.high]
    header["trend"] = message.trend
    header["trigger"] = message.trigger
    header["reason"] = message.reason
    header["modalities"] = {
        name: {
            "present": state.present,
            "coverage": state.coverage,
            "weight": state.weight,
            "quality": state.quality,
        }
        for name, state in (
            ("audio", message.audio),
            ("video", message.video),
            ("text", message.text),
        )
    }
    header["text"] = {"source": message.text_source}
    header["speaking"] = message.speaking
    header["faces"] = message.faces
    header["latency_ms"] = {
        "transport": latency.transport,
        "wait": latency.wait,
        "encode": latency.encode,
        "fuse": latency.fuse,
        "total": latency.total,
    }
    header["dropped"] = message.dropped
    header["model"] = {
        "name": model.name,
        "version": model.version,
        "sha256": model.sha256,
        "backend": model.backend,
        "precision": model.precision,
        "trained": model.trained,
    }
    header["mark"] = message.mark


def _read_score(envelope: Envelope, fields: Fields, array: tuple[str, Any] | None) -> Score:
    low, high = VALENCE_RANGE
    interval = None
    if fields.has("interval"):
        ends = fields.items("interval", 2)
        numbers = [type(end) in (int, float) and low <= end <= high for end in ends]
        if len(ends) != 2 or not all(numbers) or ends[0] > ends[1]:
            raise WireError("header.interval: expected [low, high] within [-3, 3]")
        interval = Interval(float(ends[0]), float(ends[1]))
    reason: NoValueReason | None = None
    if fields.has("reason"):
        reason = fields.choice("reason", get_args(NoValueReason))
    modalities, latency, model = (fields.map(n) for n in ("modalities", "latency_ms", "model"))
    audio, video, text = (_read_modality(modalities.map(n)) for n in ("audio", "video", "text"))
    return Score(
        envelope,
        fields.optional_number("valence", low, high),
        fields.optional_number("valence_window", low, high),
        interval,
        fields.optional_number("trend"),
        fields.choice("trigger", get_args(Trigger)),
        reason,
        audio,
        video,
        text,
        fields.map("text").choice("source", get_args(TextSource)),
        fields.flag("speaking"),
        fields.integer("faces", 0, 10_000),
        Latency(*(latency.number(n) for n in ("transport", "wait", "encode", "fuse", "total"))),
        fields.integer("dropped"),
        ModelInfo(
            model.text("name"),
            model.text("version"),
            model.text("sha256"),
            model.text("backend"),
            model.text("precision"),
            model.flag("trained"),
        ),
        fields.optional_text("mark"),
    )


def _read_modality(fields: Fields) -> ModalityState:
    return ModalityState(
        fields.flag("present"),
        fields.number("coverage", 0, 1),
        fields.number("weight", 0, 1),
        fields.optional_number("quality", 0, 1),
    )


# Status


def _write_status(message: Status, header: dict[str, Any]) -> None:
    header["worker"] = message.worker
    header["state"] = message.state
    header["detail"] = message.detail
    header["counters"] = message.counters
    header["gauges"] = message.gauges


def _read_status(envelope: Envelope, fields: Fields, array: tuple[str, Any] | None) -> Status:
    return Status(
        envelope,
        fields.choice("worker", get_args(WorkerKind)),
        fields.choice("state", get_args(WorkerState)),
        fields.text("detail", 1000),
        fields.integers("counters"),
        fields.numbers("gauges"),
    )


_WRITERS: dict[str, Any] = {
    "audio": _write_audio,
    "video": _write_video,
    "text": _write_text,
    "score": _write_score,
    "status": _write_status,
}
_READERS: dict[str, Any] = {
    "audio": _read_audio,
    "video": _read_video,
    "text": _read_text,
    "score": _read_score,
    "status": _read_status,
}
