"""The tables' rows and marks, from predictions whose differences are planted."""

import csv

import numpy as np

from trainer.study.predictions import Rows, join
from trainer.study.tables import build
from trainer.study.variants import FULL, parse_variant, variants
from trainer.study.writing import to_csv, to_html, to_latex

COUNT = 80
LABELS = np.random.default_rng(0).uniform(-3, 3, COUNT)


def rows(view: str, error: float, seed: int = 0, count: int = COUNT) -> Rows:
    """Predictions that miss by about ``error``."""
    spread = np.random.default_rng(seed).normal(0, 0.05, COUNT)[:count]
    names = tuple(f"clip{index:02d}" for index in range(count))
    found = LABELS[:count] + error + spread
    return Rows(names, ("c",) * count, names, (view,) * count, LABELS[:count], found, found, found)


def test_what_is_significant_is_marked_in_every_form() -> None:
    extra = parse_variant("worse:loss.rnc=0.0"), parse_variant("alike:loss.rnc=0.1")
    chosen = tuple(v for v in variants("ablation", extra) if v.name in (FULL, "worse", "alike"))
    found = {FULL: 0.5, "worse": 0.7, "alike": 0.5}
    kept = {name: [rows("complete", miss, len(name))] for name, miss in found.items()}
    table = build("ablation", kept, chosen, LABELS)
    lines = {line[0]: dict(zip(table.columns, line, strict=True)) for line in csv.reader(
        to_csv(table).splitlines()[1:]
    )}  # fmt: skip
    assert lines["complete: worse"]["significant"] == "***"
    assert 0.15 < float(lines["complete: worse"]["Delta MAE"]) < 0.25
    assert lines["complete: alike"]["significant"] == ""
    assert lines["complete: full model"]["significant"] == ""
    assert "***" in to_latex(table)
    assert "<td>***</td>" in to_html([table], (), {})


def test_noise_is_compared_with_the_clean_clips_and_a_lost_clip_is_no_pair() -> None:
    parts = [
        rows("complete", 0.5),
        rows("babble-20dB, complete", 0.5, 1),
        rows("babble-0dB, complete", 1.0, 2),
        rows("dark, complete", 1.0, 3, COUNT - 1),
    ]
    table = build("noise", {FULL: [join(parts)]}, (), LABELS)
    marks = {line.cells[0]: line.cells[-3:] for line in table.lines}
    assert marks["babble-0dB, complete"][2] == "***"
    assert marks["babble-20dB, complete"][2] == ""
    assert marks["dark, complete"] == marks["clean, complete"] == ("", "", "")


def test_rows_of_missing_frames_are_named_once() -> None:
    parts = [rows(f"frames, text missing {rate:.1f}", 0.5) for rate in (0.0, 0.5)]
    table = build("missing", {FULL: [join(parts)]}, (), LABELS)
    assert [line.cells[0] for line in table.lines] == [
        "text and frames missing: 0.0",
        "text and frames missing: 0.5",
        "text and frames missing: area under the curve, 0 to 0.5",
    ]
