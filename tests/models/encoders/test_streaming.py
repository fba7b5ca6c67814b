"""Chunked and whole-clip encoding agree, in PyTorch and in the ONNX graphs of a bundle."""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch

from models.bundle import Bundle
from models.encoders.streaming import (
    EncodingError,
    SequenceStream,
    encode_clip,
    encode_voiced,
)
from models.modules import load_modules
from models.preprocessing import mel_of_silence
from models.spec import GraphName, SequenceEncoderSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # the first exports the bundle

Run = Callable[[np.ndarray], np.ndarray]


def pytorch(bundle: Bundle, name: GraphName) -> Run:
    network = load_modules(bundle)[name]

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(inputs)))

    return run


def onnx(bundle: Bundle, name: GraphName) -> Run:
    session = onnxruntime.InferenceSession(str(bundle.path(name)))
    return lambda inputs: np.asarray(session.run(None, {"input": inputs})[0])


def spec_and_pad(bundle: Bundle, name: GraphName) -> tuple[SequenceEncoderSpec, np.ndarray]:
    spec = getattr(bundle.config, name)
    silent = name == "audio_encoder"
    pad = mel_of_silence() if silent else np.zeros(bundle.config.network.audio_dim, np.float32)
    return spec, pad


@pytest.mark.parametrize("runner", [pytorch, onnx])
@pytest.mark.parametrize("name", ["audio_encoder", "text_simulation"])
@pytest.mark.parametrize("sizes", [(1,) * 60, (3, 50, 7, 1, 2, 97), (11, 13, 17, 19, 100)])
def test_chunks_encode_to_the_whole(
    untrained: Bundle,
    name: GraphName,
    runner: Callable[[Bundle, GraphName], Run],
    sizes: tuple[int, ...],
) -> None:
    spec, pad = spec_and_pad(untrained, name)
    run = runner(untrained, name)
    inputs = np.random.default_rng(0).normal(size=(sum(sizes), len(pad))).astype(np.float32)
    whole = encode_clip(spec, run, inputs, pad)
    stream, found = SequenceStream(spec, pad), []
    for part in np.split(inputs, np.cumsum(sizes)[:-1]):
        stream.push(part)
        pending = stream.pending()
        if pending is not None:
            found.append(stream.accept(run(pending[None])[0]))
    assert len(whole) == sum(sizes) // spec.stride
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-4)


@pytest.mark.parametrize("name", ["audio_encoder", "text_simulation", "video_encoder"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("strides", [1, 40, 250])
def test_onnx_agrees_with_pytorch(
    untrained: Bundle, name: GraphName, batch: int, strides: int
) -> None:
    generator = np.random.default_rng(1)
    if name == "video_encoder":
        shape: tuple[int, ...] = (batch * strides // 4 + 1, 1, 48, 48)
    else:
        spec, pad = spec_and_pad(untrained, name)
        shape = (batch, spec.left_context + strides * spec.stride, len(pad))
    inputs = generator.normal(size=shape).astype(np.float32)
    expected = pytorch(untrained, name)(inputs)
    np.testing.assert_allclose(onnx(untrained, name)(inputs), expected, atol=1e-4)


def test_left_padding_to_one_length_changes_no_last_frame(untrained: Bundle) -> None:
    spec, _ = spec_and_pad(untrained, "audio_encoder")
    run = onnx(untrained, "audio_encoder")
    inputs = np.random.default_rng(2).normal(size=(1, spec.left_context + 8, 64))
    inputs = inputs.astype(np.float32)
    longer = np.concatenate([np.zeros((1, 12, 64), np.float32), inputs], axis=1)
    np.testing.assert_allclose(run(longer)[:, -2:], run(inputs)[:, -2:], atol=1e-5)


def test_a_reset_starts_from_silence(untrained: Bundle) -> None:
    spec, pad = spec_and_pad(untrained, "audio_encoder")
    stream = SequenceStream(spec, pad)
    stream.push(np.ones((3, 64), np.float32))
    stream.reset()
    assert stream.waiting == 0
    assert stream.pending() is None


def test_bad_inputs_and_frames_are_named(untrained: Bundle) -> None:
    spec, pad = spec_and_pad(untrained, "audio_encoder")
    stream = SequenceStream(spec, pad)
    with pytest.raises(EncodingError, match=r"inputs: expected \['n', 64\], got \[2, 63\]"):
        stream.push(np.zeros((2, 63), np.float32))
    with pytest.raises(EncodingError, match="got NaN or infinity"):
        stream.push(np.full((2, 64), np.inf, np.float32))
    stream.push(np.zeros((8, 64), np.float32))
    with pytest.raises(
        EncodingError, match=r"frames: expected at least \[2, 128\], got \[1, 128\]"
    ):
        stream.accept(np.zeros((1, 128), np.float32))


def blocks_spec() -> SequenceEncoderSpec:
    return SequenceEncoderSpec(
        kind="recogniser", input="samples", dim=1, stride=4, left_context=8, causal=False, block=3
    )


def test_blocks_do_not_depend_on_how_the_sound_came() -> None:
    spec = blocks_spec()

    def run(inputs: np.ndarray) -> np.ndarray:
        assert inputs.shape == (1, 8 + 3 * 4)  # context and one block, whatever waits
        rows = inputs.reshape(1, -1, 4).sum(-1, keepdims=True)
        return rows + inputs.mean()  # looks everywhere

    samples = np.random.default_rng(1).normal(size=200).astype(np.float32)
    whole = encode_clip(spec, run, samples, np.zeros((), np.float32))
    assert whole.shape == (200 // 12 * 3, 1)
    for sizes in ((1,) * 200, (150, 50), (13, 17, 170)):
        stream, found = SequenceStream(spec, np.zeros((), np.float32)), []
        for part in np.split(samples, np.cumsum(sizes)[:-1]):
            stream.push(part)
            while (pending := stream.pending()) is not None:
                found.append(stream.accept(run(pending[None])[0]))
        np.testing.assert_array_equal(np.concatenate(found), whole)


def test_blocks_without_a_voice_have_no_frames() -> None:
    spec = blocks_spec()
    samples = np.arange(60, dtype=np.float32)
    voiced = np.zeros(60, np.bool_)
    voiced[13] = voiced[59] = True  # in the second and the last of five blocks of 12
    frames, ends = encode_voiced(
        spec, lambda x: x.reshape(1, -1, 4).max(-1, keepdims=True), samples,
        np.zeros((), np.float32), voiced,
    )  # fmt: skip
    assert ends.tolist() == [16, 20, 24, 52, 56, 60]
    assert frames[:, 0].tolist() == [15, 19, 23, 51, 55, 59]


def test_several_blocks_share_one_context_and_wait_for_each_other() -> None:
    stream = SequenceStream(blocks_spec(), np.zeros((), np.float32))
    samples = np.arange(1, 49, dtype=np.float32)
    voiced = np.ones(48, np.bool_)
    voiced[:12] = False
    stream.push(samples[:35], voiced[:35])
    assert stream.pending(2) is None, "the first is passed over, and of the next two one is there"
    stream.push(samples[35:], voiced[35:])
    pending = stream.pending(2)
    assert pending is not None
    assert pending.tolist() == samples[4:36].tolist()
    frames = np.arange(8, dtype=np.float32)[:, None]
    assert stream.accept(frames)[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert (stream.consumed, stream.waiting) == (36, 12)
    single = stream.pending()
    assert single is not None
    assert single.tolist() == samples[28:].tolist(), "one at a time again"
