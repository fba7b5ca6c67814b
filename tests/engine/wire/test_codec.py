"""The codec: every message comes back, and nothing but a message gets in."""

import os
import re
import tracemalloc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine.wire.codec import WireError, decode, encode, topic
from engine.wire.fields import bare, optional
from engine.wire.messages import (
    Audio,
    Clock,
    Envelope,
    Message,
    Modalities,
    ModalityState,
    Raw,
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
    if isinstance(a, Struct):
        return type(a) is type(b) and all(
            same(getattr(a, name), getattr(b, name)) for name in a.__struct_fields__
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
        ({"speech": [1]}, r"header.speech\[0\]: expected true or false, got 1"),
        ({"buffers": []}, r"buffers: header describes 0, 1 came"),
        (
            {"buffers": [{"name": "samples", "dtype": "|O8", "shape": [80]}]},
            r"header.buffers\[0\].dtype: expected <i2, got a text of 3",
        ),
        (
            {"buffers": [{"name": "samples", "dtype": "<i2", "shape": [2**62]}]},
            r"header.buffers\[0\].shape\[0\]: expected an integer in \[1, 2147483648\]",
        ),
        ({"clock": None}, r"header.clock: expected a map with text keys, got nil"),
    ],
)
def test_a_broken_rule_is_named(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(WireError, match=error):
        decode(chunk(**changes))


def test_sizes_are_checked_before_unpacking() -> None:
    good = chunk()
    for index, size in ((0, 400), (1, 70_000), (2, 2_000_000)):
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


def test_forged_lengths_cost_no_memory() -> None:
    good = msgpack.packb({"schema": 1, "kind": "audio"})[1:]
    for forged in (b"\xa6speech\xdd\xff\xff\xff\xff", b"\xa4text\xdb\xff\xff\xff\xff",
                   b"\xa8counters\xdf\xff\xff\xff\xff", b"\xa1x\xdd\xff\xff\xff\xff"):  # fmt: skip
        tracemalloc.start()
        assert outcome([b"audio/main/", b"\x83" + good + forged])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_a_name_of_the_longest_kind_passes() -> None:
    envelope = Envelope("\u5b57" * 64, 0, 0, 0, 0, Clock("here", "boot"))
    message = Text(envelope, "hello")
    assert decode(encode(message)) == message


def test_an_older_sender_may_leave_out_what_was_added_later_and_nothing_else() -> None:
    frames = chunk()
    header = msgpack.unpackb(frames[1])
    for name in header:
        rest = {key: value for key, value in header.items() if key != name}
        said = outcome([frames[0], msgpack.packb(rest), frames[2]])
        assert bool(said) == (name not in ("repeated", "epoch", "resume")), f"{name}: {said}"


def tables() -> dict[str, dict[str, tuple[str, str]]]:
    """Rows of the page's tables, by their heading and field: its type and its range."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)][1:-1]
        if len(cells) == 4 and cells[0].startswith("`"):
            for name in re.findall(r"`([a-z_0-9.*]+)`", cells[0]):
                found.setdefault(heading, {})[name] = (cells[1], cells[2])
    return found


def described(kind: type[Struct], prefix: str = "") -> dict[str, Any]:
    """Every field of a struct as the page names it, with its type; maps within it by their path."""
    found: dict[str, Any] = {}
    hints = get_type_hints(kind, include_extras=True)
    for name, written in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        plain, _ = bare(hints[name])
        is_map = isinstance(plain, type) and issubclass(plain, Struct)
        if name == "envelope" or any(isinstance(arg, Raw) for arg in get_args(hints[name])):
            continue
        found[prefix + written] = hints[name]
        items = get_args(plain)[0] if get_origin(plain) in (list, tuple) else None
        if isinstance(items, type) and issubclass(items, Struct):
            found |= described(items, f"{prefix}{written}.*.")
        if is_map and not plain.__struct_config__.array_like and plain is not Modalities:
            found |= described(plain, f"{prefix}{written}.")
    return found


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Every header", Envelope),
        ("audio", Audio),
        ("video", Video),
        ("text", Text),
        ("score", Score),
        ("status", Status),
    ],
)
def test_the_protocol_page_says_what_the_structs_say(heading: str, kind: type[Struct]) -> None:
    page, fields = tables()[heading], described(kind)
    if kind is Score:
        fields |= described(ModalityState, "modalities.*.")
    if kind is Envelope:
        fields |= {"schema": None, "kind": None, "buffers": None}
    assert set(page) - {"samples", "crop", "jpeg"} == set(fields)
    for name, hint in fields.items():
        if hint is None:
            continue
        words, span = page[name]
        plain, meta = bare(hint)
        assert optional(hint) == ("nil" in words), f"{name}: nil or not"
        if get_origin(plain) is Literal:
            assert all(str(choice) in words + span for choice in get_args(plain)), name
        if meta is not None and (bounds := (meta.ge, meta.le)) != (None, None):
            shown = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", span)]
            whole = [b for b in bounds if b is not None and abs(b) < 1e9]
            assert [float(b) for b in whole] == shown, f"{name}: expected {whole}, page {shown}"
        if meta is not None and meta.max_length is not None:
            assert str(meta.max_length) in span, f"{name}: at most {meta.max_length}"


def test_the_page_names_the_schema() -> None:
    assert "Schema **1**" in PAGE.read_text()
