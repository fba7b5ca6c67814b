"""A fault of a corpus is one line on the screen before torch is loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainer.corpus
from tests.support.corpora import mmsa_split, write_label_npz, write_pickle
from trainer.corpus import CorpusError
from trainer.opening import FAULTS, Places, opening
from trainer.progress import TerminalProgress

SPLITS = {"train": 6, "valid": 3, "test": 3}
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from trainer.cli import app
app(prog_name="trainer")
"""


def tree() -> dict[str, dict[str, Any]]:
    parts = {}
    for split, count in SPLITS.items():
        names = [f"{split}{n}$_$0" for n in range(count)]
        parts[split] = mmsa_split(names, [n % 3 - 1.0 for n in range(count)], lengths=False)
    return parts


def refused(tmp_path: Path, *corpora: Path, overrides: tuple[str, ...] = ()) -> str:
    places = Places(tmp_path / "out", tmp_path / "run", tmp_path / "run" / "features")
    progress = TerminalProgress(quiet=True)
    with pytest.raises(FAULTS) as raised:
        opening("run", corpora, places, None, None, overrides, (), progress)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_missing_split_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    parts = tree()
    del parts["test"]
    path = write_pickle(tmp_path / "mosei.pkl", parts)
    options = ["--corpus", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected clips to train, valid and test, got 6 train, 3 valid, 0 test" in done.stderr
    assert "Traceback" not in done.stderr


def test_widths_that_differ_by_split_are_told_of_mertools(tmp_path: Path) -> None:
    folder = tmp_path / "features" / "wavlm-large-FRA"
    folder.mkdir(parents=True)
    write_label_npz(tmp_path, {"train": {"a_0": 1.0}, "val": {"b_0": 1.0}, "test": {"c_0": 0.0}})
    for name, width in (("a_0", 6), ("b_0", 6), ("c_0", 3)):
        np.save(folder / f"{name}.npy", np.ones((4, width), np.float32))
    message = refused(tmp_path, tmp_path)
    assert "audio: expected features of one width, got 6 in" in message
    assert "3 in" in message


def test_widths_that_differ_by_corpus_are_told(tmp_path: Path) -> None:
    one, two = tree(), tree()
    for part in two.values():
        part["vision"] = np.ones((len(part["id"]), 6, 9), np.float32)
    paths = (write_pickle(tmp_path / "one.pkl", one), write_pickle(tmp_path / "two.pkl", two))
    assert "video: expected features of one width, got 4 in one (train), 9 in two (train)" in (
        refused(tmp_path, *paths)
    )


def test_a_split_without_its_time_axis_is_told(tmp_path: Path) -> None:
    parts = tree()
    parts["train"]["audio"] = np.ones((6, 5), np.float32)
    with pytest.raises(CorpusError, match=r"expected \[N, T, D\] in every split, got \[6, 5\] in"):
        trainer.corpus.open(write_pickle(tmp_path / "mosei.pkl", parts))


def test_features_that_are_words_are_told(tmp_path: Path) -> None:
    parts = tree()
    parts["train"]["text"] = np.full((6, 6), "word")
    with pytest.raises(CorpusError, match=r"train: text: expected numbers \[N, T, D\], got <U4"):
        trainer.corpus.open(write_pickle(tmp_path / "mosei.pkl", parts))


def test_labels_that_are_nan_are_no_numbers(tmp_path: Path) -> None:
    parts = tree()
    parts["train"]["regression_labels"] = np.full(6, np.nan)
    corpus = trainer.corpus.open(write_pickle(tmp_path / "mosei.pkl", parts))
    assert [p.count for p in corpus.problems if p.kind == "valence that is no number"] == [6]
    assert "got 0 train" in refused(tmp_path, tmp_path / "mosei.pkl")


def test_one_id_for_all_clips_is_refused(tmp_path: Path) -> None:
    parts = tree()
    parts["train"]["id"] = np.array(["same$_$0"] * 6)
    parts["valid"]["id"] = np.array(["same$_$0"] * 3)
    message = refused(tmp_path, write_pickle(tmp_path / "mosei.pkl", parts))
    assert "most clips have the id of another one: 8" in message


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,split,audio,valence", "missing audio files: 1 (such as gone.wav)"),
        ("id,split,txet,valence", "column 'txet' is ignored: was 'text' meant?"),
    ],
)
def test_labels_without_evidence_say_what_is_behind_it(
    tmp_path: Path, header: str, message: str
) -> None:
    (tmp_path / "manifest.csv").write_text(f"{header}\na,train,gone.wav,1\n")
    with pytest.raises(CorpusError) as raised:
        trainer.corpus.open(tmp_path).require_sound()
    assert "labels only" in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a card")
def test_a_card_that_is_not_there_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "mosei.pkl", tree())
    message = refused(tmp_path, path, overrides=("training.device=cuda",))
    assert "training.device: expected a device of this machine (cpu), got 'cuda'" in message


def test_utterances_of_a_corpus_without_a_valid_split_say_that_some_were_held_back(
    tmp_path: Path,
) -> None:
    ids = [f"v{index}$_$0" for index in range(60)]
    labels = np.linspace(-3, 3, 60).tolist()

    def part(first: int, last: int) -> dict[str, Any]:
        return mmsa_split(ids[first:last], labels[first:last], lengths=True)

    without = write_pickle(tmp_path / "mine.pkl", {"train": part(0, 48), "test": part(48, 60)})
    whole = {"train": part(0, 36), "valid": part(36, 48), "test": part(48, 60)}
    given = write_pickle(tmp_path / "given.pkl", whole)
    told = refused(tmp_path, without, given)
    assert "(same id and label) are in different splits" in told
    assert "no split 'valid' in mine, so some of its train became that" in told


def test_a_corpus_that_is_given_twice_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (write_pickle(tmp_path / name, tree()) for name in ("a.pkl", "b.pkl"))
    places = Places(tmp_path / "out", tmp_path / "out.run", tmp_path / "features")
    opened = opening("fit", [one, other], places, None, None, (), (), TerminalProgress())
    told = "".join(capsys.readouterr()).replace("\n", " ")
    assert f"{len(opened.corpus.clips) // 2} x utterances (same id and label)" in told


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "manifest.csv",
            "id,split,valence,text\na,train,positive,some words\n",
            "valence that is no number, such as 'positive' of a",
        ),
        (
            "label.csv",
            "video_id,clip_id,text,label,mode\na,0,some words,good,train\n",
            "label that is no number, such as 'good' of a$_$0",
        ),
        (
            "label.csv",
            "video_id,clip_id,text,label,mode\na,0,some words,1.0,holdout\n",
            "mode other than train, valid, test, such as 'holdout' of a$_$0",
        ),
    ],
)
def test_labels_as_words_are_shown(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match="no usable clip: ") as told:
        trainer.corpus.open(tmp_path / name)
    assert f"1 x {message}" in str(told.value)


def test_a_pickle_of_its_first_bytes_is_cut_off(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "mosei.pkl", tree())
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(CorpusError, match="a pickle that is cut off or damaged"):
        trainer.corpus.open(path)
