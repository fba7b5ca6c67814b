"""Real files of the field: what is in them is known."""

from pathlib import Path

import pytest

import trainer.corpus
from trainer.corpus import Features
from trainer.inspection import look


@pytest.mark.parametrize(
    ("path", "counts", "modalities"),
    [
        ("mosei/label.csv", (16_274, 1_861, 4_653), ("text",)),
        ("mosei/label.npz", (16_326, 1_871, 4_659), ()),
        ("mosi/text_test.csv", (1_447, 0, 752), ("audio", "text", "video")),
        ("voices/ravdess", (1_080, 120, 120), ("audio", "text")),
        ("faces/ferplus.csv", (28_536, 3_574, 1_760), ("video",)),
    ],
)
def test_counts(
    shared_data: Path, path: str, counts: tuple[int, ...], modalities: tuple[str, ...]
) -> None:
    corpus = trainer.corpus.open(shared_data / path)
    assert tuple(len(corpus.split(split)) for split in trainer.corpus.SPLITS) == counts
    assert corpus.modalities == modalities
    assert not [problem for problem in corpus.problems if problem.severity == "lost"]


def test_mosei_durations_come_from_its_segments(shared_data: Path) -> None:
    corpus = trainer.corpus.open(shared_data / "mosei/label.csv")
    known = [clip.duration_s for clip in corpus.clips if clip.duration_s is not None]
    assert len(known) > 0.99 * len(corpus.clips)
    assert 7.0 < sum(known) / len(known) < 9.0


def test_labels_alone_are_shown_but_not_trained_on(shared_data: Path) -> None:
    corpus = trainer.corpus.open(shared_data / "mosi/label.npz")
    with pytest.raises(trainer.corpus.CorpusError, match="labels only"):
        corpus.require_sound()


def test_a_strangers_infinities_are_repaired_and_counted(shared_data: Path) -> None:
    corpus = trainer.corpus.open(shared_data / "odd/pooled_features_with_inf.pkl")
    assert all(isinstance(clip.audio, Features) for clip in corpus.clips)
    counts = {problem.kind: problem.count for problem in look(corpus).problems}
    assert counts["audio values that are not finite (read as 0)"] == 195


def test_a_face_is_read_from_inside_the_archive(shared_data: Path) -> None:
    corpus = trainer.corpus.open(shared_data / "faces/ferplus.csv")
    source = corpus.clips[-1].video
    assert isinstance(source, trainer.corpus.Media)
    assert source.path.suffix == ".zip"
    assert source.read_bytes().startswith(b"\xff\xd8")
