"""Every format by its reader, told apart by looking."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import trainer.corpus
from tests.support.corpora import (
    LABEL_COLUMNS,
    mmsa_split,
    write_csd,
    write_label_npz,
    write_pickle,
)
from trainer.corpus import Clip, Corpus, Features, Media
from trainer.corpus.clip import EMOTIONS


def _read(clip: Clip, modality: str) -> np.ndarray:
    source = getattr(clip, modality)
    assert isinstance(source, Features)
    return source.read()[0]


def _counts(corpus: Corpus) -> dict[str, int]:
    return {problem.kind: problem.count for problem in corpus.problems}


@pytest.mark.parametrize("aligned", [True, False])
def test_mmsa_pickle_without_its_padding(tmp_path: Path, aligned: bool) -> None:
    tree = {
        split: mmsa_split([f"{split}_v$_$0", f"{split}_v$_$1"], [0.5, -1.0], not aligned)
        for split in ("train", "valid", "test")
    }
    corpus = trainer.corpus.open(write_pickle(tmp_path / "mosei.pkl", tree))
    assert corpus.format == f"MMSA pickle, {'aligned' if aligned else 'unaligned'}"
    assert [clip.id for clip in corpus.split("valid")] == ["valid_v$_$0", "valid_v$_$1"]
    clip = corpus.clips[0]
    assert (clip.group, clip.valence, clip.transcript) == ("train_v", 0.5, "some words")
    assert _read(clip, "audio").shape == (2, 5)
    assert _read(clip, "video").shape == (2 if aligned else 3, 4)
    assert _read(clip, "text").shape == (3, 7)


def test_csd_features_of_a_segment_are_those_whose_middle_lies_in_it(tmp_path: Path) -> None:
    steps = np.stack([np.arange(10), np.arange(10) + 1], axis=1) / 2
    values = np.arange(10.0)[:, None] * np.ones((1, 3))
    values[4, 1] = -np.inf
    write_csd(
        tmp_path / "labels.csd",
        "All Labels",
        {"a_b_": ([[1.0] * 7, [-2.0] * 7], [[0, 2.0], [2.0, 4.5]])},
    )
    write_csd(tmp_path / "covarep.csd", "COVAREP", {"a_b_": (values, steps)})
    said = [[b"sp"], [b"so"], [b"good"]]
    write_csd(tmp_path / "words.csd", "words", {"a_b_": (said, [[0, 1], [1, 1.5], [1.5, 1.9]])})
    (tmp_path / "split.csv").write_text("video,split\na_b_,test\n")
    corpus = trainer.corpus.open(tmp_path)
    first, second = corpus.split("test")
    assert (first.id, first.group, first.valence) == ("a_b_[0]", "a_b_", 1.0)
    assert first.transcript == "so good"
    assert (first.duration_s, second.duration_s) == (2.0, 2.5)
    assert _read(first, "audio")[:, 0].tolist() == [0, 1, 2, 3]
    assert isinstance(second.audio, Features)
    repaired, count = second.audio.read()
    assert (repaired[0].tolist(), count) == ([4.0, 0.0, 4.0], 1)


def test_csd_without_a_split_keeps_each_video_in_one(tmp_path: Path) -> None:
    videos = {f"v{i}": ([[0.5] * 7] * 3, [[0, 1], [1, 2], [2, 3]]) for i in range(60)}
    sound = {name: (np.ones((6, 2)), np.arange(12).reshape(6, 2) / 4) for name in videos}
    write_csd(tmp_path / "labels.csd", "All Labels", videos)
    write_csd(tmp_path / "covarep.csd", "COVAREP", sound)
    corpus = trainer.corpus.open(tmp_path / "covarep.csd")
    assert "no split.csv: videos are split 70/10/20 by hash" in _counts(corpus)
    assert all(corpus.split(split) for split in trainer.corpus.SPLITS)
    corpus.require_sound()


def test_raw_mosei_matches_labels_by_interval(tmp_path: Path) -> None:
    folder = tmp_path / "Transcript/Segmented/Combined"
    folder.mkdir(parents=True)
    (folder / "x_1__.txt").write_text(
        "x_1_____0___0.0___4.1___Good ___ and long\nx_1_____1___4.0___9.0___Bad\n"
        "x_1_____2___30___31___Nobody rated this\nbroken line\n"
    )
    labels = [[-1.0] * 7, [2.0] * 7, [0.0] * 7]
    write_csd(
        tmp_path / "labels/CMU_MOSEI_Labels.csd",
        "All Labels",
        {"x_1__": (labels, [[4.1, 9.0], [0.0, 4.0], [50, 60]])},
    )
    video = tmp_path / "Videos/Full/Combined/x_1__.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"a video")
    corpus = trainer.corpus.open(tmp_path)
    assert [(clip.id, clip.valence) for clip in corpus.clips] == [
        ("x_1__[0]", 2.0),
        ("x_1__[1]", -1.0),
    ]
    assert corpus.clips[0].transcript == "Good ___ and long"
    assert corpus.clips[1].audio == Media(video, None, 4.0, 9.0)
    counts = _counts(corpus)
    assert counts["transcript lines without a label"] == 1
    assert counts["transcript lines that cannot be parsed"] == 1
    assert counts["labels without a transcript line"] == 1


def test_mmsa_fet_takes_media_and_durations_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "label.csv").write_text(
        f'{LABEL_COLUMNS}\n-v,0012,"Well, good",1.5,train\n-v,3_5,Bad,-1,train\n'
    )
    video = tmp_path / "Raw/-v/0012.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"a video")
    (tmp_path / "segments.csv").write_text("file,start,end\n-v,12,14.5\n-v,3.1,4\n")
    corpus = trainer.corpus.open(tmp_path)
    first, second = corpus.clips
    assert (first.id, first.audio, first.transcript) == ("-v$_$0012", Media(video), "Well, good")
    assert first.duration_s == pytest.approx(2.5)
    assert second.duration_s == pytest.approx(0.9)
    assert second.modalities == ("text",)
    assert _counts(corpus)["missing videos"] == 1


def test_mertools_reads_files_and_folders_of_frames(tmp_path: Path) -> None:
    write_label_npz(tmp_path, {"train": {"a_b_0": 1.0, "a_b_1": -3.0}, "val": {"c_0": 0.0}})
    audio, video = tmp_path / "features/audio", tmp_path / "features/video"
    (video / "a_b_0").mkdir(parents=True)
    audio.mkdir()
    for name in ("a_b_0", "a_b_1", "c_0"):
        np.save(audio / f"{name}.npy", np.ones(4))
    for frame in (2, 0, 1):
        np.save(video / "a_b_0" / f"{frame:03d}.npy", np.full(3, frame))
    corpus = trainer.corpus.open(tmp_path)
    first = corpus.clips[0]
    assert (first.group, first.modalities) == ("a_b", ("audio", "video"))
    assert _read(first, "audio").shape == (1, 4)
    assert _read(first, "video")[:, 0].tolist() == [0, 1, 2]
    assert [clip.id for clip in corpus.split("valid")] == ["c_0"]
    assert _counts(corpus)["missing video features"] == 2


def test_manifest_with_files_beside_it_and_in_an_archive(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(b"sound")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("faces/1.jpg", b"a face")
    (tmp_path / "mine.csv").write_text(
        "id,split,group,audio,image,text,valence,start,end,weight,colour\n"
        "a,train,ann,talk.wav,,hello,0.5,1,3,2,red\n"
        "b,dev,bob,,faces/1.jpg,,-1,,,,blue\n"
        "c,test,cem,gone.wav,,still words,3,,,,\n"
    )
    corpus = trainer.corpus.open(tmp_path / "mine.csv")
    a, b, c = corpus.clips
    assert a.audio == Media(tmp_path / "talk.wav", None, 1.0, 3.0)
    assert (a.duration_s, a.weight, a.transcript) == (2.0, 2.0, "hello")
    assert isinstance(b.video, Media)
    assert (b.split, b.video.still, b.video.read_bytes()) == ("valid", True, b"a face")
    assert c.modalities == ("text",)
    assert _counts(corpus)["missing audio files"] == 1


def test_emotions_come_from_votes_or_from_a_name(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "id,split,valence,text,emotion,votes_happy,votes_sad\n"
        "a,train,1,one,neutral,3,1\n"
        "b,train,1,two,Angry,,\n"
        "c,train,1,three,hangry,,\n"
        "d,train,1,four,,,\n"
    )
    corpus = trainer.corpus.open(tmp_path / "manifest.csv")
    shares = [
        None if clip.emotions is None else dict(zip(EMOTIONS, clip.emotions, strict=True))
        for clip in corpus.clips
    ]
    assert shares[0] is not None
    assert {name: share for name, share in shares[0].items() if share} == {
        "happy": 0.75,
        "sad": 0.25,
    }
    assert shares[1] is not None
    assert shares[1]["angry"] == 1.0
    assert shares[2:] == [None, None]
    assert sum("emotions other than" in kind for kind in _counts(corpus)) == 1


def test_several_corpora_at_once_keep_their_ids_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("id,split,group,text,valence\na,train,g,hi,1\n")
    corpora = [trainer.corpus.open(tmp_path / f"{name}.csv") for name in ("one", "two")]
    merged = trainer.corpus.merge(corpora)
    assert [(clip.id, clip.group) for clip in merged.clips] == [
        ("one/a", "one/g"),
        ("two/a", "two/g"),
    ]
    with pytest.raises(trainer.corpus.CorpusError, match="different names, got one, one"):
        trainer.corpus.merge([corpora[0], corpora[0]])
