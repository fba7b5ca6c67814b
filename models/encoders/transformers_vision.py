"""Any transformers vision model as a face encoder: ViT, DINO, CLIP's vision tower, ResNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.pretrained import PretrainedError, hidden_state, load
from models.spec import ImageEncoderSpec


def vision_spec(source: str, layer: int | None = None) -> ImageEncoderSpec:
    """Specification of a vision model, from its configuration and image processor.

    Raises:
        PretrainedError: it cannot be loaded, or is no vision model.
    """
    config, processor = load(source, "AutoConfig", "AutoImageProcessor")
    config = getattr(config, "vision_config", config)
    sizes = getattr(config, "hidden_sizes", None)
    dim = sizes[-1] if sizes else getattr(config, "hidden_size", None)
    size = getattr(config, "image_size", None) or _processor_size(processor)
    if dim is None or size is None:
        raise PretrainedError(f"{source}: expected a vision model, got {config.model_type}")
    size_px = int(size[0] if isinstance(size, list | tuple) else size)
    mean, deviation = (
        (float(triple[0]), float(triple[1]), float(triple[2]))
        for triple in (processor.image_mean, processor.image_std)
    )
    return ImageEncoderSpec(
        kind="transformers",
        dim=int(dim),
        size_px=size_px,
        channels_in=3,
        source=source,
        layer=layer,
        colour=(mean, deviation),
    )


class VisionEncoder(nn.Module):
    """Normalised RGB crops [B, 3, S, S] to one state [B, D] each.

    Without a layer the model's pooled output; with one the class token of that layer (the mean
    over positions for convolutional models).
    """

    def __init__(self, spec: ImageEncoderSpec) -> None:
        """Load the model that the spec names.

        Raises:
            PretrainedError: it cannot be loaded.
        """
        super().__init__()
        if spec.source is None:
            raise PretrainedError("a transformers vision encoder needs a source")
        self.spec = spec
        (model,) = load(spec.source, "AutoModel")
        self.model = getattr(model, "vision_model", model).eval()

    @torch.no_grad()
    def forward(self, crops: Tensor) -> Tensor:
        """Encode each crop by itself."""
        size = self.spec.size_px
        if crops.shape[1:] != (3, size, size):
            raise ValueError(f"crops: expected [B, 3, {size}, {size}], got {list(crops.shape)}")
        wanted = self.spec.layer is not None
        dtype = next(self.model.parameters()).dtype
        output: Any = self.model(pixel_values=crops.to(dtype), output_hidden_states=wanted)
        if self.spec.layer is not None:
            state = hidden_state(output.hidden_states, self.spec.layer, str(self.spec.source))
            frames = state[:, 0] if state.ndim == 3 else state.mean((2, 3))
        elif getattr(output, "pooler_output", None) is not None:
            frames = output.pooler_output.flatten(1)
        else:
            frames = output.last_hidden_state[:, 0]
        result: Tensor = frames.float()
        return result


def _processor_size(processor: Any) -> int | None:
    size = dict(getattr(processor, "size", None) or {})
    return size.get("height") or size.get("shortest_edge")
