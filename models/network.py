"""The whole network, both flows: frames of each modality in, valence out.

Written from arXiv 2410.15029, section 2; ``NetworkSpec`` chooses between the published
arithmetic and what live use needs (masks, weights over the present modalities, a bounded
output, an uncertainty head). In two parts, since a running stream makes the first once per
frame and the second once per window: ``umca.FrameProjection`` and ``fusion.FusionNetwork``.
Shapes: B batch, T frames per modality.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.fusion import FusionNetwork, NetworkOutput
from models.spec import MODALITIES, NetworkSpec
from models.umca import FrameProjection


class NetworkError(UserError, ValueError):
    """An input that the network cannot take; names the field, expected and actual."""


class SentimentNetwork(nn.Module):
    """UMCA fusion of audio, text and video frames with MIA."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.projections = nn.ModuleList(
            FrameProjection(size, spec.hidden_dim, spec.input_dropout, name in spec.standardised)
            for name, size in zip(MODALITIES, spec.frame_dims, strict=True)
        )
        self.fusion = FusionNetwork(spec)

    def forward(
        self,
        audio: Tensor,
        text: Tensor,
        video: Tensor,
        audio_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        video_mask: Tensor | None = None,
        missing_text: bool | Tensor = False,
    ) -> NetworkOutput:
        """Run one flow.

        Args:
            audio: [B, Ta, Da] frames.
            text: [B, Tt, Dt] states of the real text, or of the simulated one.
            video: [B, Tv, Dv] frames.
            audio_mask: [B, Ta] bool, True where a frame counts; None: all count. A row
                without any lacks the modality.
            text_mask: as ``audio_mask``.
            video_mask: as ``audio_mask``.
            missing_text: the text is simulated: True for the batch, or [B] bool.

        Raises:
            NetworkError: empty or misshapen sequences, values that are not finite.
        """
        given = (audio, text, video)
        masks = self._masks(given, (audio_mask, text_mask, video_mask))
        frames = [project(values) for project, values in zip(self.projections, given, strict=True)]
        output: NetworkOutput = self.fusion(frames, masks, _flags(missing_text, audio))
        return output

    def _masks(self, given: tuple[Tensor, ...], masks: tuple[Tensor | None, ...]) -> list[Tensor]:
        found = []
        dims = self.spec.frame_dims
        for name, values, mask, size in zip(MODALITIES, given, masks, dims, strict=True):
            _check(name, values, mask, size, given[0].shape[0])
            found.append(
                torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
                if mask is None
                else mask
            )
        return found


def _flags(missing_text: bool | Tensor, like: Tensor) -> Tensor:
    if isinstance(missing_text, Tensor):
        return missing_text
    return torch.full((like.shape[0],), missing_text, dtype=torch.bool, device=like.device)


def _check(name: str, values: Tensor, mask: Tensor | None, size: int, batch: int) -> None:
    if values.ndim != 3 or values.shape[0] != batch or values.shape[2] != size:
        raise NetworkError(f"{name}: expected [{batch}, T, {size}], got {list(values.shape)}")
    if values.shape[1] == 0:
        raise NetworkError(f"{name}: expected at least one frame, got {list(values.shape)}")
    if mask is not None and (mask.shape != values.shape[:2] or mask.dtype != torch.bool):
        expected = f"a bool mask {list(values.shape[:2])}"
        raise NetworkError(f"{name}_mask: expected {expected}, got {mask.dtype} {list(mask.shape)}")
    finite = values.detach().isfinite().all()
    if not bool(finite):
        bad = int((~values.detach().isfinite()).sum())
        raise NetworkError(f"{name}: expected finite values, got {bad} that are NaN or infinite")
