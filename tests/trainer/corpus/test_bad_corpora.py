"""Corpora with something wrong: a clear message or a count, never silence, never code run."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import trainer.corpus
from tests.support.corpora import mmsa_split, write_csd, write_label_npz, write_pickle
from trainer.cli import app
from trainer.corpus import Corpus, CorpusError
from trainer.inspection import look

HEADER = "id,split,group,audio,text,valence\n"


def _manifest(folder: Path, rows: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(HEADER + rows)
    return path


def _problem(corpus: Corpus, kind: str) -> int:
    return next(problem.count for problem in corpus.problems if kind in problem.kind)


def test_every_fault_of_a_manifest_is_counted(tmp_path: Path) -> None:
    corpus = trainer.corpus.open(
        _manifest(
            tmp_path,
            "a,train,g,,words,1\na,train,g,,words,2\nb,train,g,,words,3.01\nc,train,g,,words,nan\n"
            "d,holdout,g,,words,1\ne,train,g,,words,much\nf,train,g,gone.wav,,1\nh,train,g\n",
        )
    )
    assert [clip.id for clip in corpus.clips] == ["a"]
    assert corpus.clips[0].valence == 1.0
    assert _problem(corpus, "duplicate ids") == 1
    assert _problem(corpus, "valence outside [-3, 3]") == 1
    assert _problem(corpus, "split other than") == 1
    assert _problem(corpus, "valence that is no number") == 2
    assert _problem(corpus, "missing audio files") == 1
    assert _problem(corpus, "clips without any modality") == 1
    assert _problem(corpus, "rows without 6 fields") == 1


def test_a_speaker_in_two_splits_is_an_error(tmp_path: Path) -> None:
    corpus = trainer.corpus.open(
        _manifest(tmp_path, "a,train,ann,,words,1\nb,test,ann,,words,0\nc,test,bob,,words,0\n")
    )
    with pytest.raises(CorpusError, match="speakers or videos in more than one split: 1"):
        corpus.require_sound()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("where", ["pickle", "npz"])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if where == "pickle":
        path = write_pickle(tmp_path / "bad.pkl", {"train": Malicious()})
    else:
        path = tmp_path / "label.npz"
        np.savez(path, train_corpus=np.array({"a": Malicious()}, object))
    with pytest.raises(CorpusError, match=r"it asks for posix\.system"):
        trainer.corpus.open(path)
    assert not (tmp_path / "ran").exists()


def test_old_and_new_numpy_pickles_are_read(tmp_path: Path) -> None:
    tree = {"train": mmsa_split(["v$_$0"], [1.0], lengths=False)}
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "corpus.pkl"
        raw = pickle.dumps(tree, protocol=protocol)
        path.write_bytes(raw)
        assert len(trainer.corpus.open(path).clips) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.pkl", b"\x80\x04 cut off", "not a readable pickle|not a pickle"),
        ("label.npz", b"PK\x03\x04 cut off", "unreadable archive"),
        ("corpus.csd", b"no HDF5", "not a readable .csd"),
        ("corpus.csv", b"\xff\xfe\x00a", "not a CSV file in UTF-8"),
        ("corpus.csv", b"a,b\n1,2\n", "expected the columns id, split, valence"),
        ("corpus.csv", b"id,split\n1,train\n", "missing valence"),
        ("corpus.csv", b"", "got an empty file"),
        ("corpus.zip", b"PK\x03\x04 cut off", "unreadable archive"),
        ("corpus.txt", b"words", "not a corpus; expected"),
    ],
)
def test_unreadable_files_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message) as raised:
        trainer.corpus.open(path)
    assert name in str(raised.value)


def test_a_damaged_archive_beside_a_manifest_is_named(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "a,train,g,,words,1\n")
    (tmp_path / "manifest.zip").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CorpusError, match=r"manifest\.zip: unreadable archive"):
        trainer.corpus.open(path)


def test_a_damaged_member_is_named_when_read(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text("id,split,image,valence\na,train,1.jpg,1\n")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("1.jpg", b"0123456789" * 10)
    raw = (tmp_path / "faces.zip").read_bytes()
    (tmp_path / "faces.zip").write_bytes(raw.replace(b"0123456789", b"012345678x", 1))
    source = trainer.corpus.open(path).clips[0].video
    assert isinstance(source, trainer.corpus.Media)
    with pytest.raises(CorpusError, match=r"faces\.zip:1\.jpg: cannot be read: Bad CRC-32"):
        source.read_bytes()


def test_damaged_features_are_counted_by_looking(tmp_path: Path) -> None:
    write_label_npz(tmp_path, {"train": {"v_0": 1.0, "v_1": 1.0}})
    folder = tmp_path / "features/audio"
    folder.mkdir(parents=True)
    np.save(folder / "v_0.npy", np.ones((3, 2)))
    (folder / "v_1.npy").write_bytes(b"\x93NUMPY cut off")
    found = look(trainer.corpus.open(tmp_path))
    counts = {problem.kind: problem for problem in found.problems}
    assert counts["clips whose features or media cannot be read"].examples == ("v_1",)


def test_rows_that_do_not_match_the_ids_are_refused(tmp_path: Path) -> None:
    part = mmsa_split(["v$_$0", "v$_$1"], [1.0, 2.0], lengths=True)
    part["vision"] = part["vision"][:1]
    with pytest.raises(CorpusError, match="train: vision: expected 2 rows, got 1"):
        trainer.corpus.open(write_pickle(tmp_path / "mosei.pkl", {"train": part}))


def test_features_without_labels_are_refused(tmp_path: Path) -> None:
    write_csd(tmp_path / "covarep.csd", "COVAREP", {"v": (np.ones((1, 2)), [[0, 1]])})
    with pytest.raises(
        CorpusError, match=r"expected a \.csd with the root 'All Labels', got COVAR"
    ):
        trainer.corpus.open(tmp_path)


def test_a_folder_of_two_corpora_asks_which(tmp_path: Path) -> None:
    _manifest(tmp_path, "a,train,g,,words,1\n")
    write_label_npz(tmp_path, {"train": {"v_0": 1.0}})
    with pytest.raises(CorpusError, match=r"name one: manifest\.csv, label\.npz"):
        trainer.corpus.open(tmp_path)


def test_inspect_prints_figures_and_problems_or_one_line(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "a,train,g,,[b]secret words,1\nb,test,g,,words,-2\n")
    shown = CliRunner().invoke(app, ["inspect", "--corpus", str(path)], env={"COLUMNS": "150"})
    assert shown.exit_code == 0
    assert "ERROR: 1 x speakers or videos in more than one split (such as g)" in shown.output
    assert "constant 0" in shown.output
    assert "2.0000" in shown.output
    assert "secret" not in shown.output
    missing = CliRunner().invoke(app, ["inspect", "--corpus", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert missing.output.count("\n") == 1
    assert "error: no corpus at" in missing.output
