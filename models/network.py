"""The whole network: pooling, modality weights, unified queries, UMCA, MIA; both flows.

Written from arXiv 2410.15029, section 2; ``NetworkSpec`` chooses between the published
arithmetic and what live use needs (masks, weights over the present modalities, a bounded
output, an uncertainty head). Shapes: B batch, T frames per modality, d hidden, F fused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.mia import ImaginationAutoencoder
from models.spec import MODALITIES, NetworkSpec
from models.umca import QUERIES, AttentionPooling, CrossAttention, UnifiedQueries, mlp

VALENCE_BOUND = 3.0
TEXT = MODALITIES.index("text")
TEXT_QUERY = QUERIES - len(MODALITIES) + TEXT

# Which modalities (audio, text, video) make the first four queries: fused, at, tv, av. The
# last three queries are the modalities themselves.
MIXTURES = ((1, 1, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))


class NetworkError(ValueError):
    """An input that the network cannot take; names the field, expected and actual."""


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """Outputs of one flow."""

    valence: Tensor
    """[B, 1]; NaN for a row without any modality."""
    fused: Tensor
    """[B, F] fused representation r."""
    rnc: Tensor
    """[B, R] projection for Rank-N-Contrast."""
    text_query: Tensor
    """[B, d] the text's own unified query, from the imagined h_t in the missing-text flow."""
    text_cross: Tensor
    """[B, 7, F] text cross-attention states C_t, imagined in the missing-text flow."""
    weights: Tensor
    """[B, 3] modality weights: audio, text, video."""
    low: Tensor | None
    """[B, 1] lower quantile of the valence; None without an uncertainty head."""
    high: Tensor | None
    """[B, 1] upper quantile."""


class SentimentNetwork(nn.Module):
    """UMCA fusion of audio, text and video frames with MIA."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        d, f, drop = spec.hidden_dim, spec.fused_dim, spec.dropout
        sizes = (spec.audio_dim, spec.text_dim, spec.video_dim)
        self.input_dropout = nn.Dropout(spec.input_dropout)
        self.projections = nn.ModuleList(nn.Linear(size, d) for size in sizes)
        self.pooling = nn.ModuleList(AttentionPooling(d) for _ in MODALITIES)
        self.utterance = nn.ModuleList(mlp(d, d, d, drop) for _ in MODALITIES)
        self.weighting = nn.Sequential(*mlp(3 * d, d, d, drop), nn.Linear(d, 3))
        self.queries = UnifiedQueries(d, drop)
        self.cross = nn.ModuleList(CrossAttention(d, f, drop) for _ in MODALITIES)
        self.query_weighting = nn.Sequential(*mlp(QUERIES * f, d, f, drop), nn.Linear(f, QUERIES))
        self.valence = nn.Linear(f, 1)
        self.rnc = nn.Sequential(
            nn.Linear(f, spec.rnc_dim), nn.ReLU(), nn.Linear(spec.rnc_dim, spec.rnc_dim)
        )
        imagined = {"off": 0, "text": 1, "any": len(MODALITIES)}[spec.mia]
        self.query_imagination = nn.ModuleList(
            ImaginationAutoencoder(d, d // 2, spec.mia_residual) for _ in range(imagined)
        )
        self.cross_imagination = (
            ImaginationAutoencoder(f, f // 2, spec.mia_residual) if imagined else None
        )
        self.spread = nn.Linear(f, 2) if spec.quantiles is not None else None
        self.register_buffer("mixtures", torch.tensor(MIXTURES, dtype=torch.float32), False)

    mixtures: Tensor

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
        present = torch.stack([mask.any(1) for mask in masks], dim=1)  # [B, 3]
        simulated = _flags(missing_text, audio)

        # 1-3. Projection, attention pooling, utterance vectors h_m.
        frames = [
            self.input_dropout(linear(values))
            for linear, values in zip(self.projections, given, strict=True)
        ]  # 3 x [B, T, d]
        pooled = [
            self.input_dropout(pool(values, mask))
            for pool, values, mask in zip(self.pooling, frames, masks, strict=True)
        ]
        h = [layers(values) for layers, values in zip(self.utterance, pooled, strict=True)]
        h = self._imagine_queries(h, present, simulated)  # 3 x [B, d]

        # 4. Modality weights, and with them the mixtures behind the unified queries.
        seen = [values * present[:, i : i + 1] for i, values in enumerate(h)]
        weights = self._weights(torch.cat(seen, dim=1), present)  # [B, 3]

        # 5. Seven queries: fused, at, tv, av, a, t, v.
        stacked = torch.stack(h)  # [3, B, d]
        weighted = stacked * weights.T[:, :, None]
        mixed = torch.einsum("qm,mbd->qbd", self.mixtures, weighted)
        queries = self.queries(torch.cat([mixed, stacked]))  # [B, 7, d]

        # 6. Every query attends over every modality.
        crossed = [
            attend(queries, values, mask)
            for attend, values, mask in zip(self.cross, frames, masks, strict=True)
        ]  # 3 x [B, 7, F]
        if self.cross_imagination is not None:
            imagined = self.cross_imagination(*crossed, crossed[TEXT])
            crossed[TEXT] = torch.where(simulated[:, None, None], imagined, crossed[TEXT])

        # 7. One representation r: modalities by w, then queries by u.
        z = torch.einsum("mbqf,bm->bqf", torch.stack(crossed), weights)  # [B, 7, F]
        u = self.query_weighting(z.flatten(1))  # [B, 7]
        fused = (u[:, None, :] @ z)[:, 0]  # [B, F]

        # 8. Valence, its interval, and the RnC projection.
        valence, low, high = self._score(fused, present.any(1, keepdim=True))
        return NetworkOutput(
            valence,
            fused,
            self.rnc(fused),
            queries[:, TEXT_QUERY],
            crossed[TEXT],
            weights,
            low,
            high,
        )

    def _imagine_queries(self, h: list[Tensor], present: Tensor, simulated: Tensor) -> list[Tensor]:
        """Replace what is simulated or missing by what the present modalities make expect.

        An absent modality enters as zeros, and its imagined vector makes its own query only:
        its weight is 0, so no sum takes evidence from what was never there.
        """
        if not self.query_imagination:
            return h
        if self.spec.mia == "text":
            imagined = self.query_imagination[0](*h, h[TEXT])
            text = torch.where(simulated[:, None], imagined, h[TEXT])
            return [h[0], text, h[2]]
        known = [values * present[:, i : i + 1] for i, values in enumerate(h)]
        result = []
        for index, autoencoder in enumerate(self.query_imagination):
            wanted = ~present[:, index : index + 1]
            if index == TEXT:
                wanted = wanted | simulated[:, None]
            imagined = autoencoder(*known, known[index])
            result.append(torch.where(wanted, imagined, known[index]))
        return result

    def _weights(self, seen: Tensor, present: Tensor) -> Tensor:
        raw: Tensor = self.weighting(seen)  # [B, 3]
        if self.spec.weights == "raw":
            return raw
        scores = torch.where(present, raw, torch.full_like(raw, -1e4))
        return torch.softmax(scores, dim=1) * present.to(raw.dtype)

    def _score(self, fused: Tensor, scored: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        raw = self.valence(fused)  # [B, 1]
        ends: list[Tensor] = []
        if self.spread is not None:
            below, above = torch.split(F.softplus(self.spread(fused)), 1, dim=1)
            ends = [raw - below, raw + above]
        scores = [_bound(value) if self.spec.bounded else value for value in (raw, *ends)]
        nothing = torch.full_like(raw, float("nan"))
        valence, *interval = (torch.where(scored, value, nothing) for value in scores)
        return (valence, interval[0], interval[1]) if interval else (valence, None, None)

    def _masks(self, given: tuple[Tensor, ...], masks: tuple[Tensor | None, ...]) -> list[Tensor]:
        sizes = (self.spec.audio_dim, self.spec.text_dim, self.spec.video_dim)
        found = []
        for name, values, mask, size in zip(MODALITIES, given, masks, sizes, strict=True):
            if not torch.compiler.is_compiling():
                _check(name, values, mask, size, given[0].shape[0])
            found.append(
                torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
                if mask is None
                else mask
            )
        return found


def _bound(value: Tensor) -> Tensor:
    """Keep within [-3, 3] smoothly, with slope 1 at 0: training never meets a flat wall."""
    return VALENCE_BOUND * torch.tanh(value / VALENCE_BOUND)


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
