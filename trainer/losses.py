"""Losses of double-flow self-distillation (paper, section 2.4) and of what the product adds to it.

Every loss takes a validity mask where a flow may not exist for a sample: a clip without text
has no complete flow, a transcript without a voice or a face has no missing-text flow.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fusion import NetworkOutput

EPSILON = 1e-8
SAME_DISTANCE = 1e-4
"""Label distances that differ by less are equal: thirds are not exact in float32."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the defaults are the paper's fullest setting."""

    complete: float = 0.5
    missing: float = 0.5
    text_query: float = 0.1
    text_cross: float = 0.7
    fused: float = 0.13
    rnc: float = 0.5
    quantile: float = 0.25
    """Pinball loss of the uncertainty head (ours)."""
    rnc_temperature: float = 2.0


@dataclass(frozen=True)
class LossTerms:
    """The weighted total and each unweighted term, for the log."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    def plus(self, name: str, weight: float, value: Tensor) -> LossTerms:
        """With one more term."""
        return LossTerms(self.total + weight * value, {**self.parts, name: value.detach()})


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of [B, ...] over the valid samples; 0, with a gradient of 0, if there are none."""
    per_sample = values.flatten(1).mean(1)
    kept = torch.where(valid, per_sample, torch.zeros_like(per_sample))
    return kept.sum() / valid.sum().clamp(min=1)


def rmse(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Root of the mean squared error over the valid samples.

    The published code has NaN gradients on identical inputs; below ``EPSILON`` ours are 0.
    """
    return masked_mean((prediction - target).square(), valid).clamp(min=EPSILON).sqrt()


def rank_n_contrast(features: Tensor, labels: Tensor, temperature: float = 2.0) -> Tensor:
    """Rank-N-Contrast (arXiv 2210.01189) without a loop, in O(n^2) memory.

    For anchor i and positive j the negatives are all k with |y_i - y_k| >= |y_i - y_j|, where
    distances closer than ``SAME_DISTANCE`` count as equal, as in the published code. Sorted by
    falling label distance they are a prefix, so one cumulative log-sum-exp per anchor holds
    every denominator; ties share that of the last of them. About 10 n^2 floats are alive at
    once: 2.6 MB at n = 256 (batch 128, two views), where a mask over triples takes 67 MB.

    Args:
        features: [n, d], both views stacked.
        labels: [n].
        temperature: divides the similarities (negative L2 distances).

    Returns:
        The mean over all n (n - 1) pairs; 0 for fewer than two samples.
    """
    n = features.shape[0]
    if n < 2:
        return features.sum() * 0.0
    off_diagonal = ~torch.eye(n, dtype=torch.bool, device=features.device)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    similarity = (-distance / temperature)[off_diagonal].view(n, n - 1)
    gap = (labels[:, None] - labels[None, :]).abs()[off_diagonal].view(n, n - 1)
    gap, order = gap.sort(dim=1, descending=True)
    similarity = similarity.gather(1, order)
    log_sums = torch.logcumsumexp(similarity, dim=1)
    last_of_ties = torch.searchsorted(-gap, SAME_DISTANCE - gap, right=True) - 1
    return (log_sums.gather(1, last_of_ties) - similarity).mean()


def pinball(low: Tensor, high: Tensor, labels: Tensor, quantiles: tuple[float, float]) -> Tensor:
    """Quantile loss of an interval's two ends, [B] each, per sample [B]."""
    losses = []
    for end, quantile in zip((low, high), quantiles, strict=True):
        error = labels - end
        losses.append(torch.maximum(quantile * error, (quantile - 1) * error))
    return losses[0] + losses[1]


def double_flow(
    complete: NetworkOutput,
    missing: NetworkOutput,
    labels: Tensor,
    has_complete: Tensor,
    has_missing: Tensor,
    weights: LossWeights,
    quantiles: tuple[float, float] | None,
) -> LossTerms:
    """Loss of one batch that went through both flows.

    Args:
        complete: outputs of the complete flow (real text).
        missing: outputs of the missing-text flow (simulated text or none).
        labels: [B] valence.
        has_complete: [B] bool, the complete flow exists for the sample.
        has_missing: [B] bool, the missing-text flow exists for the sample.
        weights: of the terms.
        quantiles: of the uncertainty head, None without one.

    The complete flow teaches the missing one: its text query and text cross states are detached
    (stop-gradient), its fused representation is not, as in the paper.
    """
    both = has_complete & has_missing
    views = torch.cat([complete.rnc[has_complete], missing.rnc[has_missing]])
    view_labels = torch.cat([labels[has_complete], labels[has_missing]])
    target = labels[:, None]
    parts = {
        "complete": masked_mean((_filled(complete.valence) - target).square(), has_complete),
        "missing": masked_mean((_filled(missing.valence) - target).square(), has_missing),
        "text_query": rmse(missing.text_query, complete.text_query.detach(), both),
        "text_cross": rmse(missing.text_cross, complete.text_cross.detach(), both),
        "fused": rmse(missing.fused, complete.fused, both),
        "rnc": rank_n_contrast(views, view_labels, weights.rnc_temperature),
    }
    if quantiles is not None:
        flows = ((complete, has_complete), (missing, has_missing))
        per_flow = [
            masked_mean(_interval_loss(output, labels, quantiles)[:, None], valid)
            for output, valid in flows
        ]
        parts["quantile"] = 0.5 * (per_flow[0] + per_flow[1])
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return LossTerms(total, {name: value.detach() for name, value in parts.items()})


def distillation(
    simulated: Tensor, simulated_mask: Tensor, text: Tensor, text_mask: Tensor, valid: Tensor
) -> Tensor:
    """Distance of the student's frames to the text encoder's states.

    The student has no token boundaries, so a clip's states are spread evenly over its frames
    (linear interpolation over the clip's duration); half of the loss is frame by frame, half on
    the means, which is what attention pooling mostly sees. Each clip counts alike, and none by
    the padding behind it.

    Args:
        simulated: [B, Ts, D].
        simulated_mask: [B, Ts] bool, a clip's frames first, then padding.
        text: [B, Tt, D] states of the real transcript.
        text_mask: [B, Tt] bool, likewise.
        valid: [B] bool, the clip has both a voice and a transcript.
    """
    valid = valid & simulated_mask.any(1) & text_mask.any(1)
    if not bool(valid.any()):
        return simulated.sum() * 0.0
    simulated, text = simulated[valid], text[valid]
    heard, read = simulated_mask[valid], text_mask[valid]
    frames, lengths = heard.sum(1, keepdim=True), read.sum(1, keepdim=True)
    place = (torch.arange(simulated.shape[1], device=text.device) + 0.5) / frames * lengths - 0.5
    place = torch.minimum(place.clamp(min=0), (lengths - 1).to(place.dtype))  # [B, Ts]
    below = place.floor().long()
    above = torch.minimum(below + 1, lengths - 1)
    share = (place - below)[..., None]
    index = below[..., None].expand(-1, -1, text.shape[2])
    index_above = above[..., None].expand(-1, -1, text.shape[2])
    target = text.gather(1, index) * (1 - share) + text.gather(1, index_above) * share
    distance = F.smooth_l1_loss(simulated, target, reduction="none").mean(2)
    counted = (distance * heard).sum(1) / frames[:, 0]
    means = (text * read[..., None]).sum(1) / lengths
    own_means = (simulated * heard[..., None]).sum(1) / frames
    return (counted + 1 - F.cosine_similarity(own_means, means, dim=1)).mean()


def naming(scores: Tensor, emotions: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy of the emotions' shares, a twentieth of them spread over all.

    Args:
        scores: [B, E] unnormalised.
        emotions: [B, E] shares; zeros where unknown.
        valid: [B] bool, the emotions are known.
    """
    return masked_mean(
        -(F.log_softmax(scores, 1) * (0.95 * emotions + 0.05 / emotions.shape[1])).sum(1)[:, None],
        valid,
    )


def probing(answers: Tensor, labels: Tensor, emotions: Tensor, valid: Tensor) -> Tensor:
    """Loss of an encoder's own answers: squared error of the valence, and the emotions' naming.

    Args:
        answers: [B, 1 + E], the valence first.
        labels: [B] valence.
        emotions: [B, E] shares; zeros where unknown.
        valid: [B] bool, the clip has the encoder's modality.
    """
    error = (answers[:, :1] - labels[:, None]).square()
    named = valid & (emotions.sum(1) > 0)
    return masked_mean(error, valid) + naming(answers[:, 1:], emotions, named)


def _interval_loss(output: NetworkOutput, labels: Tensor, quantiles: tuple[float, float]) -> Tensor:
    if output.low is None or output.high is None:
        raise ValueError("quantiles are given but the network has no uncertainty head")
    low, high = _filled(output.low.flatten()), _filled(output.high.flatten())
    return pinball(low, high, labels, quantiles)


def _filled(values: Tensor) -> Tensor:
    """Values without the NaN of samples that have no modality: NaN * 0 is NaN in a gradient."""
    return torch.where(values.isnan(), torch.zeros_like(values), values)
