"""Kept results count for the recipe, the data and the weights that they are about, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.network import SentimentNetwork
from models.spec import NetworkSpec
from trainer.data.clips import StoredClip, StoredSamples
from trainer.model import SentimentModel
from trainer.recipe import Recipe
from trainer.results import PipelineError, Results, Step

SPEC = NetworkSpec(audio_dim=6, text_dim=5, video_dim=4, hidden_dim=16, fused_dim=8, rnc_dim=8)


def test_a_result_is_stale_for_other_data_weights_or_another_recipe(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    model = SentimentModel(SentimentNetwork(SPEC))
    results = Results(tmp_path, Recipe(), data="labels as they were")
    results.keep(0, "calibration", model, {"margins": []})
    assert results.is_fresh(0, "calibration", model)
    assert not replace(results, data="labels negated").is_fresh(0, "calibration", model)
    other = Recipe.model_validate({"network": {"dropout": 0.123}})
    assert not replace(results, recipe=other).is_fresh(0, "calibration", model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert not results.is_fresh(0, "calibration", model)


def test_negated_labels_are_other_data() -> None:
    clips = tuple(
        StoredClip(f"c/{n}", "c", "train", valence, None, 1.0, 4.0, {})
        for n, valence in enumerate((1.0, -2.0))
    )
    negated = tuple(replace(clip, valence=-clip.valence) for clip in clips)
    assert StoredSamples(clips, {}).digest == StoredSamples(clips, {}).digest
    assert StoredSamples(clips, {}).digest != StoredSamples(negated, {}).digest


@pytest.mark.parametrize("text", ['{"a": 1}', '{"evaluation": [1], "margins": [1]}', "[1]", "{"])
def test_a_damaged_result_names_the_step_that_makes_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "seed-0").mkdir()
    results = Results(tmp_path, Recipe())
    steps: tuple[Step, ...] = ("calibration", "evaluation")
    for step in steps:
        results.path(0, step).write_text(text)
    with pytest.raises(PipelineError, match=r"calibration.json: cut off .* `calibrate` again"):
        results.margins(0)
    with pytest.raises(PipelineError, match=r"evaluation.json: cut off .* `evaluate` again"):
        results.evaluation(0)


def test_damaged_predictions_name_what_to_remove(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    path = tmp_path / "seed-0" / "predictions.npz"
    for content in (None, b"", b"PK\x03\x04 cut off"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"remove it and evaluation\.json, and run"):
            Results(tmp_path, Recipe()).predictions(0)
