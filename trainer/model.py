"""What is trained: the network with whichever encoders learn together with it.

Frozen encoders ran before (feature extraction), so here audio and video are either their
frames, or log-mel and crops for an embedded encoder that is trained along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.fusion import NetworkOutput
from models.network import SentimentNetwork
from models.preprocessing import mel_of_silence
from models.text_encoders import TunableTextEncoder
from models.text_simulation.student import StudentTextSimulation
from trainer.augmentation import FaceJitter, MelNoise
from trainer.corpus.clip import EMOTIONS
from trainer.data.batches import Batch
from trainer.distributed import SharedNorm
from trainer.recipe import Augmentation, Loss

ROWS_AT_ONCE = 16
"""Rows of like lengths that a CPU runs through the network together: a layer's output then fits its
cache, and nothing is padded to the longest clip of the batch."""


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


class Probe(nn.Module):
    """Answers from an encoder's frames [B, T, D] alone, by their weighted mean and deviation.

    The fused network multiplies several small numbers before it says anything; what is learnt
    through it alone from a thousand clips is their mean.
    """

    def __init__(self, dim: int, answers: int, dropout: float = 0.4) -> None:
        super().__init__()
        self.weighting = nn.Linear(dim, 1)
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim, answers),
        )

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Answers [B, answers] for frames [B, T, D] and their mask [B, T]."""
        scores = self.weighting(frames)[..., 0].masked_fill(~mask, -1e4)
        weights = torch.softmax(scores, 1)[..., None]
        mean = (frames * weights).sum(1)
        variance = (frames.square() * weights).sum(1) - mean.square()
        answers: Tensor = self.layers(torch.cat([mean, variance.clamp(min=1e-5).sqrt()], 1))
        return answers


class SentimentModel(nn.Module):
    """The fusion network behind its trainable encoders; None where frames come ready-made."""

    silence: Tensor

    def __init__(
        self,
        network: SentimentNetwork,
        audio_encoder: VoiceEncoder | None = None,
        video_encoder: FaceEncoder | None = None,
        text_simulation: StudentTextSimulation | None = None,
        text_encoder: TunableTextEncoder | None = None,
        augmentation: Augmentation | None = None,
        mixed_precision: bool = False,
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.audio_encoder = audio_encoder
        self.video_encoder = video_encoder
        self.text_simulation = text_simulation
        self.text_encoder = text_encoder
        self.frame_drop = augmentation.frame_drop if augmentation else 0.0
        self.one_draw = augmentation.one_draw if augmentation else True
        self.sound = (
            MelNoise(augmentation.sound, augmentation.speaker)
            if augmentation and audio_encoder
            else None
        )
        # These teach only: they are not part of the bundle.
        loss = loss or Loss()
        fused_dim = network.spec.fused_dim
        self.emotions = nn.Linear(fused_dim, len(EMOTIONS)) if loss.emotion > 0 else None
        embedded = {"audio": audio_encoder, "video": video_encoder}
        self.probes = nn.ModuleDict(
            {
                name: Probe(encoder.spec.dim, 1 + len(EMOTIONS))
                for name, encoder in embedded.items()
                if encoder is not None and loss.encoder > 0
            }
        )
        self.picture = FaceJitter(augmentation.picture) if augmentation and video_encoder else None
        self.mixed_precision = mixed_precision
        silence = torch.from_numpy(mel_of_silence())
        self.register_buffer("silence", silence, persistent=False)

    def encode(self, batch: Batch) -> Frames:
        """Run the trainable encoders; training drops frames behind them (paper: p = .2)."""
        device = batch.audio.device.type
        mixed = self.training and self.mixed_precision and supports_bfloat16(device)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            frames = self._encode(batch)
        if mixed:
            names = ("audio", "text", "simulated_text", "video")
            frames = replace(frames, **{name: getattr(frames, name).float() for name in names})
        return frames

    def _encode(self, batch: Batch) -> Frames:
        audio, audio_mask = batch.audio, batch.audio_mask
        if self.audio_encoder is not None:
            if self.training and self.sound is not None:
                with torch.autocast(audio.device.type, enabled=False):
                    audio, audio_mask = self.sound(audio, audio_mask)
            audio, audio_mask = run_sequence(self.audio_encoder, audio, audio_mask, self.silence)
        simulated, simulated_mask = batch.simulated_text, batch.simulated_text_mask
        if self.text_simulation is not None:
            zeros = torch.zeros_like(audio[0, 0])
            simulated, simulated_mask = run_sequence(self.text_simulation, audio, audio_mask, zeros)
        text = batch.text
        if self.text_encoder is not None:
            text = self.text_encoder(text, batch.text_mask)
            if simulated.ndim == 2:  # padded as token ids, of which there are none
                simulated = simulated[..., None].expand(-1, -1, text.shape[2])
        video, video_mask = batch.video, batch.video_mask
        if self.video_encoder is not None:
            if self.training and self.picture is not None:
                with torch.autocast(video.device.type, enabled=False):
                    video = self._jittered(video, video_mask, self.picture)
            video = run_images(self.video_encoder, video, video_mask, self.network.spec.video_dim)
        return Frames(
            audio=audio,
            audio_mask=self._drop(audio_mask),
            text=text,
            text_mask=batch.text_mask,
            simulated_text=simulated,
            simulated_text_mask=simulated_mask,
            video=video,
            video_mask=self._drop(video_mask),
        )

    @staticmethod
    def _jittered(video: Tensor, mask: Tensor, picture: FaceJitter) -> Tensor:
        if not bool(mask.any()):
            return video
        changed = video.clone()
        changed[mask] = picture(video[mask])
        return changed

    def complete(self, frames: Frames) -> NetworkOutput:
        """The complete flow: audio, real text, video."""
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

    def flows(
        self, frames: Frames, has_complete: Tensor, has_missing: Tensor
    ) -> tuple[NetworkOutput, NetworkOutput]:
        """Both flows for training, the complete one first; zeros for rows that lack the flow.

        Most rows of a batch lack a voice, or a flow. Rows that lack the same run together, without
        the padding that the others need. On a
        CPU only a few do, of like lengths.

        Args:
            frames: of [B] clips.
            has_complete: [B] bool, the flow exists for the row.
            has_missing: as ``has_complete``.
        """
        kinds = has_complete.int() + 2 * has_missing.int() + 4 * frames.audio_mask.any(1).int()
        complete: list[_Some] = []
        missing: list[_Some] = []
        for kind in sorted(set(kinds.tolist())):
            for rows in _like_lengths(frames, (kinds == kind).nonzero()[:, 0]):
                some = _some_rows(frames, rows)
                if kind & 3 == 3:
                    for kept, output in zip((complete, missing), self._both(some), strict=True):
                        kept.append((rows, output))
                elif kind & 1:
                    complete.append((rows, self.complete(some)))
                elif kind & 2:
                    missing.append((rows, self.missing_text(some)))
        found = complete or missing
        if not found:  # a process without a row
            return self._both(frames)
        one, count = found[0][1], len(kinds)
        return _in_places(complete, one, count), _in_places(missing, one, count)

    def _both(self, frames: Frames) -> tuple[NetworkOutput, NetworkOutput]:
        """Both flows of all rows.

        They see the same audio and video, which are most of the work: with ``one_draw`` these are
        projected once, with one draw of the dropout on them for both.
        """
        if not self.one_draw:
            return self.complete(frames), self.missing_text(frames)
        network, rows = self.network, frames.audio.shape[0]
        audio = network.project("audio", frames.audio, frames.audio_mask, rows)
        video = network.project("video", frames.video, frames.video_mask, rows)
        text = network.project("text", frames.text, frames.text_mask, rows)
        mask = frames.simulated_text_mask
        simulated = network.project("text", frames.simulated_text, mask, rows)
        return network.fuse_both(audio, text, simulated, video)

    def _drop(self, mask: Tensor) -> Tensor:
        if not self.training or self.frame_drop == 0:
            return mask
        kept = mask & (torch.rand(mask.shape, device=mask.device) >= self.frame_drop)
        return torch.where(kept.any(1, keepdim=True), kept, mask)


_Some = tuple[Tensor, NetworkOutput]
"""Rows of a batch and what is said of them."""


def _like_lengths(frames: Frames, rows: Tensor) -> Sequence[Tensor]:
    """Rows by the frames that they have, as many as should run together."""
    if rows.device.type != "cpu" or len(rows) <= ROWS_AT_ONCE:
        return [rows]
    lengths = frames.audio_mask[rows].sum(1) + frames.video_mask[rows].sum(1)
    return torch.split(rows[lengths.argsort()], ROWS_AT_ONCE)


def _some_rows(frames: Frames, rows: Tensor) -> Frames:
    """Some rows, up to the last frame that counts in any of them."""
    cut = {}
    for name in ("audio", "text", "simulated_text", "video"):
        values, mask = getattr(frames, name), getattr(frames, f"{name}_mask")[rows]
        used = mask.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 1
        cut[name], cut[f"{name}_mask"] = values[rows, :length], mask[:, :length]
    return Frames(**cut)


def _in_places(parts: list[_Some], like: NetworkOutput, rows: int) -> NetworkOutput:
    """Outputs of some rows in one of all rows, zeros between."""
    found: dict[str, Tensor | None] = {}
    for field in fields(NetworkOutput):
        one: Tensor | None = getattr(like, field.name)
        found[field.name] = None
        if one is not None:
            values = one.new_zeros((rows, *one.shape[1:]))
            for places, output in parts:
                values = values.index_copy(0, places, getattr(output, field.name))
            found[field.name] = values
    return NetworkOutput(**found)  # type: ignore[arg-type]


def supports_bfloat16(device: str) -> bool:
    """Whether computing in bfloat16 is faster than in float32 there."""
    if device == "cuda":
        return True
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and known is not None and bool(known())


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
    if bool(mask.any()) or shares_norms(encoder):
        encoded = encoder(crops[mask].contiguous(memory_format=torch.channels_last))
        frames = frames.to(encoded.dtype)
        frames[mask] = encoded
    return frames


def shares_norms(module: nn.Module) -> bool:
    """Whether other processes wait for this one's moments, even if it has no row."""
    return module.training and any(isinstance(part, SharedNorm) for part in module.modules())


def weights_digest(module: nn.Module) -> str:
    """Short sha256 of a module's weights with their names: other weights, other digest."""
    state = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]
