"""Encoders and text simulation through ``from_pretrained``, on tiny models made here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoders.transformers_speech import SpeechEncoder, speech_spec
from models.encoders.transformers_vision import VisionEncoder, vision_spec
from models.preprocessing import normalise_crop
from models.pretrained import PretrainedError, load
from models.spec import TextEncoderSpec
from models.text_encoders import TextEncoder
from models.text_simulation.llm import FrameConcatenatingAdapter, LlmSettings, LlmTextSimulation
from tests.support import tiny_models

# What transformers does inside is not ours to mend.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:Support for mismatched key_padding_mask:UserWarning",
    ),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def wavlm(root: Path) -> str:
    return tiny_models.wavlm(root / "wavlm")


@pytest.fixture(scope="module")
def llama(root: Path) -> str:
    return tiny_models.llama(root / "llama")


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=int(16_000 * seconds)) * 0.1).astype(np.float32)


def alike(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-3) -> bool:
    """Whether two tensors differ by no more than a share of the expected one's largest value."""
    return torch.allclose(found, expected, rtol=0, atol=share * float(expected.abs().max()))


@pytest.mark.parametrize("layer", [-1, -2, 0])
def test_wavlm_gives_one_frame_per_20_ms_of_the_chosen_layer(wavlm: str, layer: int) -> None:
    spec = speech_spec(wavlm, layer)
    assert (spec.stride, spec.dim, spec.causal) == (320, 16, False)
    encoder = SpeechEncoder(spec)
    samples = torch.from_numpy(sound(1.013))[None]
    frames = encoder(samples)
    assert frames.shape == (1, 50, 16)
    shifted = 0.3 + 5 * samples  # its feature extractor normalises level and offset away
    assert alike(encoder(shifted), frames)


def test_padding_in_a_batch_changes_no_frame_of_wavlm(wavlm: str) -> None:
    encoder = SpeechEncoder(speech_spec(wavlm, -1))
    short, long = torch.from_numpy(sound(0.5, 1)), torch.from_numpy(sound(1.0, 2))
    batch = torch.zeros(2, len(long))
    batch[0, : len(short)], batch[1] = short, long
    mask = torch.zeros_like(batch, dtype=torch.bool)
    mask[0, : len(short)], mask[1] = True, True
    frames = encoder(batch, mask)
    assert alike(frames[0, :24], encoder(short[None])[0, :24])
    assert alike(frames[1], encoder(long[None])[0])


def test_whisper_frames_end_with_the_sound(root: Path) -> None:
    spec = speech_spec(tiny_models.whisper(root / "whisper"), -1)
    encoder = SpeechEncoder(spec)
    assert encoder(torch.from_numpy(sound(0.7))[None]).shape == (1, 35, 16)


def test_a_vision_model_takes_crops_in_its_own_colours(root: Path) -> None:
    spec = vision_spec(tiny_models.vit(root / "vit"))
    assert (spec.size_px, spec.dim, spec.channels_in) == (32, 16, 3)
    crop = np.zeros((50, 50, 3), np.uint8)
    crop[..., 2] = 255  # red, in BGR
    values = normalise_crop(crop, spec.size_px, 3, spec.colour)
    assert values[0].min() == pytest.approx(1.0)
    assert values[2].max() == pytest.approx(-1.0)
    encoder = VisionEncoder(spec)
    batch = torch.from_numpy(np.stack([values, -values]))
    assert encoder(batch).shape == (2, 16)
    assert alike(encoder(batch)[:1], encoder(batch[:1]))
    layered = VisionEncoder(vision_spec(str(root / "vit"), layer=1))
    assert layered(batch).shape == (2, 16)


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_text_states_do_not_depend_on_the_batch(root: Path, llama: str, kind: str) -> None:
    source = tiny_models.bert(root / "bert") if kind == "encoder" else llama
    spec = TextEncoderSpec(source=source, layer=-2, dim=TextEncoder.width(source), model=kind)
    encoder = TextEncoder(spec)
    alone = encoder.encode(["good movie"])[0]
    together = encoder.encode(["good movie", "the movie was not a very bad movie .", ""])
    assert alone.shape == (2, spec.dim)
    assert together[1].shape == (9, spec.dim)
    assert together[2].shape == (0, spec.dim)
    np.testing.assert_allclose(together[0], alone, rtol=1e-4, atol=1e-5)


def test_a_wrong_width_or_name_is_one_clear_line(root: Path, llama: str) -> None:
    with pytest.raises(PretrainedError, match="width: expected 7, got 32"):
        TextEncoder(TextEncoderSpec(source=llama, dim=7, model="causal"))
    with pytest.raises(PretrainedError, match="/nowhere: cannot be loaded as AutoConfig"):
        speech_spec("/nowhere")
    with pytest.raises(PretrainedError, match="expected a WavLM"):
        speech_spec(llama)
    encoder = SpeechEncoder(speech_spec(tiny_models.wavlm(root / "again"), 9))
    with pytest.raises(PretrainedError, match="layer: expected -4 to 3, got 9"):
        encoder(torch.zeros(1, 3200))


def test_bad_sound_is_named(wavlm: str) -> None:
    encoder = SpeechEncoder(speech_spec(wavlm, -1))
    with pytest.raises(ValueError, match=r"N at least 320, got \[1, 100\]"):
        encoder(torch.zeros(1, 100))
    with pytest.raises(ValueError, match="expected finite values"):
        encoder(torch.full((1, 3200), float("nan")))


@pytest.mark.parametrize(("beams", "static_cache"), [(1, False), (3, False), (1, True), (3, True)])
def test_simulated_text_is_the_states_of_the_winning_sequence(
    wavlm: str, llama: str, beams: int, static_cache: bool
) -> None:
    settings = LlmSettings(
        wavlm,
        llama,
        layer=-2,
        adapter_dim=24,
        beams=beams,
        max_tokens=12,
        static_cache=static_cache,
    )
    torch.manual_seed(0)
    simulation = LlmTextSimulation(settings, torch.device("cpu"))
    segments = [sound(1.0, 1), sound(0.05, 2), sound(2.3, 3)]
    found = simulation.simulate(segments)
    assert len(found[1].frames) == 0  # too short for one concatenated frame
    for samples, text in zip(segments[::2], found[::2], strict=True):
        assert text.frames.shape == (len(text.t_end_s), 32)
        assert np.all(np.diff(text.t_end_s) > 0)
        if len(text.t_end_s):
            assert text.t_end_s[-1] == pytest.approx(len(samples) / 16_000)
        expected = replay(simulation, samples, len(text.frames))
        np.testing.assert_allclose(text.frames, expected, atol=2e-4)
    assert sum(len(text.frames) for text in found) > 0


def test_a_segment_gives_no_more_tokens_than_it_can_hold_alone_or_in_company(
    wavlm: str, llama: str
) -> None:
    settings = LlmSettings(wavlm, llama, layer=-2, adapter_dim=24, beams=2)
    torch.manual_seed(0)
    simulation = LlmTextSimulation(settings, torch.device("cpu"))
    simulation._model.generation_config.eos_token_id = None  # it never ends by itself
    simulation._tokenizer.eos_token = None
    segments = [sound(0.5, 1), sound(4.5, 2), sound(0.6, 3)]
    found = simulation.simulate(segments)
    assert [len(text.frames) for text in found] == [15, 47, 15]
    for samples, together in zip(segments, found, strict=True):
        (alone,) = simulation.simulate([samples])
        np.testing.assert_allclose(together.frames, alone.frames, atol=2e-4)
    assert simulation.token_limit(60 * 16_000) == 200


def replay(simulation: LlmTextSimulation, samples: np.ndarray, count: int) -> np.ndarray:
    """The same states in one pass over prompt and generated tokens, without a cache."""
    prompt = simulation._prompts([samples])[0][None]
    settings = simulation._settings
    with torch.inference_mode():
        tokens = simulation._model.generate(
            inputs_embeds=prompt,
            attention_mask=torch.ones(prompt.shape[:2], dtype=torch.long),
            num_beams=settings.beams,
            do_sample=False,
            max_new_tokens=settings.max_tokens,
            eos_token_id=2,
            pad_token_id=2,
        )
        embeddings = simulation._model.get_input_embeddings()(tokens)
        whole = torch.cat([prompt, embeddings], dim=1)
        states = simulation._model(inputs_embeds=whole, output_hidden_states=True).hidden_states
    generated = states[settings.layer][0, prompt.shape[1] :]
    return generated[:count].numpy()


def test_an_adapter_loads_with_a_prefix_and_names_what_is_missing(tmp_path: Path) -> None:
    adapter = FrameConcatenatingAdapter(4, 6, 8, 5)
    prefixed = {f"encoder_projector.{k}": v for k, v in adapter.state_dict().items()}
    torch.save(prefixed, tmp_path / "adapter.pt")
    other = FrameConcatenatingAdapter(4, 6, 8, 5)
    other.load(tmp_path / "adapter.pt")
    frames = torch.randn(1, 13, 4)
    assert torch.equal(adapter(frames), other(frames))
    assert adapter(frames).shape == (1, 2, 8)
    prefixed.popitem()
    torch.save(prefixed, tmp_path / "less.pt")
    with pytest.raises(PretrainedError, match=r"expected one tensor named linear2\.bias, got 0"):
        other.load(tmp_path / "less.pt")
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(PretrainedError, match="cannot be read as weights"):
        other.load(tmp_path / "evil.pt")


def test_a_llama_cpp_file_without_its_packages_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("models.pretrained.find_spec", lambda name: None)
    wanted = r"tiny.gguf needs gguf and accelerate: pip install .undertone-sentiment\[adapter\]"
    with pytest.raises(PretrainedError, match=wanted):
        load(str(tmp_path), "AutoTokenizer")
