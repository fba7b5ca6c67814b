"""Extractors: what is stored for training is what a live window would hold."""

import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.capture.clip import SAMPLE_CLIP, read_clip, read_sound
from engine.settings import load as load_settings
from engine.wire.jpeg import opened
from engine.wire.messages import Audio, Video
from models.encoders.embedded import VoiceEncoder
from models.encoders.specs import voice_spec
from models.encoders.streaming import SequenceStream
from models.encoders.transformers_speech import SpeechEncoder, speech_spec
from models.encoders.transformers_vision import VisionEncoder, vision_spec
from models.preprocessing import log_mel, mel_of_silence, normalise_crop, to_float
from models.spec import TextEncoderSpec
from models.text_encoders import TextEncoder, TunableTextEncoder, tokenize
from tests.support.tiny_models import bert, vit, wavlm
from trainer.corpus import Clip, Corpus, CorpusError, Media, hold_back
from trainer.corpus import open as open_corpus
from trainer.features.extraction import existing_store, extract
from trainer.features.keys import ContentKeys
from trainer.features.media import MediaReader
from trainer.features.pictures import CropExtractor, ImageFrameExtractor
from trainer.features.sound import (
    MelExtractor,
    MelSource,
    SpeechFrameExtractor,
    VoiceFrameExtractor,
    like_lengths,
)
from trainer.features.transcripts import TextFrameExtractor

pytestmark = pytest.mark.slow


def clip_of(media: Media, **options: object) -> Clip:
    return Clip("a", "c", "train", 0.0, audio=media, video=media, **options)


def live_messages() -> list[Audio | Video]:
    return list(read_clip(SAMPLE_CLIP, load_settings(), silence=False))


def test_sound_is_that_of_a_live_stream() -> None:
    live = np.concatenate([m.samples for m in live_messages() if isinstance(m, Audio)])
    sound = read_sound(SAMPLE_CLIP)
    np.testing.assert_array_equal(sound[: len(live)], live)
    assert len(sound) - len(live) < 160  # a stream sends whole frames of its detector
    (found,) = MelExtractor(MediaReader()).extract([clip_of(Media(SAMPLE_CLIP))])
    np.testing.assert_allclose(found.frames, log_mel(to_float(live)), atol=1e-6)
    assert found.seconds == pytest.approx(len(live) / 16_000, abs=0.01)


def test_log_mel_is_the_same_whether_it_was_stored_before_or_not(tmp_path: Path) -> None:
    clip, extractor = clip_of(Media(SAMPLE_CLIP)), MelExtractor(MediaReader())
    made, seconds = MelSource(extractor, existing_store(tmp_path, extractor)).read(clip)
    extract(Corpus("c", tmp_path, "test", (clip,)), [extractor], tmp_path)
    store = existing_store(tmp_path, extractor)
    assert store is not None
    read, stored_seconds = MelSource(extractor, store).read(clip)
    np.testing.assert_array_equal(made, read)
    assert seconds == stored_seconds


def test_crops_are_those_of_a_live_stream_and_a_stretch_has_its_own() -> None:
    live = [m for m in live_messages() if isinstance(m, Video) and m.has_face]
    extractor = CropExtractor(MediaReader())
    (found,) = extractor.extract([clip_of(Media(SAMPLE_CLIP))])
    expected = np.stack([normalise_crop(opened(m).crop, 48, 1) for m in live if m.has_face])
    np.testing.assert_allclose(found.frames, expected, atol=1e-6)
    (part,) = extractor.extract([clip_of(Media(SAMPLE_CLIP, None, 1.0, 2.0))])
    inside = [1e9 < m.envelope.t_end_ns <= 2e9 for m in live]
    np.testing.assert_allclose(part.frames, expected[inside], atol=1e-6)
    assert part.seconds == pytest.approx(1.0)


def test_voice_frames_are_those_of_its_streaming_encoder() -> None:
    spec = voice_spec()
    torch.manual_seed(0)
    module = VoiceEncoder(spec).eval()
    mel_of = MelExtractor(MediaReader())
    voice = VoiceFrameExtractor(MelSource(mel_of, None), module, spec, "voice/test")
    (found,) = voice.extract([clip_of(Media(SAMPLE_CLIP))])
    stream, frames = SequenceStream(spec, mel_of_silence()), []
    stored = log_mel(to_float(read_sound(SAMPLE_CLIP))).astype(mel_of.dtype)
    mel = stored.astype(np.float32)
    for start in range(0, len(mel), 37):
        stream.push(mel[start : start + 37])
        pending = stream.pending()
        if pending is not None:
            with torch.inference_mode():
                frames.append(stream.accept(module(torch.from_numpy(pending[None]))[0].numpy()))
    np.testing.assert_allclose(found.frames, np.concatenate(frames), atol=1e-4)


def test_a_file_that_is_no_media_is_an_error_of_its_clip(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(b"nothing to hear")
    with pytest.raises(CorpusError, match=r"noise.wav: not a media file"):
        MelExtractor(MediaReader()).extract([clip_of(Media(path))])
    with pytest.raises(CorpusError, match="not a picture"):
        CropExtractor(MediaReader()).extract([clip_of(Media(path, still=True))])


def test_text_frames_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    bert(tmp_path)
    encoder = TextEncoder(TextEncoderSpec(source=str(tmp_path), dim=24))
    extractor = TextFrameExtractor(encoder, 24, "text/tiny")
    texts = ["good", "not good at all", "", "bad film"]
    clips = [Clip(t, "c", "train", 0.0, transcript=t) for t in texts]
    together = extractor.extract(clips)
    for clip, found in zip(clips, together, strict=True):
        (alone,) = extractor.extract([clip])
        np.testing.assert_allclose(found.frames, alone.frames, atol=1e-5)


def write_sound(path: Path, seconds: float, seed: int) -> Media:
    count = round(seconds * 16_000)
    samples = np.random.default_rng(seed).normal(0, 3000, count).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return Media(path)


def sounds(folder: Path) -> list[Clip]:
    """Clips of five lengths, one of which cannot be read."""
    media = [write_sound(folder / f"{n}.wav", 0.4 + 0.37 * n, n) for n in range(5)]
    (folder / "broken.wav").write_bytes(b"nothing to hear")
    media.insert(2, Media(folder / "broken.wav"))
    return [
        Clip(f"clip{n}", "c", "train", 0.0, audio=one, group=str(n)) for n, one in enumerate(media)
    ]


def test_speech_frames_of_a_padded_batch_are_those_of_each_clip_alone(tmp_path: Path) -> None:
    spec = speech_spec(wavlm(tmp_path / "wavlm"), -2)
    encoder = CountingEncoder(SpeechEncoder(spec))
    extractor = SpeechFrameExtractor(
        MediaReader(), encoder, spec, "speech/tiny", torch.device("cpu")
    )
    clips = [clip for clip in sounds(tmp_path) if clip.id != "clip2"]
    together = extractor.extract(clips)
    assert encoder.rows == [5]
    for clip, found in zip(clips, together, strict=True):
        (alone,) = extractor.extract([clip])
        assert len(found.frames) == round(found.seconds * 16_000) // spec.stride
        np.testing.assert_allclose(found.frames, alone.frames, atol=2e-4)
        assert np.abs(found.frames).max() > 0.1


def test_a_file_that_cannot_be_read_costs_its_batch_nothing(tmp_path: Path) -> None:
    spec = speech_spec(wavlm(tmp_path / "wavlm"), -2)
    encoder = CountingEncoder(SpeechEncoder(spec))
    reader = CountingReader()
    extractor = SpeechFrameExtractor(reader, encoder, spec, "speech/tiny", torch.device("cpu"))
    clips = sounds(tmp_path)
    found = extract(Corpus("c", tmp_path, "test", tuple(clips)), [extractor], tmp_path / "stores")
    assert [clip.id for clip in found.clips] == ["clip0", "clip1", "clip3", "clip4", "clip5"]
    assert len(found.unreadable) == 1
    assert "broken.wav: not a media file" in found.unreadable[0]
    assert encoder.rows == [5]
    assert sorted(reader.read) == sorted(clip.audio.path.name for clip in clips)  # each once


class CountingEncoder(torch.nn.Module):
    """Notes how many rows came at a time."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.rows = encoder, []

    def forward(self, inputs: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs))
        return self.encoder(inputs, *more)


class CountingReader(MediaReader):
    """Notes which files it read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def samples(self, media: Media) -> np.ndarray:
        self.read.append(media.path.name)
        return super().samples(media)


def test_crops_of_several_clips_share_a_batch_and_keep_their_clip(tmp_path: Path) -> None:
    spec = vision_spec(vit(tmp_path / "vit"))
    generator = np.random.default_rng(0)
    clips = []
    for number in range(70):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), generator.integers(0, 255, (40, 40, 3)))
        clips.append(Clip(f"clip{number}", "c", "train", 0.0, video=Media(path, still=True)))
    encoder = CountingEncoder(VisionEncoder(spec))
    crops = CropExtractor(MediaReader(), spec)
    extractor = ImageFrameExtractor(crops, encoder, spec.dim, "vision/tiny", torch.device("cpu"))
    found = extract(Corpus("c", tmp_path, "test", tuple(clips)), [extractor], tmp_path / "stores")
    assert encoder.rows == [64, 6]
    assert [clip.id for clip in found.clips] == [clip.id for clip in clips]
    store = found.stores["video"]
    for clip, stored in list(zip(clips, found.clips, strict=True))[::23]:
        (alone,) = extractor.extract([clip])
        np.testing.assert_allclose(store.read(stored.keys["video"]), alone.frames, atol=2e-3)


def test_a_tuned_text_encoder_says_the_same_from_its_adapter(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from models import low_rank
    from models.pretrained import load

    bert(tmp_path)
    spec = TextEncoderSpec(source=str(tmp_path), dim=24)
    torch.manual_seed(0)
    tuned = TunableTextEncoder(spec, rank=2)
    for name, parameter in tuned.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.2)
    tuned.eval()
    (tokenizer,) = load(spec.source, "AutoTokenizer")
    ids = torch.from_numpy(tokenize(tokenizer, "not good at all"))[None].float()
    expected = tuned(ids, torch.ones_like(ids, dtype=torch.bool))[0].detach().numpy()
    save_file(low_rank.updates(tuned.model), tmp_path / "adapter.safetensors")
    adapted = spec.model_copy(update={"adapter": "adapter.safetensors"})
    (found,) = TextEncoder(adapted, folder=tmp_path).encode(["not good at all"])
    np.testing.assert_allclose(found, expected, atol=5e-3)
    (plain,) = TextEncoder(spec).encode(["not good at all"])
    assert np.abs(plain - expected).max() > 0.05


def test_keys_follow_content_and_not_names(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"same")
    extractor, keys = MelExtractor(MediaReader()), ContentKeys()
    first, second = (keys.key(clip_of(Media(tmp_path / n)), extractor) for n in ("a.wav", "b.wav"))
    assert first == second
    assert keys.key(clip_of(Media(tmp_path / "a.wav", None, 0.0, 1.0)), extractor) != first


def test_a_corpus_without_a_validation_split_gets_one_by_group(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    rows = ["id,split,group,valence,text"]
    rows += [f"{i},train,g{i % 40},{i % 7 - 3},sentence {i}" for i in range(400)]
    path.write_text("\n".join([*rows, "t,test,other,1,test"]) + "\n")
    corpus = hold_back(open_corpus(path))
    valid, train = corpus.split("valid"), corpus.split("train")
    assert 0 < len(valid) < 100
    assert not {clip.group for clip in valid} & {clip.group for clip in train}
    assert any("held back" in problem.kind for problem in corpus.problems)
    assert hold_back(corpus) is corpus


def test_batches_of_like_lengths_keep_their_padding_within_a_limit() -> None:
    seconds = [5.0, 1.0, 4.0, 1.2, 30.0, 5.0, 0.9]
    batches = like_lengths(seconds, 10.0)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    for batch in batches:
        longest = max(seconds[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= 10.0
    assert [4] in batches
