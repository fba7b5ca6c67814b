"""The whole network, both flows: frames of each modality in, valence out.

Written from arXiv 2410.15029, section 2; ``NetworkSpec`` chooses between the published
arithmetic and what live use needs (masks, weights over the present modalities, a bounded
output, an uncertainty head). In two parts, since a running stream makes the first once per
frame and the second once per window: ``umca.FrameProjection`` and ``fusion.FusionNetwork``.
Shapes: B batch, T frames per modality.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.errors import UserError
from models.fusion import FusionNetwork, NetworkOutput
from models.spec import MODALITIES, NetworkSpec
from models.umca import FrameProjection, ProjectedFrames

Seen = tuple[ProjectedFrames, Tensor]
"""Projected frames [B, T] and their mask."""
PACKED_BELOW = 0.9
"""Share of frames that count below which training projects those alone."""


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
        rows = audio.shape[0]
        seen = (
            self.project("audio", audio, audio_mask, rows),
            self.project("text", text, text_mask, rows),
            self.project("video", video, video_mask, rows),
        )
        return self.fuse(seen, missing_text)

    def project(self, name: str, values: Tensor, mask: Tensor | None, rows: int) -> Seen:
        """One modality's frames [B, T, D], projected, and their mask; both flows may share them.

        Args:
            name: audio, text or video; real and simulated text share one projection.
            values: its frames.
            mask: [B, T] bool, True where a frame counts; None: all count.
            rows: B.

        Raises:
            NetworkError: empty or misshapen sequences, values that are not finite.
        """
        index = MODALITIES.index(name)
        _check(name, values, mask, self.spec.frame_dims[index], rows)
        if mask is None:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        elif self.training and float(mask.float().mean()) < PACKED_BELOW:
            return _packed(self.projections[index], values, mask), mask
        return self.projections[index](values), mask

    def fuse(self, seen: Sequence[Seen], missing_text: bool | Tensor) -> NetworkOutput:
        """Run one flow on projected audio, text and video."""
        flags = _flags(missing_text, seen[0][0].values)
        output: NetworkOutput = self.fusion(
            [frames for frames, _ in seen], [mask for _, mask in seen], flags
        )
        return output

    def fuse_both(
        self, audio: Seen, text: Seen, simulated_text: Seen, video: Seen
    ) -> tuple[NetworkOutput, NetworkOutput]:
        """Run both flows on one audio and video, as ``fuse`` does twice, in one pass.

        Args:
            audio: [B, T] projected, as are the others.
            text: of the complete flow.
            simulated_text: of the missing-text flow.
            video: of both.

        Returns:
            Outputs of the complete flow, and of the missing-text flow.
        """
        count = len(audio[1])
        texts = _stacked(text, simulated_text)
        seen = (audio, texts, video)
        flags = torch.arange(2 * count, device=audio[1].device) >= count
        both: NetworkOutput = self.fusion(
            [frames for frames, _ in seen], [mask for _, mask in seen], flags, (2, 1, 2)
        )
        return both.rows(0, count), both.rows(count, 2 * count)


def _stacked(first: Seen, second: Seen) -> Seen:
    """Rows of two, at the longer one's length."""
    longest = max(first[1].shape[1], second[1].shape[1])

    def padded(values: Tensor) -> Tensor:
        return nn.functional.pad(values, (0, 0, 0, longest - values.shape[1]))

    frames = (
        torch.cat([padded(one), padded(other)])
        for one, other in zip(first[0], second[0], strict=True)
    )
    masks = [nn.functional.pad(mask, (0, longest - mask.shape[1])) for _, mask in (first, second)]
    return ProjectedFrames(*frames), torch.cat(masks)


def _packed(project: nn.Module, values: Tensor, mask: Tensor) -> ProjectedFrames:
    """The projection of the frames that count; the others are zeros.

    Among the longest clips of an epoch most of a padded batch is padding, and no weight of the
    network is learnt from it.
    """
    places = mask.flatten().nonzero()[:, 0]
    frames = project(values.flatten(0, 1).index_select(0, places))

    def spread(part: Tensor) -> Tensor:
        whole = part.new_zeros(mask.numel(), part.shape[1])
        return whole.index_copy(0, places, part).view(*mask.shape, part.shape[1])

    return ProjectedFrames(*(spread(part) for part in frames))


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
    # A sum says it in one pass, without a mask as large; values are looked at where it overflows.
    if bool(values.detach().sum().isfinite()):
        return
    bad = int((~values.detach().isfinite()).sum())
    if bad:
        raise NetworkError(f"{name}: expected finite values, got {bad} that are NaN or infinite")
