"""What each modality alone says: the same network, with the others masked. Pure.

Asked in the micro-batch of the window itself. With several streams a stream is asked less often, so
that the extra rows stay a bounded share of the fusion (docs/performance.md has the figures); what
was said last holds until it is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from models.spec import MODALITIES

if TYPE_CHECKING:
    from engine.inference.window import Window

STRIDES = ((1, 1), (3, 2), (7, 4))
"""(streams up to, hops from one explanation of a stream to the next)."""
LAST_STRIDE = 8


@dataclass(frozen=True, slots=True)
class Said:
    """A valence with its 90 % interval, low <= valence <= high."""

    valence: float
    low: float
    high: float


def present(window: Window) -> list[str]:
    """Names of the modalities that a window holds."""
    return [name for name in MODALITIES if window.frames[name] is not None]


def alone(window: Window, name: str) -> Window:
    """Return the window with every modality but one masked."""
    frames = {n: rows if n == name else None for n, rows in window.frames.items()}
    source = window.text_source if name == "text" else "none"
    return replace(window, frames=frames, text_source=source)


def is_due(place: int, streams: int) -> bool:
    """Whether the window at a place on its stream's grid is explained, among so many streams."""
    fitting = (stride for most, stride in STRIDES if streams <= most)
    return place % next(fitting, LAST_STRIDE) == 0


def contradict(said: Iterable[Said]) -> bool:
    """Whether two modalities are of different signs, and their intervals do not touch."""
    return any(
        a.valence * b.valence < 0 and (a.low > b.high or b.low > a.high)
        for a, b in combinations(said, 2)
    )
