"""What is trained: the network with whichever encoders learn together with it.

Frozen encoders ran before (feature extraction), so here audio and video are either their
frames, or log-mel and crops for an embedded encoder that is trained along.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.network import NetworkOutput, SentimentNetwork
from models.preprocessing import mel_of_silence
from models.text_simulation.student import StudentTextSimulation
from trainer.samples import Batch


@dataclass(frozen=True, eq=False)
class Frames:
    """A batch behind its encoders: values [B, T, D] and masks [B, T]."""

    audio: Tensor
    audio_mask: Tensor
    text: Tensor
    text_mask: Tensor
    simulated_text: Tensor
    simulated_text_mask: Tensor
    video: Tensor
    video_mask: Tensor


class SentimentModel(nn.Module):
    """The fusion network behind its trainable encoders; None where frames come ready-made."""

    silence: Tensor

    def __init__(
        self,
        network: SentimentNetwork,
        audio_encoder: VoiceEncoder | None = None,
        video_encoder: FaceEncoder | None = None,
        text_simulation: StudentTextSimulation | None = None,
        frame_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.audio_encoder = audio_encoder
        self.video_encoder = video_encoder
        self.text_simulation = text_simulation
        self.frame_drop = frame_drop
        silence = torch.from_numpy(mel_of_silence())
        self.register_buffer("silence", silence, persistent=False)

    def encode(self, batch: Batch) -> Frames:
        """Run the trainable encoders; training drops frames behind them (paper: p = .2)."""
        audio, audio_mask = batch.audio, batch.audio_mask
        if self.audio_encoder is not None:
            audio, audio_mask = run_sequence(self.audio_encoder, audio, audio_mask, self.silence)
        simulated, simulated_mask = batch.simulated_text, batch.simulated_text_mask
        if self.text_simulation is not None:
            zeros = torch.zeros_like(audio[0, 0])
            simulated, simulated_mask = run_sequence(self.text_simulation, audio, audio_mask, zeros)
        video, video_mask = batch.video, batch.video_mask
        if self.video_encoder is not None:
            video = run_images(self.video_encoder, video, video_mask, self.network.spec.video_dim)
        return Frames(
            audio=audio,
            audio_mask=self._drop(audio_mask),
            text=batch.text,
            text_mask=batch.text_mask,
            simulated_text=simulated,
            simulated_text_mask=simulated_mask,
            video=video,
            video_mask=self._drop(video_mask),
        )

    def complete(self, frames: Frames) -> NetworkOutput:
        """The complete flow: audio, real text, video; simulated where there is no real text."""
        output: NetworkOutput = self.network(
            frames.audio,
            frames.text,
            frames.video,
            audio_mask=frames.audio_mask,
            text_mask=frames.text_mask,
            video_mask=frames.video_mask,
            missing_text=False,
        )
        return output

    def missing_text(self, frames: Frames) -> NetworkOutput:
        """The missing-text flow: audio, simulated text, video."""
        output: NetworkOutput = self.network(
            frames.audio,
            frames.simulated_text,
            frames.video,
            audio_mask=frames.audio_mask,
            text_mask=frames.simulated_text_mask,
            video_mask=frames.video_mask,
            missing_text=True,
        )
        return output

    def _drop(self, mask: Tensor) -> Tensor:
        if not self.training or self.frame_drop == 0:
            return mask
        kept = mask & (torch.rand(mask.shape, device=mask.device) >= self.frame_drop)
        return torch.where(kept.any(1, keepdim=True), kept, mask)


def run_sequence(
    encoder: VoiceEncoder | StudentTextSimulation, inputs: Tensor, mask: Tensor, context_row: Tensor
) -> tuple[Tensor, Tensor]:
    """Run an embedded sequence encoder over padded inputs [B, N, D] with its left context.

    Returns:
        Frames [B, T, D'] and their mask [B, T]; a frame counts where its last input does. There
        is at least one frame, masked where the inputs are shorter than a stride.
    """
    stride, context = encoder.spec.stride, encoder.spec.left_context
    rows, length = mask.shape
    whole = max(stride, length // stride * stride)
    inputs = F.pad(inputs, (0, 0, 0, max(0, whole - length)))[:, :whole]
    mask = F.pad(mask, (0, max(0, whole - length)))[:, :whole]
    filled = torch.where(mask[..., None], inputs, context_row.to(inputs.dtype))
    lead = context_row.to(inputs.dtype).expand(rows, context, -1)
    frames: Tensor = encoder(torch.cat([lead, filled], dim=1))[:, -(whole // stride) :]
    return frames, mask[:, stride - 1 :: stride]


def run_images(encoder: FaceEncoder, crops: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Run an image encoder over the unmasked crops of [B, T, C, S, S]; frames [B, T, dim]."""
    frames = crops.new_zeros((*mask.shape, dim))
    if bool(mask.any()):
        encoded = encoder(crops[mask])
        frames = frames.to(encoded.dtype)
        frames[mask] = encoded
    return frames
