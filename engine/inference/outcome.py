"""The score of a window, as the wire carries it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.inference.explanation import Said, contradict
from engine.inference.forward import Fused
from engine.inference.rolling import Rolling
from engine.inference.text import transcript
from engine.inference.window import Window
from engine.wire.messages import (
    Envelope,
    Interval,
    Latency,
    Modalities,
    ModalityState,
    ModelInfo,
    Score,
    TextState,
    Word,
)
from models.spec import MODALITIES

MAX_WORDS, MAX_WORD = 256, 256
FACES_NS = 1_000_000_000
"""Faces that were seen longer ago than this are not counted as before the camera."""
MS = 1e6


@dataclass(frozen=True, slots=True)
class Outcome:
    """A window with what came of it."""

    window: Window
    fused: Fused | None
    """What the network says; None without a modality."""
    said: Mapping[str, Said]
    """What each present modality says by itself, as far as it was asked."""
    rolling: Rolling
    seq: int
    mark: str | None
    speaking: bool
    """Whether there is a voice at the window's end."""
    now_ns: int
    """When it was scored, on our clock."""
    stages_ns: tuple[int, int]
    """How long encoding and fusing took."""


def score_of(outcome: Outcome, model: ModelInfo, publishes_words: bool) -> Score:
    """Make the score of a window."""
    window, fused, said = outcome.window, outcome.fused, outcome.said
    state, start_ns, end_ns = window.stream, window.due.start_ns, window.due.end_ns
    ended = state.audio.voiced.ended_in(end_ns - state.hop_ns, end_ns)
    return Score(
        envelope=Envelope(
            stream=state.name,
            seq=outcome.seq,
            # A clip begins at 0: its first windows are those of a stream that has just begun.
            t_start_ns=max(0, start_ns),
            t_end_ns=end_ns,
            t_sent_ns=state.local_ns(outcome.now_ns) + sum(outcome.stages_ns),
            clock=state.clock,
            epoch=state.epoch,
        ),
        valence=outcome.rolling.valence,
        valence_window=None if fused is None else fused.valence,
        interval=outcome.rolling.interval,
        trend=outcome.rolling.trend_per_s,
        trigger="speech_end" if ended and not outcome.speaking else "hop",
        reason=outcome.rolling.reason,
        modalities=Modalities(
            audio=_state_of(outcome, "audio", window.voiced),
            video=_state_of(outcome, "video", state.video.quality(start_ns, end_ns)),
            text=_state_of(outcome, "text", window.text_quality),
        ),
        mixed=contradict(said.values()) if len(said) > 1 else None,
        transcript=TextState(
            source=window.text_source,
            words=_published(window.words) if publishes_words else None,
        ),
        speaking=outcome.speaking,
        faces=state.video.faces if state.video.progress.is_live(end_ns, FACES_NS) else 0,
        latency_ms=_latency(outcome),
        dropped=state.dropped,
        model=model,
        mark=outcome.mark,
    )


def _latency(outcome: Outcome) -> Latency:
    state = outcome.window.stream
    sample_ns, arrived_ns = state.arrival(outcome.window.due.end_ns)
    transport = (state.local_ns(arrived_ns) - sample_ns) / MS
    wait = (outcome.now_ns - arrived_ns) / MS
    encode, fuse = (stage / MS for stage in outcome.stages_ns)
    return Latency(
        transport=transport,
        wait=wait,
        encode=encode,
        fuse=fuse,
        total=transport + wait + encode + fuse,
    )


def _state_of(outcome: Outcome, name: str, quality: float | None) -> ModalityState:
    window, fused = outcome.window, outcome.fused
    weight = 0.0 if fused is None else fused.weights[MODALITIES.index(name)]
    own = outcome.said.get(name)
    return ModalityState(
        present=window.frames[name] is not None,
        coverage=min(window.coverage[name], 1.0),
        weight=weight,
        quality=quality,
        valence=None if own is None else own.valence,
        interval=None if own is None else Interval(own.low, own.high),
    )


def _published(words: Sequence[transcript.Word]) -> tuple[Word, ...] | None:
    """Words as a score carries them, the newest; None where none counts."""
    return (
        tuple(
            Word(word.text[:MAX_WORD], word.t_start_ns, word.t_end_ns, word.tentative)
            for word in words[-MAX_WORDS:]
        )
        or None
    )
