"""TensorRT on a GPU: parity, CUDA graphs, many batches. Skips, with the reason, without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import engine
from engine.backends import select
from engine.backends.onnx import OnnxBackend, cuda_available
from engine.backends.tensorrt import loading
from engine.backends.tensorrt.backend import TensorrtBackend
from engine.backends.tensorrt.build import ARITHMETIC, Precision
from engine.backends.tensorrt.parity import TOLERANCE, verify
from engine.backends.tensorrt.profiles import layouts
from engine.settings import EngineSettings, TensorrtSettings
from models import bundle as bundles
from tests.support.tiny_bundles import paper_like

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

MAX_BATCH = 32


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (reason := loading.available()) is not None:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module", params=["default", "paper-like"])
def bundle(
    request: pytest.FixtureRequest, plans: Path, tmp_path_factory: pytest.TempPathFactory
) -> bundles.Bundle:
    if request.param == "default":
        return bundles.open("default")
    return paper_like(tmp_path_factory.mktemp("bundles") / "paper-like")


@pytest.fixture(scope="module", params=get_args(Precision))
def settings(request: pytest.FixtureRequest, plans: Path) -> TensorrtSettings:
    return TensorrtSettings(precision=request.param, max_batch=MAX_BATCH, plans_dir=plans)


@pytest.fixture(scope="module")
def backend(bundle: bundles.Bundle, settings: TensorrtSettings) -> Iterator[TensorrtBackend]:
    loaded = loading.load(bundle, settings)
    loaded.warm_up()
    yield loaded
    loaded.close()


def test_every_graph_agrees_with_onnx_runtime_for_all_subsets(
    bundle: bundles.Bundle, settings: TensorrtSettings, backend: TensorrtBackend
) -> None:
    reference = OnnxBackend(bundle, "cpu", eight_bit=False)
    assert backend.precision == ARITHMETIC[settings.precision]
    for graph, layout in layouts(bundle.config, MAX_BATCH).items():
        parity = verify(graph, layout, backend, reference, settings.precision)
        print(f"{bundle.config.name} {graph} {settings.precision}: {parity.difference:.2g}")


def test_replays_are_not_stale(
    bundle: bundles.Bundle, settings: TensorrtSettings, backend: TensorrtBackend
) -> None:
    layout = layouts(bundle.config, MAX_BATCH)["video_encoder"]
    reference = OnnxBackend(bundle, "cpu", eight_bit=False)
    rng = np.random.default_rng(0)
    shape = layout.usual(4)["input"]
    for _ in range(20):
        inputs = {"input": rng.standard_normal(shape, np.float32)}
        found = backend.run("video_encoder", inputs)["frames"]
        expected = reference.run("video_encoder", inputs)["frames"]
        worst = (np.abs(found - expected) / (1 + np.abs(expected))).max()
        assert worst <= TOLERANCE[settings.precision]


def test_many_batches(
    bundle: bundles.Bundle, settings: TensorrtSettings, backend: TensorrtBackend
) -> None:
    layout = layouts(bundle.config, MAX_BATCH)["video_encoder"]
    reference = OnnxBackend(bundle, "cpu", eight_bit=False)
    rng = np.random.default_rng(1)
    for batch in (*range(1, 10), 31, 32, 33, 70):
        shape = (batch, *layout.usual(1)["input"][1:])
        inputs = {"input": rng.standard_normal(shape, np.float32)}
        found = backend.run("video_encoder", inputs)["frames"]
        expected = reference.run("video_encoder", inputs)["frames"]
        assert found.shape == expected.shape
        worst = (np.abs(found - expected) / (1 + np.abs(expected))).max()
        assert worst <= TOLERANCE[settings.precision]


def test_graphs_or_not_the_numbers_are_the_same(
    bundle: bundles.Bundle, settings: TensorrtSettings, backend: TensorrtBackend
) -> None:
    plain = loading.load(bundle, settings.model_copy(update={"cuda_graphs": False}))
    layout = layouts(bundle.config, MAX_BATCH)["video_encoder"]
    inputs = {
        "input": np.random.default_rng(2).standard_normal(layout.usual(8)["input"], np.float32)
    }
    one = backend.run("video_encoder", inputs)["frames"]
    other = plain.run("video_encoder", inputs)["frames"]
    np.testing.assert_allclose(one, other, atol=1e-5)
    plain.close()


def test_a_second_start_builds_nothing(
    bundle: bundles.Bundle, settings: TensorrtSettings, backend: TensorrtBackend
) -> None:
    built: list[str] = []
    again = loading.load(bundle, settings, report=built.append)
    assert built == []
    again.close()


def test_auto_takes_tensorrt_and_scores_tell_so(plans: Path) -> None:
    from engine.score import score_clip

    sample = Path(engine.__file__).parent / "samples" / "sample.mp4"
    options = TensorrtSettings(max_batch=MAX_BATCH, plans_dir=plans)
    settings = EngineSettings(tensorrt=options)
    opened = bundles.open("default")
    choice = select.choose("auto", opened, tensorrt=options)
    assert choice.reasons == ("tensorrt: yes",)
    choice.backend.warm_up()
    on_gpu = list(score_clip(sample, settings, opened, choice.backend))
    on_cpu = list(score_clip(sample, settings, opened, OnnxBackend(opened, "cpu")))
    assert {(s.model.backend, s.model.precision) for s in on_gpu} == {
        ("tensorrt:cuda:0", "float16")
    }
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert (gpu.valence is None) == (cpu.valence is None)
        if gpu.valence is not None and cpu.valence is not None:
            assert gpu.valence == pytest.approx(cpu.valence, abs=0.05)


def test_the_command_builds_here_and_compares(
    plans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.cli import main

    assert main(["build", "--plans-dir", str(plans), "--max-batch", "4"]) == 0
    assert "compared with ONNX Runtime" in capsys.readouterr().out


def test_pytorch_compiled_in_bfloat16_agrees(bundle: bundles.Bundle) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} is built without CUDA")
    from engine.backends.pytorch import PytorchBackend

    pytorch = PytorchBackend(bundle)
    assert (pytorch.device, pytorch.precision) == ("cuda:0", "bfloat16")
    pytorch.warm_up()
    reference = OnnxBackend(bundle, "cpu", eight_bit=False)
    for graph, layout in layouts(bundle.config, MAX_BATCH).items():
        verify(graph, layout, pytorch, reference, "bf16")


def test_onnx_runtime_on_cuda_agrees(bundle: bundles.Bundle) -> None:
    if (reason := cuda_available()) is not None:
        pytest.skip(reason)
    on_gpu, reference = OnnxBackend(bundle, "cuda"), OnnxBackend(bundle, "cpu", eight_bit=False)
    for graph, layout in layouts(bundle.config, MAX_BATCH).items():
        verify(graph, layout, on_gpu, reference, "fp16")  # TF32 products
