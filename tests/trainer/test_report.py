"""The report and the card show the figures that were measured."""

from pathlib import Path

import numpy as np

from trainer.checkpoint import Epoch, History
from trainer.evaluation.calibrate import PatternMargin
from trainer.evaluation.card import card
from trainer.evaluation.evaluate import Evaluation, Result, RobustnessPoint
from trainer.evaluation.metrics import regression_metrics
from trainer.evaluation.prediction import Predictions
from trainer.evaluation.report import Cell, Run, summarise, write
from trainer.recipe import Recipe


def evaluation(seed: int, labels: np.ndarray) -> Evaluation:
    metrics = regression_metrics(labels + 0.1 * (seed + 1), labels)
    constant = regression_metrics(np.zeros_like(labels), labels)
    result = Result("", "complete", "audio+text", "utterance", 40, metrics, constant, 0.91, 1.5)
    curve = tuple(RobustnessPoint("", "complete", r / 10, 0.1 + r / 20, 0.9) for r in range(10))
    return Evaluation("test", seed, (result,), curve)


def make_run() -> Run:
    labels = np.random.default_rng(0).uniform(-3, 3, 40)
    predictions = Predictions(
        tuple(map(str, range(40))), ("",) * 40, labels, labels + 0.1, labels - 0.5, labels + 0.7
    )
    epochs = tuple(
        Epoch(e, 1e-3, {"total": 3.0 - e}, {"complete/mae": 0.9 - e / 10}, 1.0) for e in range(3)
    )
    return Run(
        name="<example>",
        recipe=Recipe(name="<example>").model_dump(mode="json"),
        corpus={"clips": "40 test"},
        histories=(History(epochs, 2, 0.7), History(epochs, 2, 0.7)),
        evaluations=(evaluation(0, labels), evaluation(1, labels)),
        margins=(PatternMargin("audio+text", 0.25, 33),),
        predictions=predictions,
    )


def test_rows_are_mean_and_deviation_over_seeds() -> None:
    (row,) = summarise(make_run().evaluations)
    assert abs(row.cells["mae"].mean - 0.15) < 1e-9
    assert abs(row.cells["mae"].deviation - np.std([0.1, 0.2], ddof=1)) < 1e-9
    assert str(Cell(0.5, 0.0125)) == "0.500 ± 0.013"


def test_the_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    write(make_run(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "0.150 ± 0.071" in page
    assert page.count("data:image/png;base64,") == 4
    assert "&lt;example&gt;" in page
    assert "<script" not in page
    assert "http" not in page


def test_the_card_states_terms_figures_and_what_it_is_not_for() -> None:
    text = card(make_run(), "1.0")
    assert "**Terms: research only: inherits the terms of its corpora**" in text
    assert "0.150 ± 0.071" in text
    assert "Art. 5(1)(f)" in text
