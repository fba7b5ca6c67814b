"""Graphs of a bundle: names, inputs, outputs, widths and usual sizes, described here alone.

Torch-free. The exporter names a graph's inputs and outputs by this page, backends are warmed up
with its sizes, TensorRT plans are built for its ranges and compared on inputs of its shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from models.spec import BundleConfig, SequenceEncoderSpec

MODALITIES = ("audio", "text", "video")
"""The order of modalities everywhere: weights [B, 3], masks, patterns."""

GraphName = Literal[
    "audio_encoder",
    "video_encoder",
    "text_simulation",
    "audio_projection",
    "text_projection",
    "video_projection",
    "fusion",
    "recogniser_lower",
    "recogniser_upper",
    "recogniser_cross",
    "recogniser_decoder",
    "text_encoder",
]
PROJECTIONS: tuple[GraphName, ...] = ("audio_projection", "text_projection", "video_projection")
"""Graphs that run once per frame, in the order of MODALITIES; the fusion runs once per window."""
RECOGNISER: tuple[GraphName, ...] = (
    "recogniser_lower",
    "recogniser_upper",
    "recogniser_cross",
    "recogniser_decoder",
)
"""Graphs that turn a piece of speech into words; the first may be the audio encoder's too."""
WORDS: tuple[GraphName, ...] = (*RECOGNISER, "text_encoder")
"""Graphs that run in threads of their own and have no batch of windows to keep up with."""

FUSION_INPUTS = (*(name for m in MODALITIES for name in (m, f"{m}_mask")), "text_simulated")
"""Projected frames [B, T, P] and masks [B, T] of each modality, and the flow [B]."""
FUSION_OUTPUTS = ("valence", "low", "high", "weights", "fused")
"""Valence and raw interval [B], weights [B, 3], fused [B, F]."""

HOP_S = 0.5
"""Time between two windows that usual sizes are made for."""
LONGEST_S = 8.0
"""Of a sequence that is encoded in one piece."""
TOKENS_PER_S = 3.5
"""Tokens of a text encoder in a second of talk, about: the usual length of a window's text."""
MAX_TOKENS_PER_S = 50
MAX_VIDEO_RATE_HZ = 60

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SequenceGraph:
    """A sequence encoder: ``input`` [B, N, *features] to ``frames`` [B, k, D]."""

    inputs: ClassVar[tuple[str, ...]] = ("input",)
    outputs: ClassVar[tuple[str, ...]] = ("frames",)

    features: Shape
    """Of one input; empty where an input is a sample."""
    stride: int
    """Inputs of a frame."""
    context: int
    """Inputs before the first new one."""
    usual_frames: int
    """Of one run of a running stream."""
    longest_frames: int

    def shape(self, batch: int, frames: int) -> Shape:
        """Shape of the input that gives ``frames`` new frames per row."""
        return (batch, self.context + frames * self.stride, *self.features)


@dataclass(frozen=True, slots=True)
class RowGraph:
    """Independent rows: ``input`` [B, *shape] to ``frames`` [B, D]."""

    inputs: ClassVar[tuple[str, ...]] = ("input",)
    outputs: ClassVar[tuple[str, ...]] = ("frames",)

    shape: Shape
    usual_rows: int
    """Of a running stream's hop."""
    unit: int
    """Rows that one stream adds to a batch: all of its hop, or one where their number varies."""


@dataclass(frozen=True, slots=True)
class FusionGraph:
    """The network behind its projections: ``FUSION_INPUTS`` to ``FUSION_OUTPUTS``."""

    inputs: ClassVar[tuple[str, ...]] = FUSION_INPUTS
    outputs: ClassVar[tuple[str, ...]] = FUSION_OUTPUTS

    dim: int
    """Width of a projected frame."""
    full: Shape
    """Frames of a running stream's window, per modality."""
    longest: Shape

    def shapes(self, batch: int, lengths: Shape) -> dict[str, Shape]:
        """Shapes of the inputs for windows of these lengths."""
        shapes: dict[str, Shape] = {}
        for name, length in zip(MODALITIES, lengths, strict=True):
            shapes[name] = (batch, length, self.dim)
            shapes[f"{name}_mask"] = (batch, length)
        return {**shapes, "text_simulated": (batch,)}


Graph = SequenceGraph | RowGraph | FusionGraph


def graphs_of(config: BundleConfig) -> dict[GraphName, Graph]:
    """Every graph that windows are scored with, as a bundle's specification implies it."""
    from models.preprocessing import N_MELS

    found: dict[GraphName, Graph] = {}
    audio, text, video = config.audio_encoder, config.text_simulation, config.video_encoder
    rates_hz = config.frame_rates_hz
    if audio is not None:
        features = (N_MELS,) if audio.input == "log_mel" else ()
        found["audio_encoder"] = _sequence(audio, features, rates_hz[0])
        if text is not None:
            found["text_simulation"] = _sequence(text, (audio.dim,), rates_hz[1])
    if video is not None:
        crop = (video.channels_in, video.size_px, video.size_px)
        found["video_encoder"] = RowGraph(crop, per_hop(rates_hz[2]), unit=1)
    for graph, dim, rate_hz in zip(PROJECTIONS, config.network.frame_dims, rates_hz, strict=True):
        found[graph] = RowGraph((dim,), per_hop(rate_hz), unit=per_hop(rate_hz))
    found["fusion"] = _fusion(config)
    return found


def _sequence(spec: SequenceEncoderSpec, features: Shape, rate_hz: float) -> SequenceGraph:
    """An encoder that gives ``rate_hz`` frames per second."""
    usual = spec.block if spec.block > 1 else per_hop(rate_hz)
    longest = max(usual, int(LONGEST_S * rate_hz) + 1)
    return SequenceGraph(features, spec.stride, spec.left_context, usual, longest)


def _fusion(config: BundleConfig) -> FusionGraph:
    window_s, full = config.window_ms / 1000.0, config.full_lengths
    audio_hz, text_hz, video_hz = config.frame_rates_hz
    most = (audio_hz, max(text_hz, MAX_TOKENS_PER_S), max(video_hz, MAX_VIDEO_RATE_HZ))
    longest = (
        length_bucket(kept_frames(window_s * rate_hz), size)
        for rate_hz, size in zip(most, full, strict=True)
    )
    return FusionGraph(config.network.projected_dim, full, tuple(longest))


def per_hop(rate_hz: float) -> int:
    """Frames of a hop of a running stream: a whole number only on average, so one more."""
    return int(HOP_S * rate_hz) + 1


def kept_frames(frames_per_window: float) -> int:
    """Frames that are kept for a window, and for windows that are scored late."""
    return int(2 * frames_per_window) + 16


def length_bucket(length: int, full: int) -> int:
    """Round a number of frames up to one of few lengths: powers of two, ``full``, multiples of it.

    Every window of a running stream has ``full`` frames, so that is a length of its own.
    """
    if length <= 1:
        return 1
    if length > full:
        return full * -(-length // full)
    return min(1 << (length - 1).bit_length(), full)
