"""Our network is Moonshine's; its graphs, exported and quantised, are the network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray

from models.pretrained import PretrainedError
from models.recogniser import export, importing
from models.recogniser.decoding import (
    GreedyDecoder,
    RecogniserError,
    TokenTable,
    Transcription,
    token_limit,
    transcription,
)
from models.recogniser.network import Recogniser
from models.recogniser.runner import GRAPHS, OnnxGraphs, load_decoder
from models.recogniser.shape import FIELD_SAMPLES, FRAME_SAMPLES, STEM, RecogniserShape
from tests.support import tiny_models

pytestmark = pytest.mark.timeout(240)  # the exporter takes half a minute on a busy machine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_models.moonshine(tmp_path_factory.mktemp("moonshine"))


@pytest.fixture(scope="module")
def network(source: str) -> Recogniser:
    return importing.read(source).network


@pytest.fixture(scope="module")
def graphs(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    imported = importing.read(source)
    export.write_graphs(imported.network, imported.tokens, folder, layers=2, quantised=False)
    return folder


def sound(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=samples) * 0.1).astype(np.float32)


def frames_of(samples: int) -> int:
    """Frames that the stem makes of a sound; 0 of one shorter than FIELD_SAMPLES."""
    length = samples
    for kernel, stride in STEM:
        length = (length - kernel) // stride + 1 if length >= kernel else 0
    return length


def paths(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.onnx" for name in GRAPHS}


def test_the_encoder_is_moonshines(source: str, network: Recogniser) -> None:
    theirs = hf.MoonshineForConditionalGeneration.from_pretrained(source).eval()
    samples = torch.from_numpy(sound(9_000)[None])
    with torch.inference_mode():
        expected = theirs.model.encoder(samples).last_hidden_state
        found = network.encoder(samples)
    assert found.shape == (1, frames_of(9_000), 24)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_graphs_write_the_tokens_that_moonshine_generates(source: str, graphs: Path) -> None:
    theirs = hf.MoonshineForConditionalGeneration.from_pretrained(source).eval()
    decoder = load_decoder(paths(graphs), graphs / export.TOKENS)
    for seed, samples in ((1, 12_000), (2, 25_001), (3, 8_000)):
        waveform = sound(samples, seed)
        limit = token_limit(samples)
        expected = theirs.generate(
            torch.from_numpy(waveform[None]), max_new_tokens=limit, do_sample=False
        )[0].tolist()[1:]
        found = decoder.transcribe(waveform)
        assert list(found.tokens) == [token for token in expected if token != 2]
        assert found.mean_logprob < 0


@pytest.mark.slow
def test_lower_and_upper_are_the_encoder(network: Recogniser, graphs: Path) -> None:
    runs = OnnxGraphs(paths(graphs))
    samples = np.stack([sound(10_000, 1), sound(10_000, 2)])
    middle = runs("recogniser_lower", {"input": samples})["frames"]
    final = runs("recogniser_upper", {"frames": middle})["final"]
    with torch.inference_mode():
        expected = network.encoder(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(final, expected, atol=1e-4)


@pytest.mark.slow
def test_a_quantised_graph_shares_its_head_and_stays_near(source: str, tmp_path: Path) -> None:
    imported = importing.read(source)
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
        export.write_graphs(
            imported.network, imported.tokens, tmp_path / name, 2, quantised=name == "int8"
        )
    import onnx

    stored = onnx.load(tmp_path / "int8" / export.DECODER).graph.initializer
    sizes = [item for item in stored if list(item.dims) == [24, len(tiny_models.WORDS)]]
    assert [item.data_type for item in sizes] == [onnx.TensorProto.INT8]
    samples = sound(16_000)[None]
    whole, rough = (
        OnnxGraphs(paths(tmp_path / name))("recogniser_lower", {"input": samples})["frames"]
        for name in ("float", "int8")
    )
    assert np.corrcoef(whole.ravel(), rough.ravel())[0, 1] > 0.99
    assert not np.array_equal(whole, rough)


def test_frames_are_counted_as_the_stem_makes_them(network: Recogniser) -> None:
    for samples in (FIELD_SAMPLES, FIELD_SAMPLES + FRAME_SAMPLES - 1, 16_000, 20_001):
        with torch.inference_mode():
            made = network.encoder.stem(torch.zeros(1, samples)).shape[1]
        assert frames_of(samples) == made
    assert frames_of(FIELD_SAMPLES) == 1
    assert frames_of(FIELD_SAMPLES - 1) == 0


@pytest.mark.slow
def test_sound_too_short_for_words_has_none(graphs: Path) -> None:
    decoder = load_decoder(paths(graphs), graphs / export.TOKENS)
    assert decoder.transcribe(np.zeros(0, np.float32)).text == ""
    assert decoder.transcribe(sound(FIELD_SAMPLES - 1)).tokens == ()
    decoder.transcribe(sound(FIELD_SAMPLES))  # one frame: whatever it says, it does not fail


@pytest.mark.slow
def test_the_token_table_of_another_model_is_refused(graphs: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokens.json"
    other.write_text('["a", "b"]' if len(tiny_models.WORDS) > 1026 else "[" + '"x",' * 99 + '"y"]')
    with pytest.raises(RecogniserError, match=r"expected the 20 tokens .* got 100"):
        load_decoder(paths(graphs), other)
    other.write_text('{"a": 1}')
    with pytest.raises(RecogniserError, match="a JSON list"):
        load_decoder(paths(graphs), other)


def test_an_altered_graph_is_refused_by_name(graphs: Path, tmp_path: Path) -> None:
    broken = tmp_path / "recogniser_upper.onnx"
    broken.write_bytes((graphs / "recogniser_upper.onnx").read_bytes()[:500])
    with pytest.raises(RecogniserError, match=r"recogniser_upper\.onnx: cannot be loaded"):
        OnnxGraphs({"recogniser_upper": broken})


def test_tokens_join_to_text_with_bytes_and_spaces() -> None:
    pieces = ["<unk>", "<s>", "</s>", "▁caf", "<0xC3>", "<0xA9>", "▁now", "!"]
    assert TokenTable(pieces).text([1, 3, 4, 5, 6, 7, 2, 99]) == "café now!"


def test_the_limit_of_tokens_grows_with_the_sound() -> None:
    assert token_limit(100) == 8
    assert token_limit(16_000 * 10) == 101


def spoken(tokens: list[int], logprobs: list[float], finished: bool) -> Transcription:
    return transcription(lambda kept: " ".join(map(str, kept)), tokens, logprobs, finished)


def test_a_decoder_that_says_the_same_again_until_its_limit_said_it_once() -> None:
    sure, unsure = [-0.3] * 6, [-0.01] * 8
    whole = spoken([5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10, 5, 6], sure + unsure, finished=False)
    assert (whole.text, whole.finished) == ("5 6 7 8 9 10", True)
    assert whole.mean_logprob == pytest.approx(-0.3), "a loop is sure of itself, and counts nothing"
    assert spoken([5, 6, 6, 6, 6, 6, 6], [-0.1] * 7, finished=False).text == "5 6"


def test_a_sentence_that_begins_again_at_the_limit_is_cut() -> None:
    again = spoken([5, 6, 7, 8, 5, 6], [-0.3] * 4 + [-0.01] * 2, finished=False)
    assert (again.text, again.finished) == ("5 6 7 8", True)
    assert again.mean_logprob == pytest.approx(-0.3)
    texts = ["<unk>", "<s>", "</s>", "▁Used", "▁to", "▁be", "▁used", "."]
    capital = transcription(TokenTable(texts).text, [3, 4, 5, 7, 6, 4], [-0.1] * 6, finished=False)
    assert (capital.text, capital.finished) == ("Used to be.", True)
    assert spoken([5, 6, 7, 6, 7, 6, 7], [-0.1] * 7, finished=False).text == "5 6 7"


def test_what_a_speaker_repeats_and_what_is_cut_off_stays() -> None:
    for said in ([5, 6, 7, 8, 5, 6, 7, 8], [5, 6, 6, 6, 7], [5, 5, 5], [5, 6, 5, 6, 5, 6]):
        again = spoken(said, [-0.1] * (len(said) + 1), finished=True)
        assert (again.tokens, again.finished) == (tuple(said), True)
    cut = spoken([5, 6, 7, 8, 9, 10, 5], [-0.1] * 7, finished=False)
    assert (len(cut.tokens), cut.finished) == (7, False)


def test_different_bytes_of_letters_are_no_repetition() -> None:
    table = TokenTable(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(0xC3, 0xCB))])
    cut = transcription(table.text, list(range(3, 11)), [-0.1] * 8, finished=False)
    assert (len(cut.tokens), cut.finished) == (8, False)


@pytest.mark.parametrize("phrase", [[5], [5, 6], [5, 6, 7]])
def test_a_decoder_that_loops_is_stopped_long_before_its_limit(phrase: list[int]) -> None:
    steps = 0

    def run(graph: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        nonlocal steps
        logits = np.zeros((1, 10), np.float32)
        if graph == "recogniser_decoder":
            word = steps - 2
            logits[0, 3 + steps if word < 0 else phrase[word % len(phrase)]] = 9.0
            steps += 1
        some = np.zeros((1, 1, 1), np.float32)
        return {"final": some, "sound": some, "logits": logits, "cache": some}

    decoder = GreedyDecoder(run, TokenTable([f"▁{n}" for n in range(10)]), (1, 1, 1))
    found = decoder.decode(np.zeros((1, 1, 1), np.float32), limit=40)
    assert found.tokens == (3, 4, *phrase)
    assert found.finished
    assert steps == len(found.tokens) + max(6, 2 * len(phrase))
    steps = 0
    decoder.decode(np.zeros((1, 1, 1), np.float32), limit=40, least=40)
    assert steps == 40, "a rehearsal does all of its work"


def test_what_was_said_three_times_is_cut_where_a_decoder_would_have_been_stopped() -> None:
    endless = spoken([3, *[5, 6, 7] * 4, 8, 9], [-0.1] * 16, finished=True)
    assert (endless.tokens, endless.finished) == ((3, 5, 6, 7), True)


def test_a_token_table_of_the_package_is_read() -> None:
    long = b"x" * 200
    data = bytes([0, 3]) + b"abc" + bytes([200 % 128 + 128, 200 // 128]) + long
    assert importing.read_token_table(data) == [b"", b"abc", long]
    with pytest.raises(PretrainedError, match="cut off in token 2"):
        importing.read_token_table(bytes([0, 1]) + b"a" + bytes([9]) + b"abc")


def test_a_folder_without_a_model_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match="no such folder"):
        importing.read(str(tmp_path / "nowhere"))
    with pytest.raises(PretrainedError, match=r"missing: encoder_model\.ort"):
        importing.read(str(tmp_path))
    for name in importing.PINNED:
        (tmp_path / name).write_bytes(b"altered")
    with pytest.raises(PretrainedError, match=r"encoder_model\.ort: sha256: expected 9d1a19e0"):
        importing.read(str(tmp_path))


def test_weights_of_another_size_are_refused(network: Recogniser) -> None:
    other = Recogniser(RecogniserShape(dim=16, heads=2, vocabulary=20))
    with pytest.raises(PretrainedError, match=r"conv1\.weight: expected \[24, 1, 127\]"):
        importing.fill(network, other.state_dict(), "other")
