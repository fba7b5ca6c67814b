"""The packaged bundle: trained, marked with its terms, small, and right where it is easy."""

from pathlib import Path

import numpy as np
import pytest

from engine.backends.select import choose
from engine.capture.clip import SAMPLE_CLIP
from engine.score import score_clip
from engine.settings import load
from models import bundle as bundles
from models.encoders.text import OnnxTextEncoder
from models.preprocessing import normalise_crop
from models.spec import MODALITIES
from trainer.corpus import Clip, Media
from trainer.corpus import open as open_corpus
from trainer.evaluation.live import score_clips
from trainer.features.media import decode_picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_it_is_trained_small_and_carries_the_terms_of_its_corpora() -> None:
    bundle = bundles.open("default")
    assert bundle.config.trained
    assert "non-commercial" in bundle.config.licence
    card = (bundle.directory / "README.md").read_text()
    assert bundle.config.licence in card
    assert "seed(s), mean ± deviation" in card
    size = sum(path.stat().st_size for path in bundle.directory.iterdir())
    assert size <= 105_000_000  # a wheel is compressed, and below 100 MB


def test_a_real_clip_has_scores_with_intervals_narrower_than_the_scale() -> None:
    bundle, settings = bundles.open("default"), load()
    scores = list(score_clip(SAMPLE_CLIP, settings, bundle, choose("onnx", bundle).backend))
    known = [score for score in scores if score.interval is not None]
    assert len(known) > len(scores) / 2
    for score in known:
        assert score.interval is not None
        assert score.valence is not None
        assert score.interval.low <= score.valence <= score.interval.high
    assert min(s.interval.high - s.interval.low for s in known if s.interval) < 5.5


def test_a_clip_that_ends_in_a_word_is_scored_live_up_to_that_word() -> None:
    bundle, settings = bundles.open("default"), load()
    media = Media(SAMPLE_CLIP, end_s=1.5)
    (found,) = score_clips(
        [Clip("short", "sample", "test", 0.0, audio=media)],
        settings, bundle, choose("onnx", bundle).backend,
    )  # fmt: skip
    assert found.valence is not None
    assert found.low < found.valence < found.high
    assert found.windows > 3, "windows after its end, too"
    assert found.text


class Scorer:
    """The default bundle's graphs on single pieces of evidence."""

    def __init__(self) -> None:
        bundle = bundles.open("default")
        self._backend = choose("onnx", bundle).backend
        self._spec = bundle.config.network

    def face(self, crop: np.ndarray) -> float:
        inputs = {"input": normalise_crop(crop, 48, 1)[None]}
        return self._fuse("video", self._backend.run("video_encoder", inputs)["frames"])

    def text(self, states: np.ndarray) -> float:
        return self._fuse("text", states)

    def _fuse(self, modality: str, frames: np.ndarray) -> float:
        inputs: dict[str, np.ndarray] = {"text_simulated": np.array([False])}
        for name in MODALITIES:
            values = np.zeros((1, self._spec.projected_dim), np.float32)
            if name == modality:
                values = self._backend.run(f"{name}_projection", {"input": frames})["frames"]
            inputs[name] = values[None]
            inputs[f"{name}_mask"] = np.full((1, len(values)), name == modality)
        return float(self._backend.run("fusion", inputs)["valence"][0])


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer()


def test_happy_faces_score_higher_than_angry_and_sad_ones(
    shared_data: Path, scorer: Scorer
) -> None:
    corpus = open_corpus(shared_data / "faces" / "ferplus.csv")
    test = corpus.split("test")

    def mean(chosen: list[Clip]) -> float:
        values = []
        for clip in chosen:
            assert isinstance(clip.video, Media)
            values.append(scorer.face(decode_picture(clip.video)))
        return float(np.mean(values))

    happy = [clip for clip in test if clip.valence > 1.6][:60]
    unhappy = [clip for clip in test if clip.valence < -1.3][:60]
    assert mean(happy) > 1.0
    assert mean(unhappy) < -0.5


def test_kind_words_score_higher_than_unkind_ones(scorer: Scorer) -> None:
    bundle = bundles.open("default")
    spec = bundle.config.text_encoder
    assert spec is not None
    assert spec.tokenizer is not None
    encoder = OnnxTextEncoder(
        bundle.path("text_encoder"), bundle.directory / spec.tokenizer, spec.dim, spec.max_tokens
    )
    kind, unkind = encoder.encode(
        ["I loved this film, it was wonderful.", "It was terrible, a complete waste of time."]
    )
    assert scorer.text(kind) > 0.7
    assert scorer.text(unkind) < -0.7


def test_acted_joy_scores_higher_than_acted_anger_of_speakers_never_heard(
    shared_data: Path,
) -> None:
    bundle = bundles.open("default")
    backend = choose("onnx", bundle).backend
    test = open_corpus(shared_data / "voices" / "ravdess").split("test")

    def mean(chosen: list[Clip]) -> float:
        found = []
        for clip in chosen:
            assert isinstance(clip.audio, Media)
            scores = score_clip(clip.audio.path, load(), bundle, backend)
            last = [s.valence_window for s in scores if s.valence_window is not None][-1:]
            found += last
        return float(np.mean(found))

    joy = [clip for clip in test if clip.valence > 1.9][:12]
    anger = [clip for clip in test if clip.valence < -1.7][:12]
    assert mean(joy) > mean(anger) + 0.5
