"""One flat row per score: what recordings and ``engine score`` write, the same in every format.

The columns follow from the fields of ``Score``, so that a row holds everything that its score
does: a column is a field's path, shortened as ``_column_name`` says. Only how it travelled is left
out (whether it was repeated, and by which worker it came): a row stands for the score itself.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.wire.codec import decode, encode
from engine.wire.fields import WireError, bare, convert, optional
from engine.wire.messages import Score

ROW_SCHEMA = 2
"""Raised when a column goes or changes its meaning; a new column raises it too where it may hold no
None. Schema 1 (before the column ``row_schema``) had no latency per stage and no clock."""

MODEL = {"name": "model", "version": "model_version", "sha256": "model_sha256"}
LEFT_OUT = {("envelope", name) for name in ("repeated", "epoch", "resume")}
Kind = type[float] | type[int] | type[bool] | type[str] | type[list[Any]]


class RowError(Exception):
    """Values that make no row; one line with the column, expected and actual."""


@dataclass(frozen=True, slots=True)
class Row:
    """A score, and when it was received, in seconds since 1970 (UTC)."""

    score: Score
    received_unix_s: float

    def values(self) -> dict[str, Any]:
        """Every column's value by its name; None where there is none."""
        return {column.name: column.of(self) for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: where its value is in a score, the value's type, and whether it may hold none."""

    name: str
    path: tuple[str, ...]
    """Empty for the two columns that are the row's own."""
    kind: Kind
    optional: bool

    def of(self, row: Row) -> Any:
        """The column's value in a row; a list (of words, say) as JSON text."""
        if not self.path:
            return ROW_SCHEMA if self.name == "row_schema" else row.received_unix_s
        value: Any = row.score
        for step in self.path:
            if value is None:
                return None
            value = getattr(value, step)
        if self.kind is list and value is not None:
            return json.dumps(msgspec.to_builtins(value))
        return value


def _column_name(path: tuple[str, ...]) -> str:
    match path:
        case ("envelope", "clock", name):
            return f"clock_{name}"
        case ("envelope", name):
            return name
        case ("modalities", modality, "interval", end):
            return f"{modality}_{end}"
        case ("modalities", modality, *rest):
            return "_".join((modality, *rest))
        case ("interval", end):
            return end
        case ("latency_ms", stage):
            return f"latency_{stage}_ms"
        case ("transcript", name):
            return f"text_{name}"
        case ("model", name):
            return MODEL.get(name, name)
        case _:
            return "_".join(path)


def _columns_of(
    kind: type[Struct], path: tuple[str, ...] = (), maybe: bool = False
) -> Iterator[Column]:
    hints = get_type_hints(kind, include_extras=True)
    for name in kind.__struct_fields__:
        here = (*path, name)
        if here in LEFT_OUT:
            continue
        plain, _ = bare(hints[name])
        none = maybe or optional(hints[name])
        if isinstance(plain, type) and issubclass(plain, Struct):
            yield from _columns_of(plain, here, none)
        elif get_origin(plain) in (list, tuple, dict):
            yield Column(_column_name(here), here, list, none)
        else:
            is_text = get_origin(plain) is Literal and type(get_args(plain)[0]) is str
            yield Column(_column_name(here), here, str if is_text else plain, none)


LAST = "trained"
"""The last column: of a cut CSV line its last cell, true or false, tells whether it is whole."""
COLUMNS = (
    Column("row_schema", (), int, False),
    Column("received_unix_s", (), float, False),
    *sorted(_columns_of(Score), key=lambda column: column.name == LAST),
)
NAMES = tuple(column.name for column in COLUMNS)
BY_NAME = {column.name: column for column in COLUMNS}


def row_of(score: Score, received_unix_s: float | None = None) -> Row:
    """Make the row of a score; ``received_unix_s`` is now unless given."""
    travelled = score.envelope
    if travelled.repeated or travelled.epoch or travelled.resume is not None:
        plain = replace(travelled, repeated=False, epoch=0, resume=None)
        score = replace(score, envelope=plain)
    return Row(score, time.time() if received_unix_s is None else received_unix_s)


def row_from(values: Mapping[str, Any]) -> Row:
    """Make a row of a mapping with the columns' names; unknown ones are ignored.

    Raises:
        RowError: another schema, a missing column, or a value of another type or range.
    """
    check_schema(values.get("row_schema"))
    found: dict[tuple[str, ...], Any] = {}
    for column in COLUMNS:
        if column.name not in values and not column.optional:
            raise RowError(
                f"expected the columns of row schema {ROW_SCHEMA}, no {column.name} here"
            )
        found[column.path] = _checked(column, values.get(column.name))
    try:
        score = convert(_as_on_the_wire(Score, found), Score, "score")
        decode(encode(score))  # what is read can be published again
    except WireError as fault:
        raise RowError(str(fault)) from None
    return Row(score, float(values["received_unix_s"]))


def check_schema(found: object) -> None:
    """Refuse another row schema.

    Raises:
        RowError: says what was found, and what to do.
    """
    if found is None or (type(found) is int and found < ROW_SCHEMA):
        older = "1 or older" if found is None else str(found)
        raise RowError(
            f"row schema: expected {ROW_SCHEMA}, got {older}: an older version recorded it, "
            "without latencies per stage and clock; record it again"
        )
    if type(found) is not int or found > ROW_SCHEMA:
        raise RowError(f"row schema: expected {ROW_SCHEMA}, got {found!r:.20}: a newer version's?")


def _checked(column: Column, value: Any) -> Any:
    if value is None and column.optional:
        return None
    # JSON and hand-edited files write a whole number of a float column without its point.
    if column.kind is float and type(value) is int and abs(value) <= 2**53:
        value = float(value)
    infinite = isinstance(value, float) and not math.isfinite(value)
    wanted = str if column.kind is list else column.kind
    if type(value) is not wanted or infinite:
        none = " or none" if column.optional else ""
        raise RowError(f"column {column.name}: expected {wanted.__name__}{none}, got {value!r:.40}")
    if column.kind is list:
        try:
            return json.loads(str(value))
        except (ValueError, RecursionError):
            raise RowError(f"column {column.name}: expected JSON, got {value!r:.40}") from None
    return value


def _as_on_the_wire(
    kind: type[Struct], found: Mapping[tuple[str, ...], Any], path: tuple[str, ...] = ()
) -> Any:
    """Values of a struct's fields, nested as in a message; None where all of them are None."""
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for name, written in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        here = (*path, name)
        if here in LEFT_OUT:
            continue
        plain, _ = bare(hints[name])
        is_struct = isinstance(plain, type) and issubclass(plain, Struct)
        values[written] = _as_on_the_wire(plain, found, here) if is_struct else found[here]
    if path and all(value is None for value in values.values()):
        return None
    return list(values.values()) if kind.__struct_config__.array_like else values
