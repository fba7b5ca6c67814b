"""A crowd of streams: those here first come first, and what has ended costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from engine.inference import roster as module
from engine.inference.core import InferenceCore
from engine.settings import InferenceSettings
from engine.wire.messages import Score, Text
from models.spec import BundleConfig
from tests.engine.inference.test_core import (
    CALIBRATION,
    MS,
    T0,
    Network,
    config,
    envelope,
    face,
    make_core,
    play,
    sound,
)

REPOSITORY = Path(__file__).resolve().parents[3]


def until(core: InferenceCore, first_ms: int, last_ms: int) -> list[Score]:
    """Let time pass without a message."""
    scores: list[Score] = []
    for now_ms in range(first_ms, last_ms, 50):
        scores += core.pop_ready(T0 + now_ms * MS)
    return scores


def test_a_stream_that_sends_nothing_any_more_is_scored_once_a_second() -> None:
    core, _ = make_core(settings=InferenceSettings(hop_ms=200, hold_s=2.0))
    play(core, [sound(seq) for seq in range(50)])
    held = until(core, 2_000, 4_000)
    assert len(held) == 9, "its interval grows until the valence is given up"
    until(core, 4_000, 8_000)
    rest = until(core, 8_000, 18_000)
    assert len(rest) == 10
    assert {score.reason for score in rest} == {"no_voice_and_no_face"}
    seqs = [score.envelope.seq for score in rest]
    assert seqs == list(range(seqs[0], seqs[0] + 10)), "none is lost"
    assert core.counters.get("windows_dropped", 0) == 0
    again = play(core, [sound(seq, at_ms=18_000 + 40 * (seq - 50)) for seq in range(50, 80)])
    assert len(again) >= 5
    assert again[-1].valence is not None
    assert core.counters.get("windows_dropped", 0) == 0


def test_a_source_that_still_sends_silence_is_scored_every_hop() -> None:
    core, _ = make_core(settings=InferenceSettings(hop_ms=200, hold_s=1.0))
    scores = play(core, [sound(seq, voiced=False) for seq in range(300)])
    late = [score for score in scores if score.envelope.t_end_ns > T0 + 10_000 * MS]
    assert len(late) == 10
    assert {score.reason for score in late} == {"no_voice_and_no_face"}


def test_a_window_that_got_nothing_new_is_not_computed_again() -> None:
    core, network = make_core(settings=InferenceSettings(hop_ms=200))
    scores = play(core, [sound(seq) for seq in range(50)])
    asked = sum(graph == "fusion" for graph, _ in network.calls)
    quiet = until(core, 2_050, 3_900)
    assert len(quiet) >= 8
    assert sum(graph == "fusion" for graph, _ in network.calls) <= asked + 1
    assert quiet[-1].valence_window == pytest.approx(scores[-1].valence_window, abs=0.05)


def test_what_falls_out_of_a_window_changes_what_it_says() -> None:
    core, _ = make_core(settings=InferenceSettings(hop_ms=200))
    both = play(core, [sound(seq) for seq in range(20)] + [face(seq) for seq in range(8)])
    assert both[-1].video.present
    quiet = until(core, 850, 2_500)
    assert quiet[-1].audio.present
    assert until(core, 2_500, 4_000)[-1].valence_window is None


def in_blocks() -> BundleConfig:
    whole = config()
    assert whole.audio_encoder is not None
    encoder = whole.audio_encoder.model_copy(update={"block": 2})
    return whole.model_copy(update={"audio_encoder": encoder, "text_simulation": None})


class SlowNetwork(Network):
    """A network that takes 50 ms for a block of sound."""

    now_ns = 0

    def run(self, graph: str, inputs: dict) -> dict:
        if graph == "audio_encoder":
            self.now_ns += 50 * MS
        return super().run(graph, inputs)


def crowd() -> tuple[InferenceCore, SlowNetwork]:
    backend = SlowNetwork(in_blocks())
    bundle = SimpleNamespace(config=in_blocks(), calibration=CALIBRATION, sha256="f" * 64)
    core = InferenceCore(bundle, backend, InferenceSettings(), timer=lambda: backend.now_ns)
    return core, backend


def test_a_step_spends_little_time_on_those_that_came_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST", 1)
    core, backend = crowd()
    names = ["zoe", *(f"s{number:02}" for number in range(20))]
    for seq in range(13):
        for name in names:
            core.push(sound(seq, stream=name), T0 + 40 * (seq + 1) * MS)
    started_ns = backend.now_ns
    scored = [score.envelope.stream for score in core.pop_ready(T0 + 520 * MS)]
    assert scored[0] == "zoe"
    assert len(scored) < 6
    assert backend.now_ns - started_ns < 1_500 * MS
    while more := core.pop_ready(T0 + 520 * MS):
        scored += [score.envelope.stream for score in more]
    assert sorted(scored) == sorted(names), "the next steps take the others"


def test_newcomers_are_not_among_the_first_however_few_were_here() -> None:
    core, backend = crowd()
    play(core, [sound(seq, stream="zoe") for seq in range(125)])
    for seq in range(13):
        for name in ("zoe", *(f"s{number:02}" for number in range(20))):
            at_ms = 5_000 + 40 * seq
            core.push(sound(seq + 125, stream=name, at_ms=at_ms), T0 + (at_ms + 40) * MS)
    started_ns = backend.now_ns
    scored = {score.envelope.stream for score in core.pop_ready(T0 + 5_520 * MS)}
    assert "zoe" in scored
    assert len(scored) < 6
    assert backend.now_ns - started_ns < 1_500 * MS


def test_ended_streams_are_forgotten_however_much_there_is_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 1)
    core, _ = make_core(settings=InferenceSettings(stream_timeout_s=2.0))
    for name in ("a", "b", "c", "d"):
        core.push(sound(0, stream=name), T0 + 40 * MS)
    core.pop_ready(T0 + 3_000 * MS)
    assert core.streams == ()


def test_sound_that_no_window_will_ask_for_is_not_encoded() -> None:
    core, backend = crowd()
    for seq in range(1_000):  # 40 s, and nobody gets round to it
        core.push(sound(seq), T0 + 40 * (seq + 1) * MS)
    segment = core._roster["s"].audio._segments[-1]
    assert segment.audio.waiting < 2_000, "a stream that waits stays small"
    assert sum(map(len, segment.chunks)) < 16_000 * 20
    core.pop_ready(T0 + 40_000 * MS)
    blocks = sum(graph == "audio_encoder" for graph, _ in backend.calls)
    assert blocks <= 4_000 / 80 + 2
    assert core.counters["sound_skipped_ms"] >= 35_000
    assert play(core, [sound(seq) for seq in range(1_000, 1_030)])[-1].valence is not None


def test_who_sends_sound_faster_than_it_is_spoken_is_not_among_the_first() -> None:
    core, _ = crowd()
    for seq in range(500):
        core.push(sound(seq, stream="fast"), T0 + 20_000 * MS)
    for seq in range(13):
        core.push(sound(seq, stream="zoe", at_ms=19_480 + 40 * seq), T0 + 20_000 * MS)
    assert core.pop_ready(T0 + 20_160 * MS)[0].envelope.stream == "zoe"


def test_pictures_faster_than_any_camera_are_refused_before_they_are_opened() -> None:
    core, _ = make_core()
    for seq in range(1_000):
        core.push(face(seq, at_ms=seq), T0 + 1_100 * MS)
    assert core._roster["s"].video.waiting <= 126
    assert core.counters["faces_too_fast"] >= 874
    broken = np.frombuffer(b"no picture at all", np.uint8)
    late = replace(face(2_000, at_ms=995), crop=None, jpeg=broken)
    core.push(late, T0 + 1_100 * MS)
    assert core.counters.get("messages_malformed", 0) == 0


def test_a_large_picture_waits_in_the_size_of_the_network() -> None:
    core, _ = make_core()
    crop = np.zeros((512, 512, 3), np.uint8)
    core.push(replace(face(0), crop=crop), T0 + 100 * MS)
    (waiting,) = core._roster["s"].video._waiting
    assert waiting.inputs.nbytes == 48 * 48 * 4


def test_transcripts_faster_than_anybody_speaks_are_left_out_and_counted() -> None:
    asked: list[str] = []

    def encode_text(text: str) -> np.ndarray:
        asked.append(text)
        return np.zeros((2, 3), np.float32)

    core, _ = make_core(encode_text=encode_text)
    messages: list = [sound(seq) for seq in range(20)]
    messages += [Text(envelope(n, n + 1, n), f"word {n}") for n in range(400)]
    play(core, messages)
    assert asked == [f"word {n}" for n in range(392, 400)]
    assert core.counters["text_dropped"] == 392


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_crowd_leaves_no_memory_behind_in_the_runtime() -> None:
    script = (
        "import ctypes, numpy as np, psutil\n"
        "from pathlib import Path\n"
        "from engine.backends.onnx import OnnxBackend\n"
        "from models import bundle as bundles\n"
        "backend = OnnxBackend(bundles.open(Path('models/bundles/default')))\n"
        "backend.warm_up()\n"
        "trim = lambda: ctypes.CDLL(None).malloc_trim(0)\n"
        "trim()\n"
        "before = psutil.Process().memory_info().rss\n"
        "backend.run('video_encoder', {'input': np.zeros((64, 1, 48, 48), np.float32)})\n"
        "backend.run('audio_projection', {'input': np.zeros((1024, 416), np.float32)})\n"
        "backend.run('audio_encoder', {'input': np.zeros((1, 23808), np.float32)})\n"
        "trim()\n"
        "print(psutil.Process().memory_info().rss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8_000_000
