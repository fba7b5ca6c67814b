"""A score made by hand, for tests that care about a few of its fields."""

from __future__ import annotations

from engine.wire.messages import (
    Clock,
    Envelope,
    Interval,
    Latency,
    Modalities,
    ModalityState,
    ModelInfo,
    Score,
    Status,
    TextState,
    WorkerKind,
    WorkerState,
)

HERE = Clock("here", "boot-1")
MODEL = ModelInfo("example", "1", "0" * 64, "onnx:cpu", "float32", True)
PRESENT, ABSENT = ModalityState(True, 1.0, 0.5, 0.9), ModalityState(False, 0.0, 0.0)


def make_score(
    stream: str = "main",
    seq: int = 0,
    t_s: float = 100.0,
    valence: float | None = 0.5,
    *,
    clock: Clock = HERE,
    model: ModelInfo = MODEL,
    dropped: int = 0,
    mark: str | None = None,
    latency_ms: float = 10.0,
) -> Score:
    end_ns = int(t_s * 1e9)
    seen = ABSENT if valence is None else PRESENT
    return Score(
        envelope=Envelope(stream, seq, max(0, end_ns - 4 * 10**9), end_ns, end_ns + 10**7, clock),
        valence=valence,
        valence_window=valence,
        interval=None if valence is None else Interval(max(-3, valence - 1), min(3, valence + 1)),
        trend=0.0,
        trigger="hop",
        reason="no_voice_and_no_face" if valence is None else None,
        speaking=valence is not None,
        faces=0 if valence is None else 1,
        modalities=Modalities(audio=seen, video=seen, text=ABSENT),
        transcript=TextState(source="none"),
        latency_ms=Latency(1.0, 2.0, 3.0, 4.0, latency_ms),
        dropped=dropped,
        mark=mark,
        model=model,
    )


def make_status(
    name: str = "inference",
    state: WorkerState = "running",
    worker: WorkerKind = "inference",
    counters: dict[str, int] | None = None,
    gauges: dict[str, float] | None = None,
) -> Status:
    return Status(Envelope(name, 0, 0, 0, 0, HERE), worker, state, "", counters or {}, gauges or {})
