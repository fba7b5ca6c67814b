"""Any transformers speech model as an audio encoder: WavLM, wav2vec 2.0, HuBERT, Whisper."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models.pretrained import PretrainedError, hidden_state, load
from models.spec import SAMPLE_RATE_HZ, SequenceEncoderSpec

CONTEXT_S = 2.0
"""Sound before a chunk that a live window encodes along: these models attend to everything."""
WHISPER_STRIDE = 320


def speech_spec(source: str, layer: int = -1) -> SequenceEncoderSpec:
    """Specification of a speech model, from its configuration.

    Raises:
        PretrainedError: it cannot be loaded, or is no speech model.
    """
    (config,) = load(source, "AutoConfig")
    if hasattr(config, "conv_stride"):
        stride, dim = math.prod(config.conv_stride), int(config.hidden_size)
    elif config.model_type == "whisper":
        stride, dim = WHISPER_STRIDE, int(config.d_model)
    else:
        raise PretrainedError(
            f"{source}: expected a WavLM, wav2vec 2.0, HuBERT or Whisper model, got "
            f"{config.model_type}"
        )
    return SequenceEncoderSpec(
        kind="transformers",
        input="samples",
        dim=dim,
        stride=stride,
        left_context=int(CONTEXT_S * SAMPLE_RATE_HZ) // stride * stride,
        causal=False,
        source=source,
        layer=layer,
    )


class SpeechEncoder(nn.Module):
    """Samples [B, N] at 16 kHz to the states [B, N // stride, D] of one layer."""

    def __init__(self, spec: SequenceEncoderSpec) -> None:
        """Load the model that the spec names.

        Raises:
            PretrainedError: it cannot be loaded.
        """
        super().__init__()
        if spec.source is None or spec.layer is None:
            raise PretrainedError("a transformers speech encoder needs a source and a layer")
        self.spec = spec
        self._features, model = load(spec.source, "AutoFeatureExtractor", "AutoModel")
        self._whisper = model.config.model_type == "whisper"
        self.model = model.get_encoder() if self._whisper else model
        self.model.eval()

    @torch.no_grad()
    def forward(self, samples: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode; ``mask`` [B, N] bool leaves the padding at a sample's end out.

        Raises:
            ValueError: another shape, fewer samples than one frame, values that are not finite.
        """
        stride = self.spec.stride
        if samples.ndim != 2 or samples.shape[1] < stride:
            raise ValueError(
                f"samples: expected [B, N] with N at least {stride}, got {list(samples.shape)}"
            )
        if not bool(samples.isfinite().all()):
            raise ValueError("samples: expected finite values, got NaN or infinity")
        kept = torch.ones_like(samples, dtype=torch.bool) if mask is None else mask
        if self._normalises_over_time and not bool(kept.all()):
            return self._one_by_one(samples, kept)
        states = (
            self._whisper_states(samples) if self._whisper else self._conv_states(samples, kept)
        )
        frames: Tensor = hidden_state(states, self.spec.layer or 0, str(self.spec.source))
        return frames[:, : samples.shape[1] // stride].float()

    @property
    def _normalises_over_time(self) -> bool:
        """Base models put a group norm over all of a row's time, its padding included."""
        return getattr(self.model.config, "feat_extract_norm", "") == "group"

    def _one_by_one(self, samples: Tensor, kept: Tensor) -> Tensor:
        """Encode each row without its padding; frames of the padding are 0."""
        frames = samples.new_zeros(
            samples.shape[0], samples.shape[1] // self.spec.stride, self.spec.dim
        )
        for row, length in enumerate(kept.sum(1).tolist()):
            if length >= self.spec.stride:
                own = self(samples[row : row + 1, :length])[0]
                frames[row, : len(own)] = own
        return frames

    def _conv_states(self, samples: Tensor, kept: Tensor) -> Any:
        if getattr(self._features, "do_normalize", False):
            samples = _normalise(samples, kept)
        # The first frame of these models needs more samples than its stride: silence before.
        config = self.model.config
        field, stride = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            field += (kernel - 1) * stride
            stride *= step
        lead = field - stride
        padded = nn.functional.pad(samples, (lead, 0))
        options: dict[str, Any] = {}
        if not bool(kept.all()):
            options["attention_mask"] = nn.functional.pad(kept, (lead, 0), value=True).long()
        dtype = next(self.model.parameters()).dtype
        output = self.model(padded.to(dtype), output_hidden_states=True, **options)
        return output.hidden_states

    def _whisper_states(self, samples: Tensor) -> Any:
        features = self._features(
            [row.cpu().numpy() for row in samples.float()],
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
        ).input_features
        parameter = next(self.model.parameters())
        inputs = features.to(parameter.device, parameter.dtype)
        return self.model(inputs, output_hidden_states=True).hidden_states


def _normalise(samples: Tensor, kept: Tensor) -> Tensor:
    """Zero mean and unit variance over each row's kept samples, as the feature extractor does."""
    count = kept.sum(1, keepdim=True).clamp(min=1)
    mean = (samples * kept).sum(1, keepdim=True) / count
    variance = ((samples - mean).square() * kept).sum(1, keepdim=True) / count
    return (samples - mean) / (variance + 1e-7).sqrt() * kept
