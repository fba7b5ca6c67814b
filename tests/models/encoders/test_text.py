"""The text encoder without torch reads what the one with torch reads."""

from pathlib import Path

import numpy as np
import pytest

from models.encoders.text import OnnxTextEncoder, TextEncoderError
from models.encoders.text_export import write_text_encoder
from models.spec import TextEncoderSpec
from models.text_encoders import TextEncoder
from tests.support import tiny_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
TEXTS = ["the movie was very good .", "bad", "not the speech , unknown words", ""]


@pytest.fixture(scope="module")
def torch_encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = tiny_models.bert(tmp_path_factory.mktemp("bert"))
    return TextEncoder(TextEncoderSpec(source=folder, dim=TextEncoder.width(folder)))


@pytest.fixture(scope="module")
def written(
    torch_encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TextEncoderSpec]:
    folder = tmp_path_factory.mktemp("graph")
    return folder, write_text_encoder(torch_encoder, folder)


def load(folder: Path, spec: TextEncoderSpec, max_tokens: int = 64) -> OnnxTextEncoder:
    assert spec.tokenizer
    return OnnxTextEncoder(
        folder / "text_encoder.onnx", folder / spec.tokenizer, spec.dim, max_tokens
    )


def test_states_are_those_of_the_model(
    torch_encoder: TextEncoder, written: tuple[Path, TextEncoderSpec]
) -> None:
    encoder = load(*written)
    for text in TEXTS[:3]:
        assert encoder.tokens(text) == torch_encoder.tokenizer(text)["input_ids"]
        (found,), (expected,) = encoder.encode([text]), torch_encoder.encode([text])
        assert found.shape == expected.shape
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_text_does_not_depend_on_the_others(written: tuple[Path, TextEncoderSpec]) -> None:
    encoder = load(*written)
    together = encoder.encode(TEXTS)
    for text, states in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], states)


def test_a_long_text_is_cut_off(written: tuple[Path, TextEncoderSpec]) -> None:
    assert len(load(*written, max_tokens=5).tokens("good " * 50)) == 5


def test_the_tokenizer_of_another_model_is_refused(
    written: tuple[Path, TextEncoderSpec], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models

    other = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")).save(str(other))
    folder, spec = written
    with pytest.raises(TextEncoderError, match=r"expected the 20 tokens .* got 2"):
        OnnxTextEncoder(folder / "text_encoder.onnx", other, spec.dim)
    other.write_text("no tokenizer")
    with pytest.raises(TextEncoderError, match="expected a tokenizer"):
        OnnxTextEncoder(folder / "text_encoder.onnx", other, spec.dim)
    with pytest.raises(TextEncoderError, match="width: expected 7"):
        OnnxTextEncoder(folder / "text_encoder.onnx", folder / "tokenizer.json", 7)
