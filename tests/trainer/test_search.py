"""A search over a recipe's settings: on validation only, gone on with where it stopped."""

from pathlib import Path

import pytest

from tests.trainer.study.test_reproduce import corpus
from trainer.recipe import RecipeError
from trainer.search import Range, parse_range, search

SHORT = ("training.epochs=1", "network.hidden_dim=8", "network.fused_dim=8")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trials_are_counted_over_several_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus(tmp_path / "mosei.pkl")
    ranges = [parse_range("optimiser.learning_rate=1e-4:1e-2:log"), parse_range("loss.rnc=0.0|0.5")]
    out = tmp_path / "out"
    for trials in (1, 2, 2):
        assert search([path], out, tmp_path / "features", None, SHORT, ranges, trials) == 0
    said = capsys.readouterr().err
    assert said.count("trial 0: ") == said.count("trial 1: ") == 1
    best = dict(line.split("=") for line in (out / "best.txt").read_text().split())
    assert 1e-4 <= float(best["optimiser.learning_rate"]) <= 1e-2
    assert best["loss.rnc"] in ("0.0", "0.5")
    wrong = [parse_range("loss.rmc=0.0:1.0")]
    assert search([path], tmp_path / "o", tmp_path / "features", None, SHORT, wrong, 1) == 2
    assert "loss.rmc: Extra inputs" in capsys.readouterr().err


def test_ranges_are_read_or_refused() -> None:
    assert parse_range("training.batch=16:128") == Range("training.batch", 16, 128, whole=True)
    assert parse_range("a.b=0.1:0.9") == Range("a.b", 0.1, 0.9)
    assert parse_range("a.b=x|y").choices == ("x", "y")
    for text in ("a.b", "a.b=1", "a.b=2:1", "a.b=0:1:log", "a.b=1:2:linear"):
        with pytest.raises(RecipeError, match="--range: expected"):
            parse_range(text)
