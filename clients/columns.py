"""Columns of a recording as CSV cells: how one is written and read back.

In CSV one row is one line, whatever its texts hold, so that a cut last line is told from a whole
one: within a text a backslash is written ``\\\\``, a line break ``\\n`` or ``\\r``, and an empty
text in a column that may also hold none is written ``\\e``. A text that a spreadsheet takes for
a formula (its first character is one of ``= + - @``, a tab or a carriage return) begins with a
backslash.
"""

from __future__ import annotations

import re
from typing import Any

from engine.wire.rows import Column

ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
EMPTY = "\\e"
FORMULA = ("=", "+", "-", "@", "\t")
_PLAIN = {written: meant for meant, written in ESCAPES.items()}
_PLAIN |= {f"\\{first}": first for first in FORMULA}
_ESCAPED = re.compile(r"\\.")


def to_cell(column: Column, value: Any) -> str:
    """Write a value as a CSV cell, before quoting; numbers come back exactly."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = "".join(ESCAPES.get(character, character) for character in value)
    if text.startswith(FORMULA):
        text = f"\\{text}"
    return EMPTY if column.optional and not text else text


def from_cell(column: Column, cell: str) -> Any:
    """Read a CSV cell back; what makes no value is returned as text, for ``row_from`` to refuse."""
    if column.kind in (str, list):
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
