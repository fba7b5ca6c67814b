"""Averages by mark and by minute: what belongs to which stretch, and what the CSV says."""

from __future__ import annotations

import csv
import io

import pytest

from clients.sessions import Session, sessions
from clients.spans import FIRST, averages, to_csv
from tests.clients.test_plot import row


def session(*rows: object) -> Session:
    (found,) = sessions(rows)  # type: ignore[arg-type]
    return found


def test_a_mark_reaches_to_the_next_one_and_what_comes_before_has_a_name() -> None:
    values = [1.0, 1.0, -2.0, -2.0, None, 0.0, 0.0]
    marks = {2: "bad news", 5: "small talk"}
    rows = [row(n, value, mark=marks.get(n)) for n, value in enumerate(values)]
    found = [a for a in averages(session(*rows)) if a.kind == "mark"]
    assert [(a.label, a.scores) for a in found] == [(FIRST, 2), ("bad news", 3), ("small talk", 2)]
    assert [a.valence for a in found] == [pytest.approx(1.0), pytest.approx(-2.0), 0.0]
    bad = found[1]
    assert (bad.negative, bad.unknown) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    for a in found:
        assert a.positive + a.neutral + a.negative + a.unknown == pytest.approx(1.0)


def test_the_interval_of_an_average_is_as_wide_as_its_scores() -> None:
    (minute,) = averages(session(*(row(n, 0.5) for n in range(100))))
    one = row(0, 0.5).score.interval
    assert one is not None
    assert (minute.low, minute.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_minutes_without_a_score_are_left_out_and_without_a_value_are_unknown() -> None:
    rows = [row(n, 1.0) for n in range(10)] + [row(n, None) for n in range(400, 410)]
    first, last = averages(session(*rows))
    assert (first.label, first.valence, first.unknown) == ("1", pytest.approx(1.0), 0.0)
    assert (last.label, last.valence, last.low, last.unknown) == ("4", None, None, 1.0)


def test_the_csv_has_empty_cells_for_nothing_and_no_formula() -> None:
    found = averages(session(row(0, None, mark="=cmd()"), row(1, None)), "x.csv")
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert [line["kind"] for line in rows] == ["mark", "minute"]
    assert rows[0]["label"] == "'=cmd()"
    assert rows[0]["valence"] == ""
    assert rows[0]["recording"] == "x.csv"
