"""Text simulated by speech segment, beside the scoring path."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.backends.protocol import BackendError
from engine.inference.core import InferenceCore
from engine.inference.offline import score_messages
from engine.inference.text.llm import ADAPTER, speech_simulator
from engine.inference.text.spoken import (
    MAX_WAITING,
    SpeechGatherer,
    SpeechSegment,
    SpokenText,
    ThreadedSimulator,
)
from engine.settings import InferenceSettings
from engine.wire.messages import Audio, Clock, Envelope, Score
from models import bundle as bundles
from models.spec import PROJECTIONS
from models.text_simulation.protocol import SimulatedText

pytestmark = pytest.mark.slow

MS = 1_000_000
CLOCK = Clock("here", "boot")
CHUNK_MS = 40
WAIT_S = 20.0


def chunk(index: int, voiced: tuple[bool, bool], stream: str = "s") -> Audio:
    start = index * CHUNK_MS * MS
    end = start + CHUNK_MS * MS
    samples = np.random.default_rng(index).integers(-9_000, 9_000, 640).astype(np.int16)
    envelope = Envelope(stream, index, start, end, end, CLOCK)
    return Audio(envelope, samples, voiced, 20, -20.0)


def speech(spans: list[tuple[int, int]], count: int, stream: str = "s") -> list[Audio]:
    """Chunks of a stream that speaks in the given [first, last) chunks."""
    voiced = [any(first <= index < last for first, last in spans) for index in range(count)]
    return [chunk(index, (speaks, speaks), stream) for index, speaks in enumerate(voiced)]


def gathered(messages: list[Audio], longest_ms: int = 4_000) -> list[SpeechSegment]:
    gatherer = SpeechGatherer(longest_ms * MS)
    for message in messages:
        gatherer.push(message, gap=False)
    return gatherer.pop_ready()


def test_speech_ends_with_a_pause() -> None:
    messages = speech([(5, 20), (30, 50)], 60)
    found = gathered(messages)
    assert [(s.t_start_ns // MS, s.t_end_ns // MS) for s in found] == [(200, 800), (1200, 2000)]
    expected = np.concatenate([m.samples for m in messages[5:20]]) / 32768
    np.testing.assert_allclose(found[0].samples, expected, atol=1e-4)


def test_a_pause_within_a_chunk_is_seen() -> None:
    messages = speech([(0, 20)], 10)
    messages[7:] = [chunk(7, (True, False))]
    (segment,) = gathered(messages)
    assert segment.t_end_ns == 7 * 40 * MS + 20 * MS
    assert len(segment.samples) == 7 * 640 + 320


def test_long_speech_is_cut_and_a_cough_is_not_speech() -> None:
    found = gathered(speech([(0, 60), (80, 83)], 90), longest_ms=1_000)
    assert [(s.t_start_ns // MS, s.t_end_ns // MS) for s in found] == [
        (0, 1000), (1000, 2000), (2000, 2400)
    ]  # fmt: skip


def test_speech_over_a_gap_is_two_segments() -> None:
    gatherer = SpeechGatherer(10_000 * MS)
    for index in (*range(10), *range(50, 60), 60):
        gatherer.push(chunk(index, (index != 60, index != 60)), gap=index == 50)
    assert [s.t_start_ns // MS for s in gatherer.pop_ready()] == [0, 2000]
    assert gatherer.pop_ready() == []


class Held:
    """A simulation that does not answer before it is let."""

    dim = 3

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def simulate(self, segments: Sequence[NDArray[np.float32]]) -> list[SimulatedText]:
        self.asked.set()
        assert self.go.wait(WAIT_S)
        self.batches.append(len(segments))
        return [
            SimulatedText(np.full((2, 3), len(s), np.float32), np.array([0.1, len(s) / 16_000]))
            for s in segments
        ]


def collected(simulator: ThreadedSimulator, count: int) -> list[SpokenText]:
    found: list[SpokenText] = []
    end = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < end:
        found += simulator.pop_ready()
        time.sleep(0.01)
    return found


def segment(stream: str, samples: int = 8_000) -> SpeechSegment:
    return SpeechSegment(
        stream, CLOCK, 5 * MS, 5 * MS + samples * 62_500, np.zeros(samples, np.float32)
    )


def test_nobody_waits_and_streams_share_a_batch() -> None:
    held = Held()
    simulator = ThreadedSimulator(lambda: held)
    simulator.submit(segment("first"))
    for number in range(5):
        assert simulator.submit(segment(f"s{number}", 4_000 + number)) == 0
    assert simulator.pop_ready() == []
    held.go.set()
    found = collected(simulator, 6)
    assert sum(held.batches) == 6
    assert len(held.batches) <= 2  # what waited while the first was simulated, in one batch
    by_stream = {spoken.segment.stream: spoken for spoken in found}
    assert by_stream["s3"].frames[0, 0] == 4_003
    assert by_stream["first"].t_end_ns.tolist() == [105 * MS, 505 * MS]


def test_more_than_can_wait_is_dropped_and_counted() -> None:
    held = Held()
    simulator = ThreadedSimulator(lambda: held)
    dropped = sum(simulator.submit(segment(str(n))) for n in range(MAX_WAITING + 40))
    held.go.set()
    found = collected(simulator, MAX_WAITING + 40 - dropped)
    assert 40 - 16 - 1 <= dropped <= 40
    assert len(found) == MAX_WAITING + 40 - dropped
    assert found[-1].segment.stream == str(MAX_WAITING + 39)


def test_speech_that_is_too_late_to_count_is_dropped_and_the_cost_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    simulator = ThreadedSimulator(lambda: held)

    def at(stream: str, end_s: float) -> SpeechSegment:
        end_ns = int(end_s * 1_000 * MS)
        return SpeechSegment(stream, CLOCK, end_ns - MS, end_ns, np.zeros(8_000, np.float32))

    assert simulator.submit(at("busy", 1)) == 0
    assert held.asked.wait(WAIT_S), "the first is in hand"
    ends = (("busy", 2.0), ("busy", 13.0), ("busy", 14.0), ("calm", 3.0))
    assert sum(simulator.submit(at(*end)) for end in ends) == 0
    time.sleep(0.02)  # longer than the millisecond that was said
    held.go.set()
    found = collected(simulator, 4)
    told = [(s.segment.stream, s.segment.t_end_ns // (1_000 * MS)) for s in found]
    assert told == [("busy", 1), ("busy", 13), ("busy", 14), ("calm", 3)]
    assert simulator.submit(at("busy", 15)) == 1
    assert len(collected(simulator, 1)) == 1
    assert caplog.text.count("per second of speech on this machine") == 1


def test_a_model_that_does_not_load_costs_its_text_only(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> Held:
        raise BackendError("no such model")

    simulator = ThreadedSimulator(failing, wait=True)
    simulator.submit(segment("s"))
    assert simulator.pop_ready() == []
    assert simulator.submit(segment("s")) == 1
    assert "no such model" in caplog.text


@pytest.fixture(scope="module")
def llm_bundle(tmp_path_factory: pytest.TempPathFactory) -> bundles.Bundle:
    """Tiny random WavLM, adapter and Llama around a tiny network."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from safetensors.torch import save_file

    from models.calibration import Calibration
    from models.encoders.transformers_speech import speech_spec
    from models.export import Label, Parts, write_bundle
    from models.network import SentimentNetwork
    from models.spec import NetworkSpec, SequenceEncoderSpec
    from models.text_simulation.llm import FrameConcatenatingAdapter
    from tests.support import tiny_models

    root = tmp_path_factory.mktemp("llm")
    wavlm, llama = tiny_models.wavlm(root / "wavlm"), tiny_models.llama(root / "llama")
    torch.manual_seed(0)
    spec = NetworkSpec(audio_dim=16, text_dim=32, video_dim=8, hidden_dim=16, fused_dim=16)
    adapter = root / ADAPTER
    state = FrameConcatenatingAdapter(16, 2048, 32, 5).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, adapter)
    text = SequenceEncoderSpec(
        kind="llm", input="samples", dim=32, stride=5, left_context=0, causal=False,
        source=llama, layer=-2,
    )  # fmt: skip
    directory = root / "bundle"
    write_bundle(
        directory,
        Parts(SentimentNetwork(spec), audio_spec=speech_spec(wavlm), text_simulation_spec=text),
        Label("llm", "0", trained=False, licence="Apache-2.0"),
        Calibration(),
        "# tiny\n",
        extra_files={ADAPTER: adapter},
    )
    return bundles.open(directory)


def scores_of(core: InferenceCore) -> list[Score]:
    return list(score_messages(core, speech([(5, 40), (50, 80)], 110)))


def test_a_language_model_simulates_the_text_of_a_clip(llm_bundle: bundles.Bundle) -> None:
    from engine.backends.pytorch import PytorchBackend

    backend = PytorchBackend(llm_bundle, device="cpu", threads=1)
    assert backend.graphs == {"audio_encoder", *PROJECTIONS, "fusion"}
    backend.warm_up()
    simulator = speech_simulator(llm_bundle, wait=True)
    with_text = scores_of(
        InferenceCore(llm_bundle, backend, InferenceSettings(), simulate_speech=simulator)
    )
    without = scores_of(InferenceCore(llm_bundle, backend, InferenceSettings()))
    assert [score.text_source for score in without] == ["none"] * len(without)
    sources = [score.text_source for score in with_text]
    first = sources.index("simulated")
    ends_ms = [score.envelope.t_end_ns // MS for score in with_text]
    assert ends_ms[first] >= 1_600  # the first speech had ended
    assert ends_ms[first - 1] < 2_200
    assert with_text[first].text.coverage > 0.1
    assert with_text[first].valence_window != without[first].valence_window
    assert all(score.valence_window is not None for score in with_text[2:])


def test_a_score_never_waits_for_the_text(llm_bundle: bundles.Bundle) -> None:
    from engine.backends.pytorch import PytorchBackend

    held = Held()
    held.dim = 32
    backend = PytorchBackend(llm_bundle, device="cpu", threads=1)
    core = InferenceCore(
        llm_bundle, backend, InferenceSettings(), simulate_speech=ThreadedSimulator(lambda: held)
    )
    scores = scores_of(core)  # the simulation answers nobody meanwhile
    assert len(scores) >= 8
    assert {score.text_source for score in scores} == {"none"}
    assert held.batches == []
    held.go.set()


def test_text_of_a_stream_that_began_anew_is_counted_and_not_used(
    llm_bundle: bundles.Bundle,
) -> None:
    from engine.backends.pytorch import PytorchBackend

    class Stale:
        def submit(self, segment: SpeechSegment) -> int:
            return 1

        def pop_ready(self) -> list[SpokenText]:
            other = SpeechSegment("s", Clock("other", "boot"), 0, 1, np.zeros(1, np.float32))
            return [SpokenText(other, np.ones((1, 32), np.float32), np.array([1]))]

    backend = PytorchBackend(llm_bundle, device="cpu", threads=1)
    core = InferenceCore(llm_bundle, backend, InferenceSettings(), simulate_speech=Stale())
    scores = scores_of(core)
    assert {score.text_source for score in scores} == {"none"}
    assert core.counters["speech_late"] == len(scores)
    assert core.counters["speech_dropped"] == 2


def test_what_a_language_model_bundle_lacks_is_named(
    llm_bundle: bundles.Bundle, tmp_path: Path
) -> None:
    assert speech_simulator(bundles.open("default"), wait=False) is None
    config = llm_bundle.config
    for change, message in (
        ({"audio_encoder": None}, "audio encoder of kind transformers"),
        ({"text_simulation": config.text_simulation.model_copy(update={"source": None})},  # type: ignore[union-attr]
         r"text_simulation\.source"),
    ):  # fmt: skip
        lacking = bundles.Bundle(
            llm_bundle.directory, config.model_copy(update=change), llm_bundle.calibration, "f"
        )
        with pytest.raises(BackendError, match=message):
            speech_simulator(lacking, wait=False)
    elsewhere = bundles.Bundle(tmp_path, config, llm_bundle.calibration, "f")
    with pytest.raises(BackendError, match="adapter to the language model is missing"):
        speech_simulator(elsewhere, wait=False)
