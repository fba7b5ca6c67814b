"""Every call of the CUDA device as the installed bindings take it; without a driver all fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.backends.protocol import BackendError
from engine.backends.tensorrt import cuda
from engine.backends.tensorrt.cuda import CudaDevice

runtime = pytest.importorskip(
    "cuda.bindings.runtime", reason='needs cuda-bindings: pip install -e ".[rtx]"'
)


@pytest.fixture
def device() -> CudaDevice:
    if cuda.missing() is None:
        pytest.skip("this machine has a GPU: pytest -m gpu uses the device itself")
    made: CudaDevice = object.__new__(CudaDevice)
    made._cuda = runtime
    made._stream = runtime.cudaStream_t(0)
    made._device, made._host, made._graphs = [], [], []
    return made


CALLS: dict[str, Callable[[CudaDevice], object]] = {
    "allocate": lambda device: device.allocate(64),
    "pinned": lambda device: device.pinned(64),
    "upload": lambda device: device.upload(4096, np.zeros(4, np.float32)),
    "download": lambda device: device.download(np.zeros(4, np.float32), 4096),
    "capture": lambda device: device.capture(lambda: None),
    "synchronise": lambda device: device.synchronise(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_status_of_cuda_becomes_an_error_with_its_text(device: CudaDevice, name: str) -> None:
    with pytest.raises(BackendError, match=r"CUDA: .*driver .*\(cudaError"):
        CALLS[name](device)
    device.close()


def test_without_a_driver_there_is_no_device(device: CudaDevice) -> None:
    reason = cuda.missing()
    assert reason is not None
    with pytest.raises(BackendError, match="driver"):
        CudaDevice()
