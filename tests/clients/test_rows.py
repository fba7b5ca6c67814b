"""Rows: a score flattened and made again is the same score."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from clients.columns import from_cell, to_cell
from engine.wire.messages import Score
from engine.wire.rows import COLUMNS, NAMES, ROW_SCHEMA, RowError, row_from, row_of
from tests.support.messages import scores
from tests.support.scores import make_score

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=150, deadline=None)
@given(scores)
def test_a_score_comes_back_from_its_row(score: Score) -> None:
    row = row_of(score, 1.0)
    once = replace(score, envelope=replace(score.envelope, repeated=False, epoch=0, resume=None))
    assert row_from(row.values()).score == once


@settings(max_examples=150, deadline=None)
@given(scores, st.floats(0, 4e9))
def test_a_row_comes_back_from_json_and_from_csv(score: Score, received_unix_s: float) -> None:
    row = row_of(
        replace(score, envelope=replace(score.envelope, repeated=False, epoch=0, resume=None)),
        received_unix_s,
    )
    assert row_from(json.loads(json.dumps(row.values()))) == row
    text = io.StringIO()
    cells = [to_cell(column, column.of(row)) for column in COLUMNS]
    csv.writer(text, lineterminator="\n").writerow(cells)
    assert text.getvalue().count("\n") == 1, "a row is one line whatever its texts hold"
    found = next(csv.reader([text.getvalue().rstrip("\n")]))
    assert row_from({c.name: from_cell(c, v) for c, v in zip(COLUMNS, found, strict=True)}) == row


@given(st.none() | TEXT)
def test_an_empty_mark_is_not_the_same_as_none(mark: str | None) -> None:
    column = next(column for column in COLUMNS if column.name == "mark")
    assert from_cell(column, to_cell(column, mark)) == mark


def values(**changes: object) -> dict[str, object]:
    return {**row_of(make_score(), 1.0).values(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_schema": None}, "row schema: expected 2, got 1 or older"),
        ({"row_schema": 1}, "row schema: expected 2, got 1"),
        ({"row_schema": ROW_SCHEMA + 1}, "a newer version's"),
        ({"row_schema": "2"}, "row schema: expected 2, got '2'"),
        ({"faces": 1.5}, "column faces: expected int, got 1.5"),
        ({"trained": 1}, "column trained: expected bool, got 1"),
        ({"valence": "high"}, "column valence: expected float or none, got 'high'"),
        ({"latency_total_ms": float("nan")}, "column latency_total_ms: expected float, got nan"),
        ({"stream": None}, "column stream: expected str, got None"),
    ],
)
def test_what_is_no_row_is_refused_by_its_column(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RowError, match=message.replace(".", r"\.")):
        row_from(values(**changes))


def test_a_missing_column_is_named_and_a_new_one_ignored() -> None:
    lacking = values()
    del lacking["clock_host"]
    with pytest.raises(RowError, match="no clock_host here"):
        row_from(lacking)
    assert row_from(values(added_later="x")).score.envelope.seq == 0


def test_the_columns_are_those_of_the_page(request: pytest.FixtureRequest) -> None:
    page = (request.config.rootpath / "docs" / "recording.md").read_text()
    documented = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    expanded = [
        name
        for entry in documented
        for name in (
            [entry.replace("audio", m) for m in ("audio", "video", "text")]
            if entry.startswith("audio_")
            else [entry]
        )
    ]
    assert sorted(expanded) == sorted(NAMES)
    assert f"schema **{ROW_SCHEMA}**" in page
    assert NAMES[-1] == "trained", "the last cell tells a whole line from a cut one"
