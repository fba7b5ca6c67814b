"""Recipes: validation, precedence, and the two that come with the trainer."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.recipe import Recipe, RecipeError, load


def test_the_paper_recipe_states_the_papers_setting() -> None:
    recipe = load("paper")
    loss = recipe.loss
    assert (loss.text_query, loss.text_cross, loss.fused, loss.rnc) == (0.1, 0.7, 0.13, 0.5)
    assert (recipe.training.batch, recipe.training.epochs) == (128, 25)
    assert recipe.optimiser.learning_rate == 1e-4
    assert recipe.encoders.audio.layer == -5


def test_a_flag_overrides_the_file_and_the_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = load("embedded", ("training.epochs=2", "name=mine", "encoders.text.source=/x"))
    assert (recipe.training.epochs, recipe.name, recipe.encoders.text.source) == (2, "mine", "/x")
    recipe.save(tmp_path / "recipe.json")
    assert load(tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=2", "training.epoch: Extra inputs"),
        ("training.epochs=0", r"training.epochs: .*greater than or equal to 1 \(got 0\)"),
        ("encoders.audio.kind=wavlm", "encoders.audio.kind"),
        ("training", "expected KEY=VALUE"),
        ("name.first=x", "'name' is a value, not a table"),
        ("encoders.video.start=/x", "channels and start go with kind = 'embedded'"),
        ("encoders.audio.channels=8", "channels and start go with kind = 'embedded'"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load("embedded", (override,))


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"expected one of best, embedded, .*paper"):
        load("embeded")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[training\n")
    with pytest.raises(RecipeError, match=r"broken.toml: cannot be read"):
        load(path)


def test_defaults_make_a_valid_recipe() -> None:
    assert Recipe().training.batch == 128


def test_the_recipe_of_a_finished_run_may_name_compile() -> None:
    assert load("features", ("training.compile=false",)) == load("features")


def test_settings_that_came_later_are_written_only_where_they_are_set() -> None:
    unset = Recipe().model_dump(mode="json")
    assert "average" not in unset["optimiser"]
    assert not {"channels", "start"} & unset["encoders"]["video"].keys()
    face = load("embedded-face").model_dump(mode="json")
    assert face["optimiser"]["average"] > 0
    assert face["encoders"]["video"]["channels"] == 24


def test_a_missing_step_is_told_before_anything_is_imported_or_read(tmp_path: Path) -> None:
    (tmp_path / "mosei.pkl").write_bytes(b"never read")
    command = [
        sys.executable, "-X", "importtime", "-m", "trainer", "calibrate",
        "--corpus", str(tmp_path / "mosei.pkl"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "seed 0 is not trained yet: run `fit` first" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "trainer.recipe", "torch", "transformers"}


def test_a_recipe_of_other_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text("[1]")
    with pytest.raises(RecipeError, match="expected a recipe's sections, got a list"):
        load(str(path))
