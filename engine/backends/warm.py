"""The inputs a backend is warmed up with: every graph at its smallest and its usual size."""

from __future__ import annotations

import numpy as np

from engine.backends.protocol import Array, Backend, Inputs
from engine.backends.tensorrt.profiles import HOP_S, per_hop
from models.spec import MODALITIES, PROJECTIONS, BundleConfig, SequenceEncoderSpec


def warm_up(backend: Backend, config: BundleConfig) -> None:
    """Run each graph of ``backend`` on zeros of the sizes that ``config`` implies."""
    for graph, inputs in example_inputs(config):
        if graph in backend.graphs:
            backend.run(graph, inputs)


def example_inputs(config: BundleConfig) -> list[tuple[str, Inputs]]:
    """Return (graph, inputs) of zeros, batch 1 and 2, shapes as the core makes them."""
    examples: list[tuple[str, Inputs]] = []
    audio = config.audio_encoder
    if audio is not None:
        hop = max(audio.block, int(HOP_S * audio.input_rate_hz) // audio.stride) * audio.stride
        if audio.block > 1:
            hop = audio.block * audio.stride
        shape = (64,) if audio.input == "log_mel" else ()
        for batch in (1, 2):
            zeros = np.zeros((batch, audio.left_context + hop, *shape), np.float32)
            examples.append(("audio_encoder", {"input": zeros}))
        if config.text_simulation is not None:
            examples += _text_simulation(config.text_simulation, audio)
    video = config.video_encoder
    if video is not None:
        examples += [
            (
                "video_encoder",
                {"input": np.zeros((n, video.channels_in, *[video.size_px] * 2), np.float32)},
            )
            for n in (1, 5)
        ]
    dims = zip(PROJECTIONS, config.network.frame_dims, config.frame_rates_hz, strict=True)
    for graph, dim, rate_hz in dims:
        rows = (1, per_hop(rate_hz))
        examples += [(graph, {"input": np.zeros((n, dim), np.float32)}) for n in rows]
    return examples + [("fusion", _fusion(config, batch)) for batch in (1, 2)]


def _text_simulation(
    text: SequenceEncoderSpec, audio: SequenceEncoderSpec
) -> list[tuple[str, Inputs]]:
    length = text.left_context + 2 * text.stride
    return [("text_simulation", {"input": np.zeros((n, length, audio.dim), np.float32)})
            for n in (1, 2)]  # fmt: skip


def _fusion(config: BundleConfig, batch: int) -> Inputs:
    inputs: dict[str, Array] = {}
    for name, length in zip(MODALITIES, config.full_lengths, strict=True):
        inputs[name] = np.zeros((batch, length, config.network.projected_dim), np.float32)
        inputs[f"{name}_mask"] = np.ones((batch, length), np.bool_)
    inputs["text_simulated"] = np.ones(batch, np.bool_)
    return inputs
