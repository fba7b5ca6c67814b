"""What is encoded before its window is due: the same frames, and nothing of it left to do then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from engine.inference.core import InferenceCore
from engine.settings import InferenceSettings
from engine.wire.messages import Score
from models.spec import BundleConfig, SequenceEncoderSpec
from tests.engine.inference.test_core import CALIBRATION, DIM, MS, T0, Network, config, face, sound

BLOCK_MS = 480
BLOCK = SequenceEncoderSpec(
    kind="recogniser", input="samples", dim=DIM, stride=384, left_context=1152, causal=False,
    block=20,
)  # fmt: skip


class BlockNetwork(Network):
    """Frames of a block of sound depend on all of it, and on when it came on nothing."""

    companions = False
    """Whether a block was encoded in another thread than the core's."""

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph != "audio_encoder":
            return super().run(graph, inputs)
        samples = inputs["input"]
        self.calls.append((graph, samples.shape))
        self.companions |= threading.current_thread() is not threading.main_thread()
        assert samples.shape == (1, BLOCK.left_context + BLOCK.block * BLOCK.stride)
        frames = samples[:, BLOCK.left_context :].reshape(1, BLOCK.block, BLOCK.stride).mean(2)
        frames = frames + np.abs(samples).mean()
        return {"frames": np.repeat(frames[..., None], DIM, 2).astype(np.float32)}


def make_core(
    network: Callable[[BundleConfig], BlockNetwork] = BlockNetwork,
) -> tuple[InferenceCore, BlockNetwork]:
    spec: BundleConfig = config().model_copy(
        update={"audio_encoder": BLOCK, "text_simulation": None}
    )
    bundle = SimpleNamespace(config=spec, calibration=CALIBRATION, sha256="f" * 64)
    backend = network(spec)
    ticks = iter(range(0, 10**12, MS))
    core = InferenceCore(bundle, backend, InferenceSettings(), timer=lambda: next(ticks))
    return core, backend


def play(core: InferenceCore, backend: BlockNetwork, ahead: bool) -> list[tuple[Score, list[str]]]:
    """Scores of 6 s, each with the graphs that its window still had to run."""
    said = [sound(i, stream=name) for name in ("a", "b") for i in range(150)]
    seen = [face(i, stream=name) for name in ("a", "b") for i in range(60)]
    found: list[tuple[Score, list[str]]] = []
    for message in sorted([*said, *seen], key=lambda m: m.envelope.t_end_ns):
        now_ns = message.envelope.t_end_ns
        core.push(message, now_ns)
        before = len(backend.calls)
        scores = core.pop_ready(now_ns)
        run = [graph for graph, _ in backend.calls[before:]]
        found += [(score, run) for score in scores]
        while ahead and core.work_ahead():
            pass
    return found


def test_scores_are_the_same_whether_or_not_work_was_done_ahead() -> None:
    alike = [[score for score, _ in play(*make_core(), ahead)] for ahead in (False, True)]
    assert len(alike[0]) == 24
    assert [score.valence for score in alike[1]] == pytest.approx(
        [score.valence for score in alike[0]]
    )
    assert any(score.audio.present for score in alike[0])


def test_a_window_finds_its_sound_and_its_faces_encoded() -> None:
    core, backend = make_core()
    scored = play(core, backend, ahead=True)
    # Ends of windows and of blocks meet within the last chunk of some windows only.
    with_sound = [score.envelope.t_end_ns for score, run in scored if "audio_encoder" in run]
    assert len(with_sound) <= len(scored) // 4
    blocks = [shape for graph, shape in backend.calls if graph == "audio_encoder"]
    assert len(blocks) == 2 * (6_000 // BLOCK_MS)
    # The last face comes with the window's end; those before it were encoded when they came.
    faces = [shape[0] for graph, shape in backend.calls if graph == "video_encoder"]
    assert sum(faces) == 120
    assert max(faces) <= 2


def test_one_call_does_no_more_than_one_block() -> None:
    core, backend = make_core()
    for index in range(60):  # 2.4 s arrive at once: five blocks
        core.push(sound(index, stream="a"), sound(index).envelope.t_end_ns)
    done = 0
    while core.work_ahead():
        done += 1
        assert len(backend.calls) == done
    assert done == 5
    assert not core.work_ahead()


def test_blocks_of_two_streams_are_encoded_at_once_to_the_same_scores() -> None:
    valences = []
    for at_once in (1, 2):
        core, backend = make_core()
        backend.at_once = at_once
        for index in range(60):
            for name in ("a", "b"):
                core.push(sound(index, stream=name), sound(index).envelope.t_end_ns)
        assert core.work_ahead()
        assert len(backend.calls) == at_once
        assert backend.companions == (at_once == 2)
        while core.work_ahead():
            pass
        assert len(backend.calls) == 10
        scores = core.pop_ready(sound(59).envelope.t_end_ns)
        assert [score.envelope.stream for score in scores] == ["a", "b"]
        valences.append([score.valence for score in scores])
    assert valences[0] == valences[1]
    assert None not in valences[0]


def test_a_silent_stream_has_nothing_to_do_ahead() -> None:
    core, backend = make_core()
    for index in range(60):
        core.push(sound(index, voiced=False, stream="a"), sound(index).envelope.t_end_ns)
    assert not core.work_ahead()
    assert backend.calls == []


class SeveralBlocks(BlockNetwork):
    """Takes several blocks at once, and notes how many."""

    def __init__(self, spec: BundleConfig) -> None:
        super().__init__(spec)
        self.blocks: list[int] = []

    def run(self, graph: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if graph != "audio_encoder":
            return super().run(graph, inputs)
        new = inputs["input"][:, BLOCK.left_context :]
        self.blocks.append(new.shape[1] // (BLOCK.block * BLOCK.stride))
        frames = new.reshape(1, -1, BLOCK.stride).mean(2)
        return {"frames": np.repeat(frames[..., None], DIM, 2).astype(np.float32)}


def test_a_machine_that_is_late_encodes_two_blocks_at_a_time_for_a_while() -> None:
    core, backend = make_core(SeveralBlocks)
    assert isinstance(backend, SeveralBlocks)

    def heard(first_s: int, last_s: int, on_time: bool = True) -> tuple[set[int], list[Score]]:
        backend.blocks.clear()
        scores: list[Score] = []
        for message in (sound(i) for i in range(25 * first_s, 25 * last_s)):
            now_ns = message.envelope.t_end_ns
            core.push(message, now_ns)
            scores += core.pop_ready(now_ns) if on_time else []
            while on_time and core.work_ahead():
                pass
        return set(backend.blocks), scores

    assert heard(0, 4)[0] == {1}
    assert heard(4, 6, on_time=False) == (set(), [])
    blocks, scores = heard(6, 12)
    assert blocks == {2}
    assert core.counters["windows_dropped"] > 0
    assert len(scores) == 1 + 12, "one that is late, then one every hop"
    assert all(score.audio.present for score in scores)
    assert core.counters["windows_tone_late"] == len(scores)
    assert heard(12, 35)[0] == {2}
    heard(35, 38)
    assert heard(38, 42)[0] == {1}


def test_sound_that_comes_late_makes_no_machine_slow() -> None:
    core, backend = make_core(SeveralBlocks)
    assert isinstance(backend, SeveralBlocks)
    arrivals = [(i if i < 100 else max(i, 175), sound(i)) for i in range(300)]
    for now_ns in range(T0, T0 + 13_000 * MS, 40 * MS):
        while arrivals and T0 + 40 * (arrivals[0][0] + 1) * MS <= now_ns:
            core.push(arrivals.pop(0)[1], now_ns)
        core.pop_ready(now_ns)
    assert not arrivals
    assert set(backend.blocks) == {1}
    assert core.counters.get("windows_tone_late", 0) == 0
