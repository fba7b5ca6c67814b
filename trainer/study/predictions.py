"""Predictions of the tables, kept as Parquet and CSV: anyone can compute another metric of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = b"undertone.study"
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Predictions of one variant and seed; all columns are [n]."""

    id: tuple[str, ...]
    corpus: tuple[str, ...]
    group: tuple[str, ...]
    """Speaker or video; the id where it is not known."""
    view: tuple[str, ...]
    """What the network saw: ``complete``, ``text missing``, ``audio+video``, ``frames 0.3``."""
    label: Floats
    prediction: Floats
    low: Floats
    high: Floats
    """Ends of the calibrated 90 % interval."""

    def of_view(self, view: str) -> Rows:
        """The rows of one view, in order of their ids."""
        chosen = [index for index, name in enumerate(self.view) if name == view]
        chosen.sort(key=lambda index: (self.corpus[index], self.id[index]))
        columns: list[Any] = []
        for field in fields(self):
            values = getattr(self, field.name)
            if isinstance(values, tuple):
                columns.append(tuple(values[index] for index in chosen))
            else:
                columns.append(values[chosen])
        return Rows(*columns)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views, in order of appearance."""
        return tuple(dict.fromkeys(self.view))


def join(parts: Sequence[Rows]) -> Rows:
    """Rows of several views as one."""
    columns: list[Any] = []
    for field in fields(Rows):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], tuple):
            columns.append(tuple(value for part in values for value in part))
        else:
            columns.append(np.concatenate(values))
    return Rows(*columns)


def write(rows: Rows, path: Path, key: dict[str, Any]) -> None:
    """Write ``path`` (.parquet) and the CSV next to it, atomically; ``key`` says what of."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Rows)]
    table = pa.table({name: pa.array(list(getattr(rows, name))) for name in names})
    table = table.replace_schema_metadata({KEY: json.dumps(key, sort_keys=True).encode()})
    text = path.with_suffix(".csv.part")
    with text.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for values in zip(*(getattr(rows, name) for name in names), strict=True):
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in values)
    text.replace(path.with_suffix(".csv"))
    partial = path.with_suffix(".parquet.part")
    pq.write_table(table, partial)
    partial.replace(path)


def read(path: Path, key: dict[str, Any]) -> Rows | None:
    """The rows of a file; None where it is not there, damaged, or about something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None
    found = (table.schema.metadata or {}).get(KEY)
    if found is None or json.loads(found) != key:
        return None
    columns: list[Any] = []
    for field in fields(Rows):
        values = table[field.name]
        is_text = pa.types.is_string(values.type)
        columns.append(tuple(values.to_pylist()) if is_text else np.asarray(values, np.float64))
    return Rows(*columns)
