"""Choosing a backend, and saying why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from engine.backends.mixed import with_tone
from engine.backends.protocol import Backend, BackendError
from engine.settings import TensorrtSettings
from models.bundle import Bundle

BackendName = Literal["auto", "onnx", "tensorrt", "pytorch"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A loaded backend, and one line per backend that was considered before it."""

    backend: Backend
    reasons: tuple[str, ...]


def choose(
    name: BackendName,
    bundle: Bundle,
    threads: int = 0,
    tensorrt: TensorrtSettings | None = None,
) -> Choice:
    """Load the named backend, or for ``auto`` the first that works.

    The order is tensorrt, onnx on CUDA, onnx on the CPU, and last pytorch, for a bundle
    without ONNX graphs. Plans of TensorRT that are not there yet are built.

    Raises:
        BackendError: the named backend, or with ``auto`` every one, cannot be used.
    """
    settings = TensorrtSettings() if tensorrt is None else tensorrt
    if name == "tensorrt":
        return Choice(_tensorrt(bundle, settings), ("tensorrt: asked for by name",))
    if name == "pytorch":
        return Choice(_pytorch(bundle, threads), ("pytorch: asked for by name",))
    reasons = []
    if name == "auto":
        try:
            return Choice(_tensorrt(bundle, settings), ("tensorrt: yes",))
        except BackendError as error:
            reasons.append(f"tensorrt: no, {str(error).removeprefix('tensorrt: ')}")
    return _onnx(bundle, threads, reasons, with_others=name == "auto")


def _onnx(bundle: Bundle, threads: int, reasons: list[str], with_others: bool) -> Choice:
    from engine.backends.onnx import OnnxBackend  # onnxruntime takes 0.1 s to import

    for device in ("cuda", "cpu"):
        try:
            backend = OnnxBackend(bundle, "cuda" if device == "cuda" else "cpu", threads)
        except BackendError as error:
            reasons.append(f"onnx on {device}: no, {error}")
        else:
            reasons.append(f"onnx on {device}: yes")
            return Choice(backend, tuple(reasons))
    if with_others:
        try:
            return Choice(_pytorch(bundle, threads), (*reasons, "pytorch: yes"))
        except BackendError as error:
            reasons.append(f"pytorch: no, {error}")
    raise BackendError(f"no backend can run bundle {bundle.config.name!r}: " + "; ".join(reasons))


def _tensorrt(bundle: Bundle, settings: TensorrtSettings) -> Backend:
    from engine.backends.tensorrt import loading

    try:
        return with_tone(loading.load(bundle, settings), bundle)
    except BackendError as error:
        raise BackendError(f"tensorrt: {error}") from None


def _pytorch(bundle: Bundle, threads: int) -> Backend:
    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise BackendError('pytorch needs torch and safetensors: pip install -e ".[gpu]"')
    from engine.backends.pytorch import PytorchBackend

    return with_tone(PytorchBackend(bundle, threads=threads), bundle)
