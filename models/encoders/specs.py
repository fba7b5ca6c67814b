"""Specifications of the embedded encoders, torch-free; contexts follow from the layers."""

from __future__ import annotations

from models.spec import ImageEncoderSpec, SequenceEncoderSpec

STEM_KERNEL, STEM_STRIDES = 3, (2, 2, 1, 1)
VOICE_STEM_CHANNELS = (16, 32, 48, 64)
VOICE_KERNEL, VOICE_DILATIONS = 3, (1, 2, 4)
STUDENT_KERNEL, STUDENT_DILATIONS, STUDENT_STRIDE = 3, (1, 2, 4, 8), 5


def _voice_context() -> tuple[int, int]:
    """Stride and left context of the voice encoder, in log-mel frames."""
    stride, field = 1, 1
    for step in STEM_STRIDES:
        field += (STEM_KERNEL - 1) * stride
        stride *= step
    field += sum((VOICE_KERNEL - 1) * dilation for dilation in VOICE_DILATIONS) * stride
    return stride, field - stride


def voice_spec(dim: int = 128, channels: int = 128) -> SequenceEncoderSpec:
    """Log-mel at 100 Hz to frames at 25 Hz, looking back 0.8 s."""
    stride, context = _voice_context()
    return SequenceEncoderSpec(
        kind="embedded",
        input="log_mel",
        dim=dim,
        stride=stride,
        left_context=context,
        causal=True,
        channels=channels,
    )


def face_spec(dim: int = 128, channels: int = 24, size_px: int = 48) -> ImageEncoderSpec:
    """Grey face crops to one frame each."""
    return ImageEncoderSpec(
        kind="embedded", dim=dim, size_px=size_px, channels_in=1, channels=channels
    )


def student_spec(dim: int = 384, channels: int = 128) -> SequenceEncoderSpec:
    """Audio frames at 25 Hz to simulated text frames at 5 Hz, looking back 1.2 s."""
    field = sum((STUDENT_KERNEL - 1) * dilation for dilation in STUDENT_DILATIONS)
    return SequenceEncoderSpec(
        kind="embedded",
        input="audio_frames",
        dim=dim,
        stride=STUDENT_STRIDE,
        left_context=field,
        causal=True,
        channels=channels,
    )
