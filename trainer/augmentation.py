"""Augmentation of what the embedded encoders take: other rooms and microphones, other cuts.

Works on whole batches on the training device, differently in every epoch, and draws from torch's
generator, which the loop seeds per epoch. Sound is changed where it is stored, in the log-mel
domain: power is additive there, so gain, filters, noise and reverberation have simple forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.preprocessing import FLOOR, HIGHEST_HZ, LOWEST_HZ

LEVEL_DB = (-20.0, 12.0)
TILT_DB = 8.0
WARP = 0.18
"""Largest relative change of the vocal tract's length."""
TEMPO = (0.8, 1.25)
SNR_DB = (3.0, 35.0)
RT60_S = (0.1, 0.9)
REVERB_FRAMES = 48
MEL_RATE_HZ = 100
BLOCK = 8
"""Side of the blocks that pictures are compressed in, px."""


class MelNoise(nn.Module):
    """Another voice, microphone, room, noise and level for log-mel [B, N, 64].

    Args:
        sound: probability of each effect of room, microphone, noise and level.
        speaker: probability of each of another vocal tract, tempo, and hidden stretches.
    """

    def __init__(self, sound: float, speaker: float = 0.0) -> None:
        super().__init__()
        self.sound = sound
        self.speaker = speaker

    def forward(self, mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Change some rows; each effect is drawn by itself.

        Args:
            mel: as ``models.preprocessing.log_mel`` gives it.
            mask: [B, N] bool, True for frames of the clip.

        Returns:
            Log-mel and mask, of another length where the tempo changed.
        """
        rows = len(mel)
        if self.speaker > 0:
            warped = _warp(mel, 1 + WARP * _uniform(mel, rows, -1, 1))
            mel = _where(_draw(mel, self.speaker), warped, mel)
            tempo = torch.where(_draw(mel, self.speaker), _uniform(mel, rows, *TEMPO), 1.0)
            mel, mask = _stretch(mel, mask, tempo)
        if self.sound > 0:
            power = 10 ** (4 * mel - 4)
            power = _where(_draw(mel, 0.5 * self.sound), _reverberate(power), power)
            power = _where(_draw(mel, self.sound), power * _microphone(power), power)
            power = _where(_draw(mel, 0.7 * self.sound), power + _noise(power, mask), power)
            level = 10 ** (_uniform(mel, rows, *LEVEL_DB) / 10)
            power = _where(_draw(mel, self.sound), power * level[:, None, None], power)
            mel = (power.clamp(min=FLOOR).log10() + 4) / 4
        if self.speaker > 0:
            for _ in range(2):
                mel = _where(_draw(mel, 0.7 * self.speaker), _hide_bands(mel, mask), mel)
        return mel, mask


class FaceJitter(nn.Module):
    """What a live detector and camera do to face crops [M, C, S, S], normalised again after."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, crops: Tensor) -> Tensor:
        """Mirror, cut otherwise, turn, light from a side, blur, dim, compress, cover, add grain."""
        mirrored = torch.where(_draw(crops, 0.5)[:, None, None, None], crops.flip(3), crops)
        changed = _on_some(mirrored, self.probability, self._change)
        mean = changed.mean((1, 2, 3), keepdim=True)
        deviation = changed.std((1, 2, 3), keepdim=True).clamp(min=1e-2)
        return (changed - mean) / deviation

    @staticmethod
    def _change(crops: Tensor) -> Tensor:
        crops = _lit(_cut_otherwise(crops))
        effects = ((_bent, 0.5), (_coarse, 0.2), (_smeared, 0.2), (_dim, 0.2), (_compressed, 0.3))
        for effect, probability in (*effects, (_grainy, 0.4), (_cover, 0.25)):
            crops = _on_some(crops, probability, effect)
        return crops


def _on_some(crops: Tensor, probability: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change each crop [M, C, S, S] with a probability; what stays as it is costs nothing."""
    chosen = _draw(crops, probability).nonzero()[:, 0]
    if len(chosen) == 0:
        return crops
    return crops.index_copy(0, chosen, change(crops[chosen]))


def _draw(like: Tensor, probability: float) -> Tensor:
    return torch.rand(len(like), device=like.device) < probability


def _uniform(like: Tensor, count: int, low: float, high: float) -> Tensor:
    return torch.empty(count, device=like.device).uniform_(low, high)


def _where(chosen: Tensor, changed: Tensor, values: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (values.ndim - 1)), changed, values)


def _warp(mel: Tensor, factor: Tensor) -> Tensor:
    """Stretch the frequency axis, as another vocal tract or pitch would."""
    bins = mel.shape[2]
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (LOWEST_HZ, HIGHEST_HZ))
    step = (highest - lowest) / (bins + 1)
    centres = lowest + step * torch.arange(1, bins + 1, device=mel.device)
    hz = 700 * (10 ** (centres / 2595) - 1) * factor[:, None]
    place = ((2595 * (1 + hz / 700).log10() - lowest) / step - 1).clamp(0, bins - 1)
    low = place.floor().long().clamp(max=bins - 2)
    share = (place - low)[:, None, :]
    rows = low[:, None, :].expand(-1, mel.shape[1], -1)
    return mel.gather(2, rows) * (1 - share) + mel.gather(2, rows + 1) * share


def _stretch(mel: Tensor, mask: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
    """Say it faster (tempo above 1) or slower, at the same pitch."""
    counts = (mask.sum(1) / tempo).round().long()
    length = max(1, int(counts.max()))
    place = torch.arange(length, device=mel.device) * tempo[:, None]
    place = torch.minimum(place, (mask.sum(1, keepdim=True) - 1).clamp(min=0).to(place.dtype))
    low = place.floor().long()
    high = torch.minimum(low + 1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))
    share = (place - low)[..., None]
    low, high = (index[..., None].expand(-1, -1, mel.shape[2]) for index in (low, high))
    stretched = mel.gather(1, low) * (1 - share) + mel.gather(1, high) * share
    return stretched, torch.arange(length, device=mel.device) < counts[:, None]


def _reverberate(power: Tensor) -> Tensor:
    """Add an exponentially decaying tail of late reflections to power [B, N, 64]."""
    rows = len(power)
    time = torch.arange(REVERB_FRAMES, device=power.device) / MEL_RATE_HZ
    rt60 = _uniform(power, rows, *RT60_S)[:, None]
    tail = 10 ** (-6 * time / rt60)
    strength = 10 ** (_uniform(power, rows, -25, -8) / 10)[:, None]
    kernel = torch.cat([torch.ones(rows, 1, device=power.device), strength * tail[:, 1:]], dim=1)
    padded = F.pad(power.permute(2, 0, 1), (REVERB_FRAMES - 1, 0))  # [64, B, N + K - 1]
    smeared = F.conv1d(padded, kernel.flip(1)[:, None], groups=rows)
    return smeared.permute(1, 2, 0)


def _microphone(power: Tensor) -> Tensor:
    """Smooth gains [B, 1, 64] over frequency: a tilt and two waves."""
    rows, _, bins = power.shape
    place = torch.linspace(-1, 1, bins, device=power.device)
    curve = _uniform(power, rows, -TILT_DB, TILT_DB)[:, None] * place
    for waves in (1.0, 2.5):
        phase = _uniform(power, rows, 0, 2 * math.pi)[:, None]
        height = _uniform(power, rows, 0, TILT_DB / 2)[:, None]
        curve = curve + height * torch.cos(math.pi * waves * place + phase)
    return 10 ** (curve / 10)[:, None, :]


def _noise(power: Tensor, mask: Tensor) -> Tensor:
    """Noise of a random colour and slow swell, at an SNR below the clip's own mean power."""
    rows, length, _ = power.shape
    count = mask.sum(1).clamp(min=1)
    mean = (power.mean(2) * mask).sum(1) / count
    snr = 10 ** (_uniform(power, rows, *SNR_DB) / 10)
    colour = _microphone(power) * _microphone(power)
    colour = colour / colour.mean(2, keepdim=True)
    knots = max(2, length // 40)
    swell = 10 ** (torch.randn(rows, 1, knots, device=power.device) * 0.25)
    swell = F.interpolate(swell, size=length, mode="linear", align_corners=True)[:, 0, :, None]
    grain = -torch.rand_like(power).clamp(min=1e-6).log()
    return (mean / snr)[:, None, None] * colour * swell * grain


def _hide_bands(mel: Tensor, mask: Tensor) -> Tensor:
    """Put a stretch of time and a band of frequencies at the clip's lowest level."""
    rows, length, bins = mel.shape
    lowest = mel.amin((1, 2), keepdim=True)
    counts = mask.sum(1)
    for axis, size in ((1, length), (2, bins)):
        inside = counts if axis == 1 else torch.full_like(counts, bins)
        width = _uniform(mel, rows, 0, 1) * (inside / 6).clamp(min=1)
        start = _uniform(mel, rows, 0, 1) * (inside - width)
        place = torch.arange(size, device=mel.device)
        hidden = (place >= start[:, None]) & (place < (start + width)[:, None])
        mel = torch.where(hidden[:, :, None] if axis == 1 else hidden[:, None, :], lowest, mel)
    return mel


def _cut_otherwise(crops: Tensor) -> Tensor:
    """Turn by up to 20 degrees, scale and shift, as boxes around a face vary."""
    count = len(crops)
    angle = _uniform(crops, count, -0.35, 0.35)
    scale = _uniform(crops, count, 0.78, 1.3)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift_x, shift_y = (_uniform(crops, count, -0.12, 0.12) for _ in range(2))
    rows = (cos, -sin, shift_x, sin, cos, shift_y)
    grid = F.affine_grid(
        torch.stack(rows, 1).view(-1, 2, 3), list(crops.shape), align_corners=False
    )
    return F.grid_sample(crops, grid, padding_mode="border", align_corners=False)


def _lit(crops: Tensor) -> Tensor:
    """Light from a side, and from above or below."""
    count, _, size, _ = crops.shape
    ramp = torch.linspace(-1, 1, size, device=crops.device)
    across, along = (
        _uniform(crops, count, -0.6, 0.6)[:, None, None, None] * place
        for place in (ramp, ramp[:, None])
    )
    return crops + across + along


def _bent(crops: Tensor) -> Tensor:
    """Another exposure curve on either side of the crop's mean."""
    power = _uniform(crops, len(crops), 0.7, 1.4)[:, None, None, None]
    return crops.sign() * (crops.abs() + 1e-3) ** power


def _grainy(crops: Tensor) -> Tensor:
    """White noise of up to a quarter of the deviation."""
    strength = _uniform(crops, len(crops), 0, 0.25)[:, None, None, None]
    return crops + torch.randn_like(crops) * strength


def _coarse(crops: Tensor) -> Tensor:
    """A face far away: fewer pixels, spread over the same square."""
    size = crops.shape[2]
    small = max(8, round(size * float(torch.empty(1).uniform_(0.3, 0.7))))
    fewer = F.interpolate(crops, size=(small, small), mode="bilinear", antialias=True)
    return F.interpolate(fewer, size=(size, size), mode="bilinear")


def _smeared(crops: Tensor) -> Tensor:
    """A face that moved while the shutter was open: the mean along a short line."""
    steps = torch.linspace(-0.5, 0.5, 5)
    length = float(torch.empty(1).uniform_(1, 5))
    angle = float(torch.empty(1).uniform_(0, math.pi))
    across, along = length * math.cos(angle) * steps, length * math.sin(angle) * steps
    shifts = [(round(float(y)), round(float(x))) for y, x in zip(along, across, strict=True)]
    return torch.stack([torch.roll(crops, shift, (2, 3)) for shift in shifts]).mean(0)


def _dim(crops: Tensor) -> Tensor:
    """Low light: a few brightness levels, and the sensor's noise among them."""
    count = len(crops)
    levels = _uniform(crops, count, 1.5, 4.0).exp()[:, None, None, None]  # 4 to 55 per deviation
    noise = torch.randn_like(crops) * _uniform(crops, count, 0.3, 1.5)[:, None, None, None]
    return (crops * levels + noise).round() / levels


@cache
def _cosines() -> Tensor:
    """The orthonormal transform [8, 8] of JPEG's blocks."""
    place = torch.arange(BLOCK)
    waves = torch.cos(math.pi * (2 * place[None, :] + 1) * place[:, None] / (2 * BLOCK))
    waves[0] /= math.sqrt(2)
    return waves * math.sqrt(2 / BLOCK)


def _compressed(crops: Tensor) -> Tensor:
    """What a codec loses: transformed blocks rounded to steps that grow with frequency.

    The steps rise about as JPEG's luminance table does, 10 to 110 levels of 255 at quality 50;
    a crop's deviation stands for 50 levels.
    """
    count, channels, size, _ = crops.shape
    if size % BLOCK:
        return crops
    waves = _cosines().to(crops.device)
    blocks = crops.view(count, channels, size // BLOCK, BLOCK, size // BLOCK, BLOCK)
    turned = torch.einsum("uy,bcmynx,vx->bcmunv", waves, blocks, waves)
    place = torch.arange(BLOCK, device=crops.device)
    steps = (10 + 7 * (place[:, None] + place[None, :])) / 50
    steps = steps[:, None, :] * _uniform(crops, count, 0.3, 2.5)[:, None, None, None, None, None]
    turned = (turned / steps).round() * steps
    back = torch.einsum("uy,bcmunv,vx->bcmynx", waves, turned, waves)
    return back.reshape(crops.shape)


def _cover(crops: Tensor) -> Tensor:
    """Put a grey rectangle somewhere: a hand, hair, a cup."""
    count, _, size, _ = crops.shape
    place = torch.arange(size, device=crops.device)

    def inside() -> Tensor:
        width = _uniform(crops, count, 0.1, 0.4)[:, None] * size
        start = _uniform(crops, count, -0.1, 0.9)[:, None] * size
        return (place >= start) & (place < start + width)

    covered = inside()[:, :, None] & inside()[:, None, :]
    return torch.where(covered[:, None], crops.new_zeros(()), crops)
