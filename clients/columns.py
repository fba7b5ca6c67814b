"""Columns of a recording: what type each is, and how one is written as a CSV cell and read back.

In CSV one row is one line, whatever its texts hold, so that a cut last line is told from a whole
one: within a text a backslash is written ``\\\\``, a line break ``\\n`` or ``\\r``, and an empty
text in a column that may also hold none is written ``\\e``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from clients.rows import ROW_SCHEMA, Row

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
EMPTY = "\\e"
_PLAIN = {written: meant for meant, written in ESCAPES.items()}
_ESCAPED = re.compile(r"\\.")


class RowError(Exception):
    """Values that make no row; one line with the column, expected and actual."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, the type of its values, and whether it may hold none."""

    name: str
    kind: type[float] | type[int] | type[bool] | type[str]
    optional: bool


def _columns() -> tuple[Column, ...]:
    hints, found = get_type_hints(Row), []
    for field in fields(Row):
        kinds = [k for k in (float, int, bool, str) if hints[field.name] in (k, k | None)]
        found.append(Column(field.name, kinds[0], hints[field.name] == kinds[0] | None))
    return tuple(found)


COLUMNS = _columns()


def row_from(values: Mapping[str, Any]) -> Row:
    """Make a row of a mapping with the columns' names; unknown ones are ignored.

    Raises:
        RowError: another schema, a missing column or a value of another type.
    """
    check_schema(values.get("row_schema"))
    missing = [column.name for column in COLUMNS if column.name not in values]
    if missing:
        raise RowError(f"expected the columns of row schema {ROW_SCHEMA}, no {missing[0]} here")
    return Row(**{column.name: _checked(column, values[column.name]) for column in COLUMNS})


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
    if type(value) is not column.kind or infinite:
        optional = " or none" if column.optional else ""
        expected = f"{column.kind.__name__}{optional}"
        raise RowError(f"column {column.name}: expected {expected}, got {value!r:.40}")
    return value


def to_cell(column: Column, value: Any) -> str:
    """Write a value as a CSV cell, before quoting; numbers come back exactly."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = "".join(ESCAPES.get(character, character) for character in value)
    return EMPTY if column.optional and not text else text


def from_cell(column: Column, cell: str) -> Any:
    """Read a CSV cell back; what makes no value is returned as text, for ``row_from`` to refuse."""
    if column.kind is str:
        if column.optional and cell in ("", EMPTY):
            return None if not cell else ""
        return _ESCAPED.sub(lambda match: _PLAIN.get(match[0], match[0]), cell)
    if not cell and column.optional:
        return None
    if column.kind is bool:
        return {"true": True, "false": False}.get(cell.lower(), cell)
    try:
        return column.kind(cell)
    except ValueError:
        return cell
