"""Cuts a due window out of a stream: what counts of it, and how much of it is covered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.inference.grid import Due
from engine.inference.stream import StreamState
from engine.inference.text.transcript import Word
from engine.inference.tracks.rings import Frames
from engine.settings import InferenceSettings
from engine.wire.messages import TextSource
from models.spec import MODALITIES


@dataclass(frozen=True, slots=True)
class Window:
    """One cut window: projected frames [T, P] of each present modality, None of an absent one."""

    stream: StreamState
    due: Due
    frames: dict[str, Frames | None]
    coverage: dict[str, float]
    voiced: float
    """Share of the sound in the window that is voiced."""
    text_source: TextSource
    text_quality: float | None
    """How surely the words were understood, 0 to 1; None where nothing was read."""
    words: tuple[Word, ...]
    """What was understood, while it counts."""
    clarity: float
    """How much of the face is seen, 0 to 1, on average; 1 without one."""
    is_new: bool
    """Whether any of its modalities brought evidence since the last window."""
    evidence: float
    """Voice, face and words, each as a share of the window, summed."""

    @property
    def pattern(self) -> str:
        """Present modalities as calibration names them, such as ``audio+simulated_text``."""
        simulated = self.text_source == "simulated"
        names = {"text": "simulated_text"} if simulated else {}
        present = (name for name in MODALITIES if self.frames[name] is not None)
        return "+".join(names.get(name, name) for name in present)


def cut(state: StreamState, due: Due, settings: InferenceSettings) -> Window:
    """Cut a due window out of what was encoded of its stream."""
    start_ns, end_ns = due.start_ns, due.end_ns
    audio, video, given = state.audio, state.video, state.text
    heard_ns = audio.heard.covered_ns(start_ns, end_ns)
    voiced_ns = audio.voiced.covered_ns(start_ns, end_ns)
    coverage = {
        "audio": heard_ns / (end_ns - start_ns),
        "video": video.seen.coverage(start_ns, end_ns),
        "text": 0.0,
    }
    frames: dict[str, Frames | None] = dict.fromkeys(MODALITIES)
    quality: float | None = None
    words: tuple[Word, ...] = ()
    least_text = settings.min_coverage
    recent_ns = max(start_ns, end_ns - settings.absent_after_ms * 1_000_000)
    # Silence is not evidence: without a voice neither the sound nor what it simulates counts.
    if audio.voiced.covered_ns(recent_ns, end_ns) and audio.frames is not None:
        frames["audio"] = audio.frames.between(start_ns, end_ns)
        if (simulated := audio.simulated(start_ns, end_ns)) is not None:
            frames["text"], coverage["text"] = simulated
        if state.words is not None and (known := state.words.at(end_ns)) is not None:
            passage, frames["text"] = known
            coverage["text"] = _share(passage.spans, start_ns, end_ns)
            quality = passage.quality
            if coverage["text"] > 0:
                words, least_text = passage.words, 0.0  # a short word may say everything
    gone = video.gone(settings.face_gone_ms * 1_000_000)
    if not gone and video.seen.covered_ns(recent_ns, end_ns) and video.frames is not None:
        frames["video"] = video.frames.between(start_ns, end_ns)
    source: TextSource = "simulated"
    given_ns = given.spans.covered_ns(start_ns, end_ns)
    if given_ns and 2 * given_ns >= voiced_ns:
        frames["text"] = given.frames.between(start_ns, end_ns)
        coverage["text"] = given_ns / (end_ns - start_ns)
        source, quality, words, least_text = "given", None, (), settings.min_coverage
    for name, rows in frames.items():
        least = least_text if name == "text" else settings.min_coverage
        if rows is None or not len(rows) or coverage[name] < least:
            frames[name] = None
    if frames["text"] is None:
        source, words = "none", ()
    voiced = min(voiced_ns / heard_ns, 1.0) if heard_ns else 0.0
    is_new = any(frames[name] is not None for name in state.news(end_ns))
    clear = video.clarity(start_ns, end_ns)
    shares = coverage | {"audio": voiced_ns / (end_ns - start_ns)}
    evidence = sum(share for name, share in shares.items() if frames[name] is not None)
    return Window(
        state, due, frames, coverage, voiced, source, quality, words, clear, is_new, evidence
    )


def _share(spans: Sequence[tuple[int, int]], start_ns: int, end_ns: int) -> float:
    """Share of a window that spans cover."""
    covered = sum(max(0, min(stop, end_ns) - max(start, start_ns)) for start, stop in spans)
    return min(covered / (end_ns - start_ns), 1.0)
