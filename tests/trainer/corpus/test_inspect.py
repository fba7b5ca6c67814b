"""The readers open every kind of real sample and count what its page says is in it."""

import pickle
from pathlib import Path

import pytest

from trainer import corpus
from trainer.corpus import CorpusError


@pytest.mark.parametrize(
    ("place", "clips", "modalities"),
    [
        ("mosei/label.csv", 22_788, {"text"}),
        ("mosei/label.npz", 22_856, set()),
        ("voices/ravdess/manifest.csv", 1_320, {"audio", "text"}),
        ("faces/ferplus.csv", 33_870, {"video"}),
        ("odd/pooled_features_with_inf.pkl", 264, {"audio", "text", "video"}),
    ],
)
def test_real_samples(shared_data: Path, place: str, clips: int, modalities: set[str]) -> None:
    opened = corpus.open(shared_data / place)
    assert len(opened.clips) == clips
    first = opened.clips[0]
    assert set(first.modalities) == modalities
    labels = [clip.valence for clip in opened.clips if clip.valence is not None]
    assert all(-3 <= label <= 3 for label in labels)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(CorpusError):
        corpus.open(path)


def test_what_is_no_corpus_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CorpusError) as caught:
            corpus.open(path)
        assert "\n" not in str(caught.value)
