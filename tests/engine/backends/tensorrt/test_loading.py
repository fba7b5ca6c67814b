"""Loading a bundle on TensorRT from end to end: plans, cache, comparison, fallback.

The builder is replaced by one whose plan is the converted graph itself, and the GPU by a device
of host memory on which ONNX Runtime runs such plans; everything between is the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine.backends import select
from engine.backends.onnx import OnnxBackend
from engine.backends.protocol import BackendError
from engine.backends.tensorrt import library, loading
from engine.backends.tensorrt.api import TensorRT
from engine.backends.tensorrt.build import Arithmetic, Build, Precision
from engine.backends.tensorrt.cache import PlanCache
from engine.backends.tensorrt.profiles import InputRange, Layout, layouts
from engine.inference.core import InferenceCore
from engine.settings import InferenceSettings, TensorrtSettings
from models import bundle as bundles
from models.errors import UserError
from tests.support.fake_tensorrt import HostDevice, OnnxPlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # the first exports a bundle

pytest.importorskip("tensorrt_rtx", reason='needs TensorRT for RTX: pip install -e ".[rtx]"')

GRAPHS = 7


class Machine:
    """What stands for the builder and the GPU, and what they were asked for."""

    def __init__(self, bundle: bundles.Bundle) -> None:
        self.bundle = bundle
        self.built: list[str] = []
        self.devices: list[HostDevice] = []
        self.kernels: list[bytes] = []
        self.layouts: dict[bytes, Layout] = {}
        self.spoil: Callable[[bytes], bytes] = bytes

    def device(self) -> HostDevice:
        self.devices.append(HostDevice())
        return self.devices[-1]

    def build(
        self,
        api: TensorRT,
        model: bytes,
        ranges: Sequence[InputRange],
        precision: Precision,
        capability: str,
        timing_cache: bytes,
        report: object,
    ) -> Build:
        self.built.append(capability)
        plan = self.spoil(model)
        found = layouts(self.bundle.config, 4).values()
        self.layouts[plan] = next(layout for layout in found if layout.ranges == ranges)
        return Build(plan, Arithmetic(1, 1, 1), b"timings")

    def load(self, plan: bytes, kernel_cache: bytes = b"") -> OnnxPlan:
        if not plan.startswith(b"\x08"):
            raise BackendError("TensorRT cannot load the plan: fake")
        self.kernels.append(kernel_cache)
        return OnnxPlan(plan, self.layouts[plan], self.devices[-1])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, untrained: bundles.Bundle) -> Machine:
    made = Machine(untrained)
    monkeypatch.setattr(loading, "available", lambda: None)
    monkeypatch.setattr(loading, "CudaDevice", made.device)
    monkeypatch.setattr(library, "build", made.build)
    monkeypatch.setattr(TensorRT, "load", lambda api, *given: made.load(*given))
    return made


@pytest.fixture
def settings(tmp_path: Path) -> TensorrtSettings:
    return TensorrtSettings(max_batch=4, plans_dir=tmp_path / "plans")


def test_a_first_start_builds_and_compares_and_a_second_does_neither(
    machine: Machine, settings: TensorrtSettings
) -> None:
    backend = loading.load(machine.bundle, settings)
    assert machine.built == ["sm00"] * GRAPHS
    assert machine.devices[0].replays > 0  # compared, over recorded graphs
    recorded = machine.devices[0].graphs
    assert recorded == GRAPHS * 3  # every graph at batches of 1, 2 and 4: it is warm
    backend.warm_up()
    assert machine.devices[0].graphs == recorded
    again = loading.load(machine.bundle, settings)
    assert machine.built == ["sm00"] * GRAPHS
    assert machine.devices[1].replays == 0
    assert machine.devices[1].graphs == recorded
    assert machine.kernels == [b""] * GRAPHS + [b"kernels"] * GRAPHS
    again.close()


def test_scores_name_backend_and_arithmetic(machine: Machine, settings: TensorrtSettings) -> None:
    choice = select.choose("auto", machine.bundle, tensorrt=settings)
    assert choice.reasons == ("tensorrt: yes",)
    core = InferenceCore(machine.bundle, choice.backend, InferenceSettings())
    assert (core.model.backend, core.model.precision) == ("tensorrt:cuda:0", "float16")


def test_the_default_bundle_is_taken_and_its_tone_left_to_onnx_runtime(
    machine: Machine, settings: TensorrtSettings
) -> None:
    machine.bundle = bundles.open("default")  # with a face encoder of 8 bits for CPUs alone
    choice = select.choose("auto", machine.bundle, tensorrt=settings)
    assert choice.reasons == ("tensorrt: yes",)
    assert len(machine.built) == GRAPHS - 2
    assert choice.backend.graphs == OnnxBackend(machine.bundle).graphs
    choice.backend.warm_up()
    core = InferenceCore(machine.bundle, choice.backend, InferenceSettings())
    assert (core.model.backend, core.model.precision) == ("tensorrt:cuda:0", "float16")


def spoiled(model: bytes) -> bytes:
    """Change the weights that a fault of the builder would compute with."""
    graph = onnx.load_from_string(model)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array((values * 0.5).astype(np.float16), tensor.name))
    changed: bytes = graph.SerializeToString()
    return changed


def test_a_plan_that_differs_is_thrown_away_and_auto_goes_on(
    machine: Machine, settings: TensorrtSettings
) -> None:
    machine.spoil = spoiled
    with pytest.raises(BackendError, match=r"differs from ONNX Runtime .* 0\.02 in fp16"):
        loading.load(machine.bundle, settings)
    assert machine.devices[0].memory == {}  # the GPU is free for another backend
    assert settings.plans_dir is not None
    assert not list(settings.plans_dir.glob("*.plan"))
    choice = select.choose("auto", machine.bundle, threads=1, tensorrt=settings)
    assert choice.backend.name == "onnx"
    assert choice.reasons[0].startswith("tensorrt: no, audio_encoder: the plan differs")
    machine.spoil = bytes
    assert loading.load(machine.bundle, settings).graphs == set(machine.bundle.config.graphs)


def test_a_plan_that_does_not_load_is_built_anew_at_the_next_start(
    machine: Machine, settings: TensorrtSettings
) -> None:
    machine.spoil = lambda model: b"not a plan"
    with pytest.raises(BackendError, match="audio_encoder: TensorRT cannot load the plan"):
        loading.load(machine.bundle, settings)
    machine.spoil = bytes
    machine.built.clear()
    loading.load(machine.bundle, settings)
    assert len(machine.built) == GRAPHS


def test_plans_of_another_machine_are_compared_here_first(
    machine: Machine, settings: TensorrtSettings, tmp_path: Path
) -> None:
    loading.load(machine.bundle, settings)
    assert settings.plans_dir is not None
    (settings.plans_dir / "key").unlink()  # as after copying the plans, not the key
    machine.built.clear()
    foreign = settings.model_copy(update={"foreign_plans": True})
    loading.load(machine.bundle, foreign)
    assert machine.built == []
    assert machine.devices[-1].replays > 0
    loading.load(machine.bundle, settings)  # compared here, they are signed here
    assert machine.built == []


def test_another_precision_is_another_plan(machine: Machine, settings: TensorrtSettings) -> None:
    loading.load(machine.bundle, settings)
    wide = settings.model_copy(update={"precision": "fp32"})
    assert loading.load(machine.bundle, wide).precision == "float32"
    assert len(machine.built) == 2 * GRAPHS


def test_the_data_centre_package_times_kernels_and_names_the_card(
    machine: Machine, settings: TensorrtSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = TensorRT("rtx")
    monkeypatch.setattr(api, "kind", "datacentre")
    assert api.capabilities() == ()
    cache = PlanCache(settings.plans_dir or Path())
    plans = library.PlanLibrary(machine.bundle, api, cache, "fp16", 4)
    key = plans.key("fusion", "sm90", "NVIDIA H200")
    assert key.device == "NVIDIA H200 sm90"
    assert key.stem.startswith("fusion-fp16-nvidia-h200-sm90-")
    plans.obtain("fusion", "sm90", "NVIDIA H200")
    assert cache.side_blob(key.timings) == b"timings"


def test_a_gpu_without_the_memory_is_found_out_before_it_is_chosen(
    machine: Machine, settings: TensorrtSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading.load(machine.bundle, settings)

    def full(device: HostDevice, size_bytes: int) -> int:
        raise BackendError("CUDA: out of memory")

    monkeypatch.setattr(HostDevice, "allocate", full)
    choice = select.choose("auto", machine.bundle, threads=1, tensorrt=settings)
    assert choice.reasons[0] == "tensorrt: no, CUDA: out of memory"
    assert choice.backend.name == "onnx"


def test_a_backend_that_fails_while_it_runs_is_a_crash_and_no_mistake_of_the_users() -> None:
    from engine.inference.worker import step

    class InferenceService:
        def step(self, now_ns: int) -> None:
            raise BackendError("CUDA: an illegal memory access")

    with pytest.raises(RuntimeError, match="failed while running: CUDA: an illegal") as caught:
        step(InferenceService())  # type: ignore[arg-type]
    assert not isinstance(caught.value, UserError)
    assert isinstance(BackendError("no driver"), UserError)
