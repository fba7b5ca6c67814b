"""What the network makes of projected frames: pooling, weights, unified queries, UMCA, MIA.

Steps 2 to 8 of arXiv 2410.15029, section 2: what runs once per window, where the projection of
the frames (step 1, ``umca.FrameProjection``) runs once per frame. Shapes: B batch, T frames per
modality, d hidden, F fused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dropout import Dropout
from models.mia import ImaginationAutoencoder
from models.spec import MODALITIES, NetworkSpec
from models.umca import (
    QUERIES,
    CrossAttention,
    ProjectedFrames,
    UnifiedQueries,
    attention_pooling,
    mlp,
)

VALENCE_BOUND = 3.0
TEXT = MODALITIES.index("text")
TEXT_QUERY = QUERIES - len(MODALITIES) + TEXT

# Which modalities (audio, text, video) make the first four queries: fused, at, tv, av. The
# last three queries are the modalities themselves.
MIXTURES = ((1, 1, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))


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

    def rows(self, start: int, stop: int) -> NetworkOutput:
        """Some rows."""
        known: dict[str, Tensor | None] = {f.name: getattr(self, f.name) for f in fields(self)}
        cut = {n: None if v is None else v[start:stop] for n, v in known.items()}
        return NetworkOutput(**cut)  # type: ignore[arg-type]


class FusionNetwork(nn.Module):
    """UMCA fusion of projected audio, text and video frames with MIA."""

    mixtures: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        d, f, drop = spec.hidden_dim, spec.fused_dim, spec.dropout
        self.pooled_dropout = Dropout(spec.input_dropout)
        self.utterance = nn.ModuleList(mlp(d, d, d, drop) for _ in MODALITIES)
        self.weighting = nn.Sequential(*mlp(3 * d, d, d, drop), nn.Linear(d, 3))
        unified = spec.fusion == "umca"
        if unified:
            self.queries = UnifiedQueries(d, drop)
            self.cross = nn.ModuleList(CrossAttention(d, f, drop) for _ in MODALITIES)
            self.query_weighting = nn.Sequential(
                *mlp(QUERIES * f, d, f, drop), nn.Linear(f, QUERIES)
            )
        self.concatenation = None if unified else mlp(len(MODALITIES) * d, d, f, drop)
        self.valence = nn.Linear(f, 1)
        self.rnc = nn.Sequential(
            nn.Linear(f, spec.rnc_dim), nn.ReLU(), nn.Linear(spec.rnc_dim, spec.rnc_dim)
        )
        imagined = {"off": 0, "text": 1, "any": len(MODALITIES)}[spec.mia]
        self.query_imagination = nn.ModuleList(
            ImaginationAutoencoder(d, d // 2, spec.mia_residual) for _ in range(imagined)
        )
        self.cross_imagination = (
            ImaginationAutoencoder(f, f // 2, spec.mia_residual) if imagined and unified else None
        )
        self.spread = nn.Linear(f, 2) if spec.quantiles is not None else None
        self.register_buffer("mixtures", torch.tensor(MIXTURES, dtype=torch.float32), False)

    def forward(
        self,
        frames: Sequence[ProjectedFrames],
        masks: Sequence[Tensor],
        simulated: Tensor,
        flows: Sequence[int] = (1, 1, 1),
    ) -> NetworkOutput:
        """Run one flow, or several that share a modality's frames.

        Args:
            frames: of [B, T], per modality.
            masks: [B, T] bool per modality, True where a frame counts. A row without any lacks
                the modality.
            simulated: [B] bool, the text is simulated.
            flows: per modality, how many flows share its frames, which are then [B / flows, T];
                B counts all rows of the first flow, then of the second, ...
        """
        masks = [mask[:, None, :] for mask in masks]  # 3 x [B, 1, T]
        there = [mask.to(frames[0].values.dtype).amax(2) for mask in masks]  # 3 x [B, 1], 0 or 1
        pooled = [
            attention_pooling(values, mask) for values, mask in zip(frames, masks, strict=True)
        ]
        if max(flows) > 1:
            there = [given.repeat(n, 1) for given, n in zip(there, flows, strict=True)]
            pooled = [values.repeat(n, 1) for values, n in zip(pooled, flows, strict=True)]
        present = torch.cat(there, dim=1) > 0  # [B, 3]

        # 2-3. Attention pooling, utterance vectors h_m.
        pooled = [self.pooled_dropout(values) for values in pooled]
        h = [layers(values) for layers, values in zip(self.utterance, pooled, strict=True)]
        h = self._imagine_queries(h, there, simulated)  # 3 x [B, d]

        # 4. Modality weights, and with them the mixtures behind the unified queries.
        seen = torch.cat([values * given for values, given in zip(h, there, strict=True)], dim=1)
        weights = self._weights(seen, present)  # [B, 3]
        if self.concatenation is not None:
            return self._concatenated(self.concatenation, h, weights, present)

        # 5. Seven queries: fused, at, tv, av, a, t, v.
        stacked = torch.stack(h)  # [3, B, d]
        weighted = stacked * weights.T[:, :, None]
        mixed = torch.einsum("qm,mbd->qbd", self.mixtures, weighted)
        queries = self.queries(torch.cat([mixed, stacked]))  # [B, 7, d]

        # 6. Every query attends over every modality.
        crossed = [
            attend(queries, values, mask, n)
            for attend, values, mask, n in zip(self.cross, frames, masks, flows, strict=True)
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

    def _concatenated(
        self, layers: nn.Module, h: list[Tensor], weights: Tensor, present: Tensor
    ) -> NetworkOutput:
        """The ablation without UMCA: utterance vectors side by side, an imagined one as it is."""
        fused = layers(torch.cat(h, dim=1))
        valence, low, high = self._score(fused, present.any(1, keepdim=True))
        nothing = fused.new_zeros((len(fused), QUERIES, self.spec.fused_dim))
        return NetworkOutput(valence, fused, self.rnc(fused), h[TEXT], nothing, weights, low, high)

    def _imagine_queries(
        self, h: list[Tensor], there: list[Tensor], simulated: Tensor
    ) -> list[Tensor]:
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
        known = [values * given for values, given in zip(h, there, strict=True)]
        result = []
        for index, autoencoder in enumerate(self.query_imagination):
            wanted = there[index] == 0
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


def _bound(value: Tensor) -> Tensor:
    """Keep within [-3, 3] smoothly, with slope 1 at 0: training never meets a flat wall."""
    return VALENCE_BOUND * torch.tanh(value / VALENCE_BOUND)
