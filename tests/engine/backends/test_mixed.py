"""A backend that cannot take the 8-bit tone encoder leaves it to ONNX Runtime."""

import numpy as np
import pytest

from engine.backends.mixed import MixedBackend, with_tone
from engine.backends.select import choose
from tests.support.words import words_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_pytorch_runs_a_bundle_with_a_recogniser() -> None:
    bundle = words_bundle()
    mixed, onnx = choose("pytorch", bundle).backend, choose("onnx", bundle).backend
    assert isinstance(mixed, MixedBackend)
    assert mixed.name == "pytorch"
    spec = bundle.config.audio_encoder
    assert spec is not None
    size = spec.left_context + spec.block * spec.stride
    rows = np.random.default_rng(0).normal(size=(2, size)).astype(np.float32) * 0.05
    found = mixed.run("audio_encoder", {"input": rows})["frames"]
    for row, frames in zip(rows, found, strict=True):
        alone = onnx.run("audio_encoder", {"input": row[None]})["frames"][0]
        np.testing.assert_array_equal(frames, alone)  # no row knows of the others
    assert with_tone(onnx, bundle) is onnx
