"""The codec: every message comes back, and nothing but a message gets in."""

import os
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.wire.codec import WireError, decode, encode, topic
from engine.wire.messages import (
    Audio,
    Clock,
    Envelope,
    Latency,
    Message,
    ModalityState,
    ModelInfo,
    Score,
    Status,
    Text,
    Video,
)
from tests.support.messages import messages

EXAMPLES = int(os.environ.get("CODEC_FUZZ_EXAMPLES", "400"))
"""Of each property; 100000 for a long fuzz run."""
PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    return bool(a == b)


def outcome(frames: list[bytes]) -> str:
    """What decoding says: nothing, or a WireError's text; anything else fails the test."""
    try:
        decode(frames)
    except WireError as error:
        return str(error)
    return ""


def chunk(**changes: Any) -> list[Any]:
    envelope = Envelope("main", 3, 10, 20, 30, Clock("here", "boot"))
    frames = encode(Audio(envelope, np.arange(320, dtype=np.int16), (True,), 20, -30.0))
    header = {**msgpack.unpackb(frames[1]), **changes}
    return [frames[0], msgpack.packb(header), frames[2]]


@fuzz
@given(messages)
def test_every_message_comes_back(message: Message) -> None:
    frames = encode(message)
    assert bytes(frames[0]).endswith(b"/")
    assert same(message, decode([bytes(frame) for frame in frames]))


@fuzz
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_noise_is_refused_with_a_wire_error(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@fuzz
@given(messages, st.data())
def test_a_message_with_one_field_replaced_decodes_or_is_refused(
    message: Message, data: st.DataObject
) -> None:
    frames = [bytes(frame) for frame in encode(message)]
    header = msgpack.unpackb(frames[1])
    header[data.draw(st.sampled_from(sorted(header)))] = data.draw(json_like)
    frames[1] = msgpack.packb(header)
    assert "\n" not in outcome(frames)


@fuzz
@given(messages, st.data())
def test_a_message_with_one_byte_flipped_decodes_or_is_refused(
    message: Message, data: st.DataObject
) -> None:
    frames = [bytearray(frame) for frame in encode(message)]
    frame = data.draw(st.sampled_from(frames))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    assert "\n" not in outcome([bytes(f) for f in frames])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"schema": 2}, r"header.schema: expected 1, got 2"),
        ({"kind": "vidio"}, r"header.kind: expected one of audio, .* got str of 5"),
        ({"seq": -1}, r"header.seq: expected an integer in \[0, .* got -1"),
        ({"seq": True}, r"header.seq: .* got True"),
        ({"stream": "a/b"}, r"header.stream: expected a printable name"),
        ({"stream": "other"}, r"topic: expected that of the header's kind and stream"),
        ({"t_end_ns": 5}, r"header.t_end_ns: expected at least t_start_ns 10, got 5"),
        ({"level_dbfs": float("nan")}, r"header.level_dbfs: expected a number"),
        ({"speech": [1]}, r"header.speech: expected a list of true and false"),
        ({"buffers": []}, r"buffers: header describes 0, 1 came"),
        (
            {"buffers": [{"name": "samples", "dtype": "|O8", "shape": [80]}]},
            r"header.buffers\[0\].dtype: expected one of <i2",
        ),
        (
            {"buffers": [{"name": "samples", "dtype": "<i2", "shape": [2**62]}]},
            r"buffers\[0\]: expected 9223372036854775808 bytes by its shape, got 640",
        ),
        ({"clock": None}, r"header.clock: expected a map with text keys, got nil"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(WireError, match=error):
        decode(chunk(**changes))


def test_sizes_are_checked_before_unpacking() -> None:
    good = chunk()
    for index, size in ((0, 200), (1, 70_000), (2, 2_000_000)):
        frames = [*good]
        frames[index] = bytes(size)
        with pytest.raises(WireError, match=r"expected at most \d+ bytes"):
            decode(frames)


def test_extension_types_and_deep_nesting_are_refused() -> None:
    for header in (
        msgpack.packb({"schema": msgpack.ExtType(5, b"x")}),
        b"\x91" * 5000 + b"\xc0",
    ):
        with pytest.raises(WireError):
            decode([b"audio/main/", header])


def test_unknown_fields_are_ignored_and_arrays_are_read_only() -> None:
    message = decode(chunk(added_later={"a": 1}))
    assert isinstance(message, Audio)
    assert not message.samples.flags.writeable


def test_an_error_does_not_repeat_a_strangers_text() -> None:
    with pytest.raises(WireError) as caught:
        decode(chunk(kind="a secret that somebody said"))
    assert "secret" not in str(caught.value)


def test_a_topic_ends_so_that_one_stream_is_no_prefix_of_another() -> None:
    assert not topic("score", "s10").startswith(topic("score", "s1"))


def test_the_protocol_page_names_every_field() -> None:
    page = PAGE.read_text()
    named = set(re.findall(r"`([a-z_0-9]+)`", page))
    kinds = (Envelope, Audio, Video, Text, Score, Status, ModalityState, Latency, ModelInfo, Clock)
    elsewhere = {"envelope", "audio", "text_source"}  # the header, `modalities` and `text.source`
    missing = {f.name for kind in kinds for f in fields(kind) if f.name not in named | elsewhere}
    assert not missing
    assert "Schema **1**" in page
