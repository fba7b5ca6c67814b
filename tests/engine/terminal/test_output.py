"""Printing where nobody reads, and lines that would say too much."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from engine.terminal.output import Output
from engine.wire.notices import BURST, PERIOD_S, Limiter, redact


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        for end in (read, write):
            with contextlib.suppress(OSError):
                os.close(end)


def fill(write: int) -> int:
    """Write until nobody could write any more."""
    os.set_blocking(write, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(write, bytes(65536))
    os.set_blocking(write, True)
    return size


def test_writing_to_a_terminal_that_nobody_reads_does_not_wait_and_is_counted() -> None:
    with pipe() as (read, write):
        size = fill(write)
        output = Output(write, limit=1000)
        for number in range(500):
            output.write(f"line {number}\n")
        assert not output.drain(0.05)
        assert 300 < output.dropped < 500
        while size > 0:  # somebody reads again
            size -= len(os.read(read, 65536))
        assert output.drain(10)
        output.write("the end\n")
        assert output.drain(10)
        said = os.read(read, 65536).decode().replace("\0", "")
        assert said.startswith("line 0\n")
        assert "texts dropped: nobody read" in said
        assert said.rstrip().endswith(")") or "the end\n" in said


def test_a_reader_that_has_closed_standard_output_is_told_like_head_does() -> None:
    with pipe() as (read, write):
        output = Output(write)
        os.close(read)
        output.write("x")
        output.drain(10)
        output.write("a log without a reader ends nothing")
        output.drain(10)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@camera/1 is gone", "rtsp://***@camera/1 is gone"),
        ("https://token@host/x?y=1", "https://***@host/x?y=1"),
        (
            "mail me@host.example, tcp://127.0.0.1:5570",
            "mail me@host.example, tcp://127.0.0.1:5570",
        ),
    ],
)
def test_no_password_of_an_address_is_printed(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_lines_of_one_cause_are_limited_and_what_went_unsaid_is_told() -> None:
    now_s = [0.0]
    limiter = Limiter(lambda: now_s[0])
    said = [limiter.line(f"packet {number} is late") for number in range(100)]
    assert [line for line in said if line is not None] == said[:BURST]
    assert limiter.line("another cause") == "another cause"
    now_s[0] = PERIOD_S
    assert limiter.line("packet 7 is late") == f"packet 7 is late (and {100 - BURST} more like it)"
