"""Any transformers encoder-decoder speech model writes down speech, alone or in a batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.pretrained import PretrainedError, refuse_unreachable
from models.recogniser.decoding import NOTHING, token_limit
from models.recogniser.pretrained import PretrainedRecogniser
from tests.support import tiny_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def sound(samples: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=samples) * 0.1).astype(np.float32)


@pytest.mark.parametrize("make", [tiny_models.moonshine, tiny_models.whisper_writer])
def test_a_model_by_path_writes_down_speech(make: Callable[[Path], str], tmp_path: Path) -> None:
    recogniser = PretrainedRecogniser(make(tmp_path))
    pieces = [sound(20_000, 1), sound(100, 2), sound(20_000, 3)]
    together = recogniser.transcribe_batch(pieces)
    assert together[1] == NOTHING  # too short for a frame
    for piece, found in zip(pieces, together, strict=True):
        alone = recogniser.transcribe(piece)
        assert alone.tokens == found.tokens
        assert alone.mean_logprob == pytest.approx(found.mean_logprob, abs=1e-3)
        assert len(found.tokens) <= token_limit(len(piece))
    assert together[0].tokens
    assert together[0].mean_logprob < 0
    assert set(together[0].text.split()) <= set(tiny_models.WORDS)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match="cannot be loaded as"):
        PretrainedRecogniser(tiny_models.bert(tmp_path))


def test_a_hub_that_is_not_reached_is_one_clear_line() -> None:
    with pytest.raises(PretrainedError, match=r"nobody/no-such-model: .*hub"):
        PretrainedRecogniser("nobody/no-such-model")


def test_a_proxy_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    with pytest.raises(PretrainedError, match=r"hub that is reached: .* through the") as found:
        refuse_unreachable("nobody/no-such-model")
    assert "secret" not in str(found.value)
