"""TensorRT: whether this machine could use it. Plans are not built or run yet.

``available`` always answers with a reason, so ``auto`` passes on to ONNX Runtime and
``--backend tensorrt`` ends with that reason.
"""

from __future__ import annotations

from importlib.util import find_spec


def available() -> str | None:
    """Return why TensorRT cannot be used here, or None if it can."""
    if find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is None:
        return 'TensorRT is not installed (pip install "undertone[tensorrt]" or "undertone[rtx]")'
    return "this version of undertone cannot build TensorRT plans; use --backend onnx"
