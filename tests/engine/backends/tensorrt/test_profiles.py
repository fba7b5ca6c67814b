"""Profile arithmetic and the choice of buckets: pure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.protocol import BackendError
from engine.backends.tensorrt.profiles import (
    FusionLayout,
    SequenceLayout,
    bucket,
    buckets,
    join,
    layouts,
)
from engine.backends.warm import example_inputs
from models import bundle as bundles
from models.spec import PROJECTIONS, BundleConfig

CONFIG = bundles.open("default").config
SEQUENCE = SequenceLayout((2,), stride=3, context=5, usual_frames=4, longest_frames=6, max_batch=4)
FUSION = FusionLayout(3, (10, 5, 8), (20, 40, 24), max_batch=4)


@given(st.integers(1, 100), st.integers(1, 100))
def test_buckets_are_few_and_hold_what_they_are_for(count: int, most: int) -> None:
    if count > most:
        with pytest.raises(ValueError, match="expected a batch within"):
            bucket(count, most)
        return
    size = bucket(count, most)
    assert count <= size <= most
    assert size < 2 * count
    assert size in buckets(most)


def test_the_largest_bucket_need_not_be_a_power_of_two() -> None:
    assert buckets(1) == (1,)
    assert buckets(6) == (1, 2, 4, 6)
    assert bucket(5, 6) == 6


def test_profiles_are_in_order_and_hold_every_usual_shape() -> None:
    for layout in layouts(CONFIG, 16).values():
        for entry in layout.ranges:
            order = zip(entry.minimum, entry.optimum, entry.maximum, strict=True)
            assert all(1 <= low <= middle <= high for low, middle, high in order)
            for batch in buckets(16):
                shape = layout.usual(batch)[entry.name]
                limits = zip(entry.minimum, shape, entry.maximum, strict=True)
                assert all(low <= size <= high for low, size, high in limits)


def asked_for_is_usual(config: BundleConfig) -> set[str]:
    """Graphs whose inputs of the core were all found usual."""
    found, asked = layouts(config, 64), example_inputs(config)
    checked = {graph for graph, _ in asked if graph in found}
    for graph, inputs in asked:
        if graph in checked:
            pieces = list(found[graph].pieces(inputs))  # type: ignore[index]
            assert [piece.usual for piece in pieces] == [True], graph
    return checked


@pytest.mark.timeout(180)  # may export the bundle
def test_what_the_core_asks_for_is_usual(untrained: bundles.Bundle) -> None:
    behind_encoders = {"video_encoder", *PROJECTIONS, "fusion"}
    # The default's audio encoder is of 8 bits and runs in ONNX Runtime.
    assert asked_for_is_usual(CONFIG) == behind_encoders
    embedded = {"audio_encoder", "text_simulation"}
    assert asked_for_is_usual(untrained.config) == behind_encoders | embedded


@pytest.mark.parametrize("batch", [0, 1025])
def test_a_batch_out_of_range_is_refused(batch: int) -> None:
    with pytest.raises(BackendError, match=r"max_batch: expected 1\.\.1024"):
        layouts(CONFIG, batch)


def moving_sum(inputs: np.ndarray) -> np.ndarray:
    """A graph with SEQUENCE's stride and context: each frame sums the last 8 inputs."""
    frames = (inputs.shape[1] - SEQUENCE.context) // SEQUENCE.stride
    width = SEQUENCE.context + SEQUENCE.stride
    starts = [inputs.shape[1] - width - SEQUENCE.stride * (frames - 1 - i) for i in range(frames)]
    return np.stack([inputs[:, s : s + width].sum(1) for s in starts], axis=1)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 2))
def test_sequences_of_any_size_come_out_as_one_run_would_give(
    batch: int, frames: int, surplus: int
) -> None:
    rng = np.random.default_rng(batch * 100 + frames)
    length = SEQUENCE.context + frames * SEQUENCE.stride + surplus
    inputs = rng.normal(size=(batch, length, 2)).astype(np.float32)
    pieces = list(SEQUENCE.pieces({"input": inputs}))
    results = []
    for piece in pieces:
        shape = piece.shapes["input"]
        assert shape[0] <= SEQUENCE.max_batch
        assert shape[1] <= SEQUENCE.context + SEQUENCE.longest_frames * SEQUENCE.stride
        staging = np.full(shape, 99, np.float32)  # what an earlier run left behind
        piece.fill({"input": staging})
        results.append({"frames": moving_sum(staging)})
    found = join(pieces, results)["frames"]
    np.testing.assert_allclose(found, moving_sum(inputs), atol=1e-5)


def test_a_sequence_too_short_for_a_frame_is_refused() -> None:
    with pytest.raises(BackendError, match=r"input: expected \['B', '>= 8', 2\]"):
        list(SEQUENCE.pieces({"input": np.zeros((1, 7, 2), np.float32)}))


def fusion_inputs(batch: int, lengths: tuple[int, int, int]) -> dict[str, np.ndarray]:
    inputs: dict[str, np.ndarray] = {"text_simulated": np.ones(batch, bool)}
    for name, length in zip(("audio", "text", "video"), lengths, strict=True):
        inputs[name] = np.ones((batch, length, FUSION.dim), np.float32)
        inputs[f"{name}_mask"] = np.ones((batch, length), bool)
    return inputs


def test_short_windows_are_padded_to_full_ones_behind_masks() -> None:
    (piece,) = FUSION.pieces(fusion_inputs(3, (7, 1, 8)))
    assert piece.usual
    assert piece.shapes["audio"] == (4, 10, 3)
    staging = {
        name: np.full(shape, True if name.endswith(("mask", "simulated")) else 9.0)
        for name, shape in piece.shapes.items()
    }
    piece.fill(staging)  # type: ignore[arg-type]
    for name, length in (("audio", 7), ("text", 1), ("video", 8)):
        assert staging[f"{name}_mask"].sum() == 3 * length
        assert staging[name].sum() == 3 * length * staging[name].shape[2]
    assert not staging["audio_mask"][3].any()


def test_longer_windows_keep_their_length_and_too_long_ones_are_refused() -> None:
    pieces = list(FUSION.pieces(fusion_inputs(6, (7, 20, 8))))
    assert [piece.usual for piece in pieces] == [False, False]
    assert [piece.shapes["text"] for piece in pieces] == [(4, 20, 3), (2, 20, 3)]
    with pytest.raises(BackendError, match=r"text: expected \[B, 1..40, 3\], got \[1, 41, 3\]"):
        list(FUSION.pieces(fusion_inputs(1, (7, 41, 8))))
