"""The core with a small backend in numpy, whose every frame can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from engine.inference.core import InferenceCore
from engine.inference.rolling import Observation, Rolling, RollingValence
from engine.settings import InferenceSettings
from engine.wire.messages import Audio, Clock, Envelope, Score, Text, Video
from models.calibration import Calibration, PatternCalibration
from models.spec import (
    PROJECTIONS,
    BundleConfig,
    ImageEncoderSpec,
    NetworkSpec,
    SequenceEncoderSpec,
)

MS = 1_000_000
T0 = 5_000_000 * MS
HERE = Clock("here", "boot-1")
DIM = 3


CALIBRATION = Calibration(
    patterns={
        pattern: PatternCalibration(margin=0.5, clips=1)
        for pattern in ("audio+simulated_text", "audio+simulated_text+video", "video")
    }
)


@dataclass
class Network:
    """A backend: frames are means over the encoder's context, the valence is tanh of means."""

    config: BundleConfig
    name: str = "numpy"
    device: str = "cpu"
    precision: str = "float32"
    at_once: int = 1
    graphs: frozenset[str] = frozenset(
        {"audio_encoder", "text_simulation", "video_encoder", *PROJECTIONS, "fusion"}
    )

    def __post_init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def warm_up(self) -> None:
        pass

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph == "fusion":
            return self.fuse(inputs)
        x = inputs["input"]
        self.calls.append((graph, x.shape))
        assert x.dtype == np.float32
        if graph in PROJECTIONS:
            assert x.shape[1] == DIM
            return {"frames": np.repeat(x.mean(1)[:, None], self.config.network.projected_dim, 1)}
        if graph == "video_encoder":
            return {"frames": np.repeat(x.mean((1, 2, 3))[:, None], DIM, 1)}
        spec = getattr(self.config, graph)
        reach = spec.left_context + spec.stride
        count = (x.shape[1] - spec.left_context) // spec.stride
        ends = x.shape[1] - spec.stride * np.arange(count - 1, -1, -1)
        frames = np.stack([x[:, end - reach : end].mean((1, 2)) for end in ends], axis=1)
        return {"frames": np.repeat(frames[..., None] / 10, DIM, 2).astype(np.float32)}

    def fuse(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append(("fusion", inputs["audio"].shape))
        means, weights = [], []
        for name in ("audio", "text", "video"):
            x, mask = inputs[name], inputs[f"{name}_mask"]
            assert mask.dtype == np.bool_
            count = mask.sum(1)
            means.append((x[..., 0] * mask).sum(1) / np.maximum(count, 1))
            weights.append(count > 0)
        present = np.stack(weights, 1).astype(np.float32)
        with np.errstate(invalid="ignore"):
            weight = present / present.sum(1, keepdims=True)
            valence = np.tanh((np.stack(means, 1) * weight).sum(1)).astype(np.float32)
        return {
            "valence": valence, "low": valence - 0.2, "high": valence + 0.2,
            "weights": weight, "fused": np.zeros((len(valence), 4), np.float32),
        }  # fmt: skip


def config() -> BundleConfig:
    return BundleConfig(
        name="hand", version="1", trained=False, licence="none", window_ms=4_000,
        network=NetworkSpec(audio_dim=DIM, text_dim=DIM, video_dim=DIM),
        audio_encoder=SequenceEncoderSpec(
            kind="embedded", input="log_mel", dim=DIM, stride=4, left_context=12, causal=True
        ),
        text_simulation=SequenceEncoderSpec(
            kind="embedded", input="audio_frames", dim=DIM, stride=5, left_context=5, causal=True
        ),
        video_encoder=ImageEncoderSpec(kind="embedded", dim=DIM, size_px=48, channels_in=1),
        text_encoder=None, graphs={}, files={},
    )  # fmt: skip


def make_core(**options: object) -> tuple[InferenceCore, Network]:
    bundle = SimpleNamespace(config=config(), calibration=CALIBRATION, sha256="f" * 64)
    backend = Network(config())
    settings = options.pop("settings", InferenceSettings())
    ticks = iter(range(0, 10**12, MS))
    core = InferenceCore(bundle, backend, settings, timer=lambda: next(ticks), **options)
    return core, backend


def envelope(start_ms: float, end_ms: float, seq: int, stream: str = "s", **other: object):
    start, end = T0 + int(start_ms * MS), T0 + int(end_ms * MS)
    return Envelope(**{
        "stream": stream, "seq": seq, "t_start_ns": start, "t_end_ns": end,
        "t_sent_ns": end, "clock": HERE, **other,
    })  # fmt: skip


def sound(seq: int, voiced: bool = True, stream: str = "s", at_ms: float | None = None) -> Audio:
    start = 40 * seq if at_ms is None else at_ms
    samples = np.random.default_rng(seq).integers(-9_000, 9_000, 640).astype(np.int16)
    return Audio(envelope(start, start + 40, seq, stream), samples, (voiced, voiced), 20, -20.0)


def face(seq: int, stream: str = "s", there: bool = True, at_ms: float | None = None) -> Video:
    start = 100 * seq if at_ms is None else at_ms
    crop = np.random.default_rng(seq).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    return Video(
        envelope(start, start + 100, seq, stream),
        faces=int(there), crop=crop if there else None, detector_score=0.8 if there else None,
    )  # fmt: skip


def play(core: InferenceCore, messages: list) -> list[Score]:
    scores: list[Score] = []
    for message in sorted(messages, key=lambda m: m.envelope.t_end_ns):
        now = message.envelope.t_end_ns
        while (deadline := core.next_deadline_ns()) is not None and deadline <= now:
            scores += core.pop_ready(deadline)
        core.push(message, now)
        scores += core.pop_ready(now)
    return scores


def test_windows_follow_the_grid_and_say_what_they_rest_on() -> None:
    core, _ = make_core()
    scores = play(core, [sound(i) for i in range(150)] + [face(i) for i in range(60)])
    ends = [(score.envelope.t_end_ns - T0) // MS for score in scores]
    assert ends == list(range(500, 6_001, 500))
    assert [score.envelope.seq for score in scores] == list(range(12))
    last = scores[-1]
    assert last.audio.present
    assert last.video.present
    assert last.text.present
    assert last.text_source == "simulated"
    assert last.audio.coverage == pytest.approx(1.0)
    assert last.video.coverage == pytest.approx(1.0)
    assert last.audio.quality == pytest.approx(1.0)
    assert last.video.quality == pytest.approx(0.8)
    assert last.audio.weight + last.text.weight + last.video.weight == pytest.approx(1.0)
    assert scores[0].audio.coverage == pytest.approx(0.12)
    assert last.speaking
    assert last.faces == 1
    assert not last.model.trained
    assert last.model.backend == "numpy:cpu"
    assert last.interval is not None
    assert last.interval.low <= last.valence <= last.interval.high
    assert last.interval.high - last.interval.low == pytest.approx(1.4, abs=1e-3)
    assert last.latency_ms.total == pytest.approx(
        last.latency_ms.transport + last.latency_ms.wait + 2.0
    )


def test_every_sample_is_encoded_once_and_the_frames_are_those_of_the_whole() -> None:
    core, backend = make_core()
    chunks = [sound(i) for i in range(150)]
    play(core, chunks)
    new_rows = [n - 12 for graph, (_, n, _) in calls(backend, "audio_encoder")]
    assert sum(new_rows) == 600
    from models.encoders.streaming import SequenceStream
    from models.preprocessing import log_mel, mel_of_silence, to_float

    mel = log_mel(to_float(np.concatenate([chunk.samples for chunk in chunks])))
    stream = SequenceStream(config().audio_encoder, mel_of_silence())
    stream.push(mel)
    whole = backend.run("audio_encoder", {"input": stream.pending()[None]})["frames"][0]
    ring = core._roster["s"].audio.frames
    kept = ring.between(T0 + 2_000 * MS, T0 + 6_000 * MS)
    projected = backend.run("audio_projection", {"input": whole[-100:]})["frames"]
    assert kept.shape == projected.shape == (100, config().network.projected_dim)
    np.testing.assert_allclose(kept, projected, atol=1e-4)


def calls(backend: Network, graph: str) -> list[tuple[str, tuple[int, ...]]]:
    return [call for call in backend.calls if call[0] == graph]


def play_in_batches(core: InferenceCore, messages: list, step_ms: int = 100) -> list[Score]:
    """Push what comes within a step, then score: what is due of several streams goes together."""
    scores: list[Score] = []
    waiting = sorted(messages, key=lambda m: m.envelope.t_end_ns)
    now = T0
    while waiting:
        now += step_ms * MS
        while waiting and waiting[0].envelope.t_end_ns <= now:
            core.push(waiting.pop(0), now)
        scores += core.pop_ready(now)
    return scores


def test_a_streams_scores_do_not_depend_on_its_companions() -> None:
    alone, _ = make_core()
    own = [sound(i) for i in range(100)] + [face(i) for i in range(40)]
    expected = play_in_batches(alone, own)
    together, backend = make_core()
    messages = [sound(i) for i in range(100)] + [face(i) for i in range(40)]
    messages += [sound(i, stream="t", at_ms=40 * i + 0.01) for i in range(60)]
    messages += [face(i, stream="u") for i in range(30)]
    scores = [s for s in play_in_batches(together, messages) if s.envelope.stream == "s"]
    assert [s.valence_window for s in scores] == pytest.approx(
        [s.valence_window for s in expected], abs=1e-5
    )
    assert max(shape[0] for _, shape in calls(backend, "fusion")) >= 3, "they share a batch"


def test_streams_that_are_due_together_are_one_batch() -> None:
    core, backend = make_core()
    for index in range(5):
        for i in range(12):
            core.push(sound(i, stream=f"s{index}"), T0 + 480 * MS)
    for index in range(5):
        core.push(sound(12, stream=f"s{index}"), T0 + 520 * MS)
    scores = core.pop_ready(T0 + 520 * MS)
    assert len(scores) == 5
    assert [shape[0] for _, shape in calls(backend, "fusion")] == [5]
    assert [shape[0] for _, shape in calls(backend, "audio_encoder")] == [5]


def test_every_frame_is_projected_once() -> None:
    core, backend = make_core()
    play(core, [sound(i) for i in range(150)] + [face(i) for i in range(60)])
    projected = {
        graph: sum(shape[0] for _, shape in calls(backend, graph)) for graph in PROJECTIONS
    }
    assert projected == {"audio_projection": 150, "text_projection": 30, "video_projection": 60}
    assert {shape[2] for _, shape in calls(backend, "fusion")} == {config().network.projected_dim}


def test_silence_is_not_evidence() -> None:
    core, backend = make_core()
    scores = play(core, [sound(i, voiced=False) for i in range(200)])
    assert all(score.valence is None and score.interval is None for score in scores)
    assert scores[0].reason == "warming_up"
    assert scores[-1].reason == "no_voice_and_no_face"
    assert not scores[-1].audio.present
    assert scores[-1].audio.coverage == pytest.approx(1.0)
    assert scores[-1].text_source == "none"
    assert not calls(backend, "fusion")


def test_a_face_without_a_voice_is_scored_on_the_face_alone() -> None:
    core, _ = make_core()
    messages = [sound(i, voiced=False) for i in range(100)] + [face(i) for i in range(40)]
    last = play(core, messages)[-1]
    assert (last.audio.present, last.text.present, last.video.present) == (False, False, True)
    assert (last.audio.weight, last.text.weight, last.video.weight) == (0.0, 0.0, 1.0)
    assert last.valence is not None


def test_a_valence_is_held_with_a_growing_interval_and_then_given_up() -> None:
    core, _ = make_core(settings=InferenceSettings(hold_s=3.0))
    messages = [face(i, there=i < 20) for i in range(120)]
    scores = play(core, messages)
    before = [s for s in scores if s.envelope.t_end_ns - T0 <= 2_000 * MS]
    held = [s for s in scores[len(before) :] if s.valence is not None]
    assert {round(s.valence, 4) for s in held} == {round(before[-1].valence, 4)}
    widths = [s.interval.high - s.interval.low for s in (before[-1], *held)]
    assert len(held) == 5
    assert held[0].valence_window is not None, "the window still holds the face, but a past one"
    assert all(later > earlier for earlier, later in pairwise(widths))
    assert widths[-1] > 4
    assert scores[-1].valence is None
    assert scores[-1].reason == "no_voice_and_no_face"
    assert scores[-1].faces == 0


def test_a_face_long_gone_is_absent_although_the_window_still_holds_it() -> None:
    core, _ = make_core(settings=InferenceSettings(absent_after_ms=1_000))
    messages = [sound(i) for i in range(120)] + [face(i, there=i < 20) for i in range(48)]
    by_end = {(s.envelope.t_end_ns - T0) // MS: s for s in play(core, messages)}
    assert by_end[2_500].video.present
    assert not by_end[3_000].video.present
    assert by_end[3_000].video.coverage == pytest.approx(0.5)
    assert by_end[3_000].video.weight == 0.0
    assert by_end[3_000].audio.present


class BothWays(Network):
    """An encoder that looks at all of its input: every frame depends on the length of its row."""

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = super().run(graph, inputs)
        if graph == "audio_encoder":
            found["frames"] = found["frames"] + inputs["input"].std((1, 2))[:, None, None]
        return found


def test_a_companion_in_the_batch_changes_no_frame_of_an_encoder_that_looks_both_ways() -> None:
    both = config().model_copy(
        update={"audio_encoder": config().audio_encoder.model_copy(update={"causal": False})}
    )
    bundle = SimpleNamespace(config=both, calibration=CALIBRATION, sha256="f" * 64)

    def frames(others: list[Audio]) -> np.ndarray:
        core = InferenceCore(bundle, BothWays(both), InferenceSettings())
        mine = [sound(seq) for seq in range(25)]
        play_in_batches(core, [*mine, *others], step_ms=500)
        return core._roster["s"].audio.frames.between(T0, T0 + 1_000 * MS).copy()

    # Both are due in one step, and the companion has said less.
    companion = [sound(seq, stream="other", at_ms=300 + 40 * seq) for seq in range(25)]
    np.testing.assert_array_equal(frames([]), frames(companion))


class Watched:
    """A filter that writes down the times it is asked for."""

    def __init__(self, rolling: RollingValence, times: list[float]) -> None:
        self._rolling, self._times = rolling, times

    def update(self, time_s: float, seen: Observation | None) -> Rolling:
        self._times.append(time_s)
        return self._rolling.update(time_s, seen)


def test_however_often_sound_breaks_off_scores_come_a_hop_apart_and_the_filter_keeps_time() -> None:
    core, _ = make_core()
    # 0.8 s of sound, then a gap of 0.13 s, which is no multiple of a chunk, again and again
    messages, at_ms = [], 0.0
    for seq in range(400):
        messages.append(sound(seq, at_ms=at_ms))
        at_ms += 40 + (130 if seq % 20 == 19 else 0)
    times: list[float] = []
    scores: list[Score] = []
    for message in messages:
        now = message.envelope.t_end_ns
        core.push(message, now)
        state = core._roster["s"]
        if not times:
            times.append(0.0)
            state.rolling = Watched(state.rolling, times)
        scores += core.pop_ready(now)
    ends = np.array([score.envelope.t_end_ns for score in scores])
    assert core.counters["audio_gaps"] == 19
    assert np.diff(ends).min() >= 500 * MS
    assert np.diff(ends).max() < 1_100 * MS
    filter_s = np.array(times[1:])
    np.testing.assert_allclose(np.diff(filter_s), np.diff(ends) / 1e9)


def test_a_gap_leaves_a_hole_and_resets_the_context() -> None:
    core, _ = make_core()
    messages = [sound(i, at_ms=40 * i + (1_000 if i >= 50 else 0)) for i in range(75)]
    last = play(core, messages)[-1]
    assert core.counters["audio_gaps"] == 1
    assert last.audio.coverage == pytest.approx(0.75)
    fresh, _ = make_core()
    play(fresh, [sound(i, at_ms=40 * i + 1_000) for i in range(50, 75)])
    end = T0 + 4_000 * MS
    after = core._roster["s"].audio.frames.between(end - 1_000 * MS, end)
    expected = fresh._roster["s"].audio.frames.between(end - 1_000 * MS, end)
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert len(after) == 25


def test_lost_late_repeated_and_broken_messages_are_counted() -> None:
    core, _ = make_core()
    messages = [sound(i) for i in range(20)]
    for chunk in messages[:10] + messages[12:]:
        core.push(chunk, chunk.envelope.t_end_ns)
    now = messages[-1].envelope.t_end_ns
    assert not core.push(messages[-1], now)
    assert not core.push(messages[11], now)
    assert not core.push(sound(20, at_ms=40 * 20 + 90_000), now)
    backwards = replace(sound(21), envelope=envelope(840, 800, 21))
    assert not core.push(backwards, now)
    empty = replace(sound(21), samples=np.zeros(0, np.int16))
    assert not core.push(empty, now)
    counters = core.counters
    assert counters["messages_lost"] == 2
    assert counters["messages_repeated"] == 1
    assert counters["messages_late"] == 1
    assert counters["messages_out_of_time"] == 1
    assert counters["messages_malformed"] == 2
    assert core.pop_ready(now)[0].dropped == 2


def test_a_sender_that_starts_again_goes_on() -> None:
    core, _ = make_core()
    for i in range(20):
        core.push(sound(i), T0 + 40 * (i + 1) * MS)
    assert core.push(sound(0, at_ms=900), T0 + 940 * MS)
    assert core.counters["senders_restarted"] == 1
    assert core.counters["messages_lost"] == 0


def test_a_core_that_falls_behind_scores_the_newest_window_and_counts_the_rest() -> None:
    core, _ = make_core()
    for i in range(60):
        core.push(sound(i), T0 + 2_400 * MS)
    scores = core.pop_ready(T0 + 2_400 * MS)
    assert [(s.envelope.t_end_ns - T0) // MS for s in scores] == [2_000]
    assert core.counters["windows_dropped"] == 3


def test_given_text_is_used_for_the_span_it_covers() -> None:
    heard: list[str] = []

    def encode_text(text: str) -> np.ndarray:
        heard.append(text)
        return np.full((4, DIM), 0.9, np.float32)

    core, _ = make_core(encode_text=encode_text)
    messages: list = [sound(i) for i in range(100)]
    messages.append(Text(envelope(0, 3_000, 0), "good morning to you"))
    scores = play(core, messages)
    assert heard == ["good morning to you"]
    assert scores[1].text_source == "simulated"
    assert scores[-1].text_source == "given"
    assert scores[-1].text.coverage == pytest.approx(0.75)


def test_text_that_cannot_be_encoded_is_counted_and_simulated() -> None:
    core, _ = make_core()
    messages: list = [sound(i) for i in range(50)]
    messages.append(Text(envelope(0, 1_000, 0), "hello"))
    assert play(core, messages)[-1].text_source == "simulated"
    assert core.counters["text_unavailable"] == 1


def test_a_clock_of_another_host_is_compared_through_its_smallest_delay() -> None:
    other = Clock("there", "boot-9")
    core, _ = make_core(clock=HERE)
    shift = 900_000_000 * MS
    for i in range(13):
        chunk = sound(i)
        chunk = replace(chunk, envelope=replace(chunk.envelope, clock=other))
        assert core.push(chunk, chunk.envelope.t_sent_ns + shift + 3 * MS)
    scores = core.pop_ready(T0 + 523 * MS + shift)
    assert len(scores) == 1
    assert scores[0].envelope.clock == other
    assert scores[0].envelope.t_end_ns == T0 + 500 * MS
    assert scores[0].latency_ms.transport == pytest.approx(0.0, abs=1e-6)
    core.learn_clock(other, shift)
    assert core._roster["s"].local_ns(shift + T0) == T0


def test_streams_are_forgotten_and_no_more_than_allowed_are_kept() -> None:
    settings = InferenceSettings(max_streams=2, stream_timeout_s=5.0)
    core, _ = make_core(settings=settings)
    for name in ("a", "b", "c"):
        core.push(sound(0, stream=name), T0 + 40 * MS)
    assert core.streams == ("a", "b")
    assert core.counters["streams_refused"] == 1
    now = T0
    while (deadline := core.next_deadline_ns()) is not None:
        assert deadline >= now
        now = deadline
        core.pop_ready(now)
        assert now < T0 + 7_000 * MS
    assert core.streams == ()
    assert core.counters["streams_forgotten"] == 2


def test_a_mark_goes_into_the_next_score_only() -> None:
    core, _ = make_core()
    first = [sound(i) for i in range(20)]
    play(core, first)
    assert core.mark("question 1") == 1
    assert core.mark("question 1", stream="nobody") == 0
    marks = [s.mark for s in play(core, [sound(i) for i in range(20, 50)])]
    assert marks == ["question 1", None, None]


def test_scores_hold_only_numbers_in_range() -> None:
    core, _ = make_core()
    messages = [sound(i, voiced=i % 50 < 20) for i in range(300)]
    for score in play(core, messages + [face(i, there=i % 7 > 2) for i in range(120)]):
        for value in (score.valence, score.valence_window, score.trend):
            assert value is None or math.isfinite(value)
        for state in (score.audio, score.video, score.text):
            assert 0 <= state.coverage <= 1
            assert 0 <= state.weight <= 1


def test_a_face_that_has_gone_stops_holding_the_score_while_pictures_say_so() -> None:
    core, _ = make_core()
    scores = play(core, [face(i, there=i < 40) for i in range(80)])
    present = [score.video.present for score in scores]
    # Seen until 4 s; the window that ends half a second later still knows it, no other does.
    assert present[:8] == [True] * 8
    assert not any(present[9:])
    widths = [s.interval.high - s.interval.low for s in scores[9:] if s.interval is not None]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_a_camera_that_stalls_is_not_taken_for_a_face_that_left() -> None:
    core, _ = make_core()
    both = [sound(i) for i in range(150)] + [face(i) for i in range(40)]
    scores = play(core, both)
    assert scores[9].video.present  # 1 s after the last picture
    assert not scores[-1].video.present


def test_a_persons_stream_ends_with_the_person() -> None:
    core, _ = make_core()
    last = replace(face(30, there=False), last=True)
    scores = play(
        core, [*(face(i) for i in range(30)), last, *(sound(i, stream="t") for i in range(150))]
    )
    ends = [(s.envelope.t_end_ns - T0) // MS for s in scores if s.envelope.stream == "s"]
    assert ends[-1] == 3_500
    assert core.streams == ("t",)
    assert core.pop_ended() == ["s"]
    assert core.pop_ended() == []
    assert core.counters["streams_ended"] == 1
