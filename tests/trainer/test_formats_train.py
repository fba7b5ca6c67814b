"""The first command of docs/training.md, on each format that researchers have on disk."""

import json
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.capture.clip import SAMPLE_CLIP, read_sound
from tests.support.corpora import mmsa_split, write_csd, write_label_npz, write_pickle
from trainer.command import carry_out

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
SHORT = ("training.epochs=1", "training.robustness=false", "network.hidden_dim=16")
COUNTS = {"train": 12, "valid": 8, "test": 8}
GENERATOR = np.random.default_rng(0)


def train(corpora: list[Path], out: Path, joined: tuple[Path, ...] = ()) -> dict[str, str]:
    """The command as printed, but for its length and the export; kinds of encoders chosen."""
    run = out.with_name(f"{out.name}.run")
    for step in ("fit", "calibrate", "evaluate", "report"):
        assert carry_out(step, corpora, out, run, run / "features", None, None, SHORT, joined) == 0
    assert out.with_name(f"{out.name}-report.html").is_file()
    encoders = json.loads((run / "recipe.json").read_text())["encoders"]
    return {name: choice["kind"] for name, choice in encoders.items()}


def ids(split: str) -> list[str]:
    return [f"{split}{index // 2}$_${index % 2}" for index in range(COUNTS[split])]


def labels(split: str) -> list[float]:
    return [round(float(value), 2) for value in GENERATOR.uniform(-3, 3, COUNTS[split])]


def mmsa(path: Path, lengths: bool) -> Path:
    return write_pickle(path, {s: mmsa_split(ids(s), labels(s), lengths) for s in COUNTS})


def media(folder: Path) -> Path:
    """Sound, a face and a transcript per clip."""
    folder.mkdir()
    rows = ["id,split,valence,audio,image,text"]
    for split in COUNTS:
        for name, valence in zip(ids(split), labels(split), strict=True):
            stem = name.replace("$_$", "-")
            samples = (GENERATOR.normal(0, 3000, 16_000)).astype("<i2")
            with wave.open(str(folder / f"{stem}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, 0, "NONE", ""))
                file.writeframes(samples.tobytes())
            cv2.imwrite(str(folder / f"{stem}.png"), GENERATOR.integers(0, 255, (60, 60, 3)))
            rows.append(f"{name},{split},{valence},{stem}.wav,{stem}.png,It went well {valence}.")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


FEATURES = {"audio": "features", "text": "features", "video": "features", "text_simulation": "none"}


@pytest.mark.parametrize("lengths", [False, True])
def test_an_mmsa_pickle_aligned_or_not(tmp_path: Path, lengths: bool) -> None:
    assert train([mmsa(tmp_path / "mosei.pkl", lengths)], tmp_path / "out") == FEATURES


def test_csd_files(tmp_path: Path) -> None:
    videos = {f"video{index}": None for index in range(30)}
    times = np.array([[0.0, 1.0], [1.0, 2.0]])
    for root, width in (("COVAREP", 5), ("FACET 4.2", 3), ("glove_vectors", 4)):
        tables = {
            video: (GENERATOR.normal(size=(8, width)), np.arange(9)[:8, None] / 4 + [0, 0.25])
            for video in videos
        }
        write_csd(tmp_path / "mosei" / f"{root.split()[0]}.csd", root, tables)
    rated = {video: (GENERATOR.uniform(-3, 3, (2, 7)), times) for video in videos}
    write_csd(tmp_path / "mosei" / "labels.csd", "All Labels", rated)
    assert train([tmp_path / "mosei"], tmp_path / "out") == FEATURES


def test_mertools_with_named_features_transcripts_and_simulated_text(tmp_path: Path) -> None:
    folder = tmp_path / "mosei"
    named = {"wavlm-large-FRA_-5": 6, "vicuna-7b-v1.5-FRA": 5, "manet_FRA": 4,
             "simulated-vicuna-7b": 5, "vggish_UTT": 3}  # fmt: skip
    folder.mkdir()
    tables = {}
    for split, key in (("train", "train"), ("valid", "val"), ("test", "test")):
        tables[key] = dict(zip(ids(split), labels(split), strict=True))
        for feature, width in named.items():
            place = folder / "features" / feature
            place.mkdir(parents=True, exist_ok=True)
            for name in ids(split):
                np.save(place / f"{name}.npy", GENERATOR.normal(size=(7, width)))
    write_label_npz(folder, tables)
    lines = ["name,chinese,english", *(f"{n},,some words" for s in COUNTS for n in ids(s))]
    (folder / "transcription.csv").write_text("\n".join(lines) + "\n")
    assert train([folder], tmp_path / "out") == {**FEATURES, "text_simulation": "features"}
    evaluation = json.loads((tmp_path / "out.run/seed-0/evaluation.json").read_text())
    patterns = {row["pattern"] for row in evaluation["evaluation"]["results"]}
    assert "audio+simulated_text+video" in patterns


def test_recordings_pictures_and_transcripts(tmp_path: Path) -> None:
    kinds = train([media(tmp_path / "clips")], tmp_path / "out")
    assert set(kinds.values()) == {"bundle"}


def test_recordings_joined_with_features_of_the_same_utterances(tmp_path: Path) -> None:
    clips = media(tmp_path / "clips")
    folder = tmp_path / "features"
    folder.mkdir()
    tables = {}
    for split, key in (("train", "train"), ("valid", "val"), ("test", "test")):
        tables[key] = dict.fromkeys(ids(split), 0.0)  # the clips' own labels count
        for name in ids(split):
            place = folder / "features" / "manet"
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{name}.npy", GENERATOR.normal(size=(7, 4)))
    write_label_npz(folder, tables)
    kinds = train([clips], tmp_path / "out", (folder,))
    assert kinds["video"] == "features"
    assert kinds["audio"] == kinds["text"] == "bundle"


def test_recordings_without_transcripts_hear_their_words(tmp_path: Path) -> None:
    clips = media(tmp_path / "clips")
    voice = read_sound(SAMPLE_CLIP)[8_000:48_000]
    for path in clips.glob("*.wav"):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((voice * GENERATOR.uniform(0.5, 1)).astype("<i2").tobytes())
    manifest = clips / "manifest.csv"
    rows = [row.rsplit(",", 2)[0] for row in manifest.read_text().splitlines()]
    manifest.write_text("\n".join(rows) + "\n")
    kinds = train([clips], tmp_path / "out")
    assert kinds == {
        "audio": "bundle",
        "text": "none",
        "video": "none",
        "text_simulation": "bundle",
    }
