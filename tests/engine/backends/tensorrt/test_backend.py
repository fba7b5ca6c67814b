"""The TensorRT backend on a device of host memory, against ONNX Runtime itself."""

from __future__ import annotations

import numpy as np
import pytest

from engine.backends.onnx import OnnxBackend
from engine.backends.protocol import BackendError
from engine.backends.tensorrt.backend import TensorrtBackend
from engine.backends.tensorrt.parity import random_inputs, verify
from engine.backends.tensorrt.profiles import Layout, layouts
from models import bundle as bundles
from models.spec import PROJECTIONS, GraphName
from tests.support.fake_tensorrt import HostDevice, OnnxPlan

MAX_BATCH = 4

pytestmark = pytest.mark.timeout(180)  # the first exports a bundle


class Rig:
    """A backend, and what it runs on."""

    def __init__(self, bundle: bundles.Bundle) -> None:
        self.device = HostDevice()
        self.layouts: dict[GraphName, Layout] = layouts(bundle.config, MAX_BATCH)
        self.plans = {
            graph: OnnxPlan(bundle.path(graph).read_bytes(), layout, self.device)
            for graph, layout in self.layouts.items()
        }
        self.kept = 0
        self.backend = TensorrtBackend(
            self.device, self.plans, self.layouts, "float16", MAX_BATCH, keep_kernels=self.keep
        )
        self.reference = OnnxBackend(bundle, "cpu", threads=1, eight_bit=False)

    def keep(self) -> None:
        self.kept += 1


@pytest.fixture
def rig(untrained: bundles.Bundle) -> Rig:
    return Rig(untrained)


GRAPHS = ("audio_encoder", "text_simulation", "video_encoder", *PROJECTIONS, "fusion")


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_agrees_for_all_subsets_and_odd_shapes(rig: Rig, graph: GraphName) -> None:
    parity = verify(graph, rig.layouts[graph], rig.backend, rig.reference, "fp32")
    assert parity.difference < 1e-4
    assert rig.device.replays > 0


def test_every_graph_of_the_default_bundle_agrees_but_the_tone_encoders() -> None:
    rig = Rig(bundles.open("default"))
    assert set(rig.layouts) == set(GRAPHS) - {"audio_encoder", "text_simulation"}
    for graph, layout in rig.layouts.items():
        assert verify(graph, layout, rig.backend, rig.reference, "fp32").difference < 1e-4


def test_a_batch_beyond_the_plan_runs_in_several_pieces(rig: Rig) -> None:
    crops = np.random.default_rng(1).normal(size=(11, 1, 48, 48)).astype(np.float32)
    found = rig.backend.run("video_encoder", {"input": crops})["frames"]
    expected = rig.reference.run("video_encoder", {"input": crops})["frames"]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert rig.device.replays == 3


def test_warm_up_records_every_bucket_and_scoring_records_none(rig: Rig) -> None:
    rig.backend.warm_up()
    assert rig.device.graphs == len(GRAPHS) * 3  # batches 1, 2, 4
    assert rig.kept == 1
    for batch in (1, 2, 3, 4):
        crops = np.ones((batch, 1, 48, 48), np.float32)
        assert rig.backend.run("video_encoder", {"input": crops})["frames"].shape == (batch, 128)
    assert rig.device.graphs == len(GRAPHS) * 3


def test_a_replay_is_never_stale_and_outputs_are_the_callers_own(rig: Rig) -> None:
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=(2, 1, 48, 48)).astype(np.float32) for _ in range(2))
    before = rig.backend.run("video_encoder", {"input": first})["frames"]
    kept = before.copy()
    after = rig.backend.run("video_encoder", {"input": second})["frames"]
    np.testing.assert_array_equal(before, kept)
    assert np.abs(after - before).max() > 1e-3
    again = rig.backend.run("video_encoder", {"input": first})["frames"]
    np.testing.assert_array_equal(again, kept)


def test_what_a_larger_batch_left_behind_does_not_leak_into_a_smaller_one(rig: Rig) -> None:
    for inputs in random_inputs(rig.layouts["fusion"]):
        rig.backend.run("fusion", inputs)
        three = {name: value[3:6] for name, value in inputs.items()}
        found, expected = rig.backend.run("fusion", three), rig.reference.run("fusion", three)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-4)


@pytest.mark.parametrize("when", ["plain", "capture"])
def test_a_refused_run_is_an_error_and_not_an_old_answer(rig: Rig, when: str) -> None:
    crops = np.ones((1, 1, 48, 48), np.float32)
    plan = rig.plans["video_encoder"]
    if when == "capture":
        capture = rig.device.capture

        def refusing(work):  # type: ignore[no-untyped-def]
            plan.refuse.add("enqueue")
            return capture(work)

        rig.device.capture = refusing  # type: ignore[method-assign]
    else:
        plan.refuse.add("enqueue")
    with pytest.raises(BackendError, match="refuses to run"):
        rig.backend.run("video_encoder", {"input": crops})
    assert rig.device.graphs == 0
    assert rig.device.recording is None


def test_without_graphs_runs_are_queued_one_by_one(rig: Rig) -> None:
    rig.plans["video_encoder"].refuse.add("capture")
    verify("video_encoder", rig.layouts["video_encoder"], rig.backend, rig.reference, "fp32")
    assert rig.device.graphs == rig.device.replays == 0


def test_a_plan_of_other_shapes_is_refused(rig: Rig, untrained: bundles.Bundle) -> None:
    wrong = layouts(untrained.config, 2 * MAX_BATCH)
    with pytest.raises(BackendError, match="plan inputs: expected"):
        TensorrtBackend(rig.device, rig.plans, wrong, "float16", 2 * MAX_BATCH)


def test_inputs_that_do_not_fit_are_named(rig: Rig) -> None:
    with pytest.raises(BackendError, match=r"input: expected \['B', 1, 48, 48\]"):
        rig.backend.run("video_encoder", {"input": np.zeros((1, 1, 32, 32), np.float32)})
    with pytest.raises(BackendError, match="no graph 'lips'"):
        rig.backend.run("lips", {})


def test_a_plan_that_differs_is_refused(rig: Rig) -> None:
    class Off:
        def run(self, graph, inputs):  # type: ignore[no-untyped-def]
            outputs = rig.reference.run(graph, inputs)
            return {name: value + np.float32(0.5) for name, value in outputs.items()}

    with pytest.raises(BackendError, match="differs from ONNX Runtime"):
        verify("fusion", rig.layouts["fusion"], Off(), rig.reference, "fp16")  # type: ignore[arg-type]
