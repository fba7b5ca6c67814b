"""Strategies that make any message the protocol allows, from the messages' own types."""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from hypothesis import strategies as st
from msgspec import Meta, Struct

from engine.wire.fields import bare, optional
from engine.wire.messages import (
    INT64_MAX,
    Audio,
    Clock,
    Envelope,
    Interval,
    Raw,
    Score,
    Status,
    Text,
    Video,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True)
counts = st.integers(0, 2**40)


def strategy_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this type may hold."""
    if kind is NoneType:
        return st.none()
    raw = next((arg for arg in get_args(kind) if isinstance(arg, Raw)), None)
    if raw is not None:
        arrays = array_of(raw)
        return st.none() | arrays if optional(kind) else arrays
    plain, meta = bare(kind)
    made = _plain(plain, meta or Meta())
    return st.none() | made if optional(kind) else made


def array_of(raw: Raw) -> st.SearchStrategy[np.ndarray]:
    """Small arrays of the dtype and axes."""
    sides = [st.integers(1, 8)] * (raw.axes - (raw.last is not None))
    last = [] if raw.last is None else [st.just(raw.last)]
    shapes = st.tuples(*sides, *last)
    return shapes.map(lambda s: np.arange(int(np.prod(s))).astype(raw.dtype).reshape(s))


def _plain(kind: Any, meta: Meta) -> st.SearchStrategy[Any]:
    if kind is Interval:
        return st.tuples(st.floats(-3, 3), st.floats(-3, 3)).map(lambda e: Interval(*sorted(e)))
    if kind is Envelope:
        return envelopes()
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is int:
        high = min(INT64_MAX, meta.le if meta.le is not None else INT64_MAX)
        return st.integers(meta.ge, int(high))
    if kind is float:
        return st.floats(meta.ge, meta.le)
    if kind is str:
        if meta.pattern is not None:
            return st.from_regex(r"[A-Za-z0-9_]{1,20}", fullmatch=True)
        return st.text(max_size=min(meta.max_length or 40, 40))
    if get_origin(kind) in (list, tuple):
        inner = strategy_of(get_args(kind)[0])
        made = st.lists(inner, max_size=min(meta.max_length or 5, 5))
        return made.map(tuple) if get_origin(kind) is tuple else made
    if get_origin(kind) is dict:
        key, value = map(strategy_of, get_args(kind))
        return st.dictionaries(key, value, max_size=4)
    assert issubclass(kind, Struct), kind
    return any_of(kind)


def any_of(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Any struct of this type."""
    hints = get_type_hints(kind, include_extras=True)
    fields = st.fixed_dictionaries({n: strategy_of(h) for n, h in hints.items()})
    if kind is Video:  # a crop comes as pixels or as a JPEG
        fields = fields.filter(lambda values: values["crop"] is None or values["jpeg"] is None)
    return fields.map(lambda values: kind(**values))


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    start = draw(counts)
    return Envelope(
        draw(names), draw(counts), start, start + draw(counts), draw(counts),
        draw(any_of(Clock)), draw(st.booleans()),
    )  # fmt: skip


scores = any_of(Score)
messages = st.one_of(any_of(Audio), any_of(Video), scores, any_of(Status), any_of(Text))
