"""Balance: how often clips of either sign are seen, where a corpus has more of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainer.data.clips import StoredClip


def balanced(clips: Sequence[StoredClip], corpora: Mapping[str, float]) -> tuple[StoredClip, ...]:
    """Weigh the clips of some corpora so that their labels are 0 on average, or nearer to it.

    Actors play five bad moods and one or two good ones. What tells a network little is drawn
    towards the mean of what it was trained on: with such a mean a plain voice sounds sad.

    Args:
        clips: of one split.
        corpora: names of those to balance, and how far: 1 is all the way, 0 not at all. One that
            has clips of one sign only stays as it is.

    Returns:
        The clips in order. Neutral ones and the sum of a corpus's weights are as before.
    """
    factors = {
        name: _factors([clip for clip in clips if clip.corpus == name], share)
        for name, share in corpora.items()
    }
    return tuple(
        replace(clip, weight=clip.weight * factors[clip.corpus][_sign(clip)])
        if clip.corpus in factors
        else clip
        for clip in clips
    )


def _sign(clip: StoredClip) -> int:
    return (clip.valence > 0) - (clip.valence < 0)


def _factors(clips: Sequence[StoredClip], share: float) -> dict[int, float]:
    """What the weights of negative, neutral and positive clips are multiplied by."""
    pull, seen = {-1: 0.0, 1: 0.0}, {-1: 0.0, 1: 0.0}
    for clip in clips:
        if sign := _sign(clip):
            pull[sign] += clip.weight * abs(clip.valence)
            seen[sign] += clip.weight
    if not all(pull.values()):
        return {-1: 1.0, 0: 1.0, 1: 1.0}
    asked = {sign: pull[sign] ** -share for sign in pull}
    scale = sum(seen.values()) / sum(seen[sign] * asked[sign] for sign in seen)
    return {-1: scale * asked[-1], 0: 1.0, 1: scale * asked[1]}
