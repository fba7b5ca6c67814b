"""Babble is made of the other clips: its store answers for those alone."""

import wave
from pathlib import Path

import numpy as np

from trainer.corpus import open as open_corpus
from trainer.opening import Places, opening
from trainer.progress import TerminalProgress
from trainer.run import Pipeline
from trainer.study.degraded import Condition
from trainer.study.runner import _degraded_test

GENERATOR = np.random.default_rng(0)
SPLITS = ("train", "valid", "test", "test")


def write(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(GENERATOR.normal(0, 3000, 16_000).astype("<i2").tobytes())


def heard(folder: Path, condition: Condition) -> np.ndarray:
    """Frames of the first test clip under a condition."""
    places = Places(folder / "out", folder / "out.run", folder / "features")
    overrides = (
        "encoders.audio.kind=embedded", "encoders.text.kind=none", "encoders.video.kind=none",
        "encoders.text_simulation.kind=none",
    )  # fmt: skip
    opened = opening(
        "fit", [folder / "clips"], places, "features", None, overrides, (), TerminalProgress(True)
    )
    pipeline = Pipeline(opened.corpus, opened.recipe, places, TerminalProgress(quiet=True))
    test = _degraded_test(pipeline, condition)
    first = next(clip for clip in test.clips if clip.id == "2")
    return np.array(test.stores["audio"].read(first.keys["audio"]))


def test_babble_of_other_companions_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    lines = ["id,split,valence,audio"]
    for index, split in enumerate(SPLITS):
        write(folder / f"{index}.wav")
        lines.append(f"{index},{split},1.0,{index}.wav")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert len(open_corpus(folder).clips) == len(SPLITS)
    babble = Condition("babble", 0)
    before = heard(tmp_path, babble)
    assert np.array_equal(heard(tmp_path, babble), before)
    write(folder / "3.wav")  # the only companion of clip 2 says something else
    assert not np.array_equal(heard(tmp_path, babble), before)
