"""Reads weights out of ONNX Runtime's own model format, where a package ships nothing else.

Such a file holds a graph whose weights are stored as bytes and expanded by a chain of simple
nodes. The names of the nodes say which module a weight belongs to; the chains are worked out
here with numpy. Nothing of the file is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError

Array = NDArray[Any]
DTYPES: Mapping[int, Any] = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}
"""Element types of the format that weights and their scales are stored in."""


class OrtFormatError(UserError, ValueError):
    """A file that is not what it should be; says what was expected."""


@dataclass(frozen=True)
class Node:
    """One operation: its kind and the names of its inputs and outputs."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    permutation: tuple[int, ...]
    """Of a transposition; empty for others."""
    element_type: int
    """Of a cast; 0 for others."""


class OrtModel:
    """Nodes and constants of one file, those of branches included."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            OrtFormatError: it is not in the format.
        """
        from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
            InferenceSession,
        )

        data = bytearray(path.read_bytes())
        if not InferenceSession.InferenceSessionBufferHasIdentifier(data, 0):
            raise OrtFormatError(f"{path}: expected a model in ONNX Runtime's format")
        self.nodes: list[Node] = []
        self._tensors: dict[str, Any] = {}
        self._values: dict[str, Array | None] = {}
        self._read(InferenceSession.GetRootAs(data, 0).Model().Graph())
        self._makers = {output: node for node in self.nodes for output in node.outputs}

    def _read(self, graph: Any) -> None:
        for index in range(graph.InitializersLength()):
            tensor = graph.Initializers(index)
            self._tensors[_text(tensor.Name())] = tensor
        for index in range(graph.NodesLength()):
            raw = graph.Nodes(index)
            if raw is None or raw.OpType() is None:
                continue
            attributes = [raw.Attributes(i) for i in range(raw.AttributesLength())]
            for attribute in attributes:
                if (branch := attribute.G()) is not None:
                    self._read(branch)
            named = {_text(attribute.Name()): attribute for attribute in attributes}
            self.nodes.append(
                Node(
                    kind=_text(raw.OpType()),
                    inputs=tuple(_text(raw.Inputs(i)) for i in range(raw.InputsLength())),
                    outputs=tuple(_text(raw.Outputs(i)) for i in range(raw.OutputsLength())),
                    permutation=_integers(named.get("perm")),
                    element_type=named["to"].I() if "to" in named else 0,
                )
            )

    def constants(self) -> Iterator[tuple[str, Array]]:
        """Names and values of the stored tensors that are float32."""
        for name, tensor in self._tensors.items():
            if tensor.DataType() == 1:
                value = self.value(name)
                if value is not None:
                    yield name, value

    def value(self, name: str) -> Array | None:
        """Work out a constant; None where the name depends on the model's inputs."""
        if name not in self._values:
            self._values[name] = self._work_out(name)
        return self._values[name]

    def _work_out(self, name: str) -> Array | None:
        tensor = self._tensors.get(name)
        if tensor is not None:
            dtype = DTYPES.get(tensor.DataType())
            if dtype is None:
                return None
            shape = [tensor.Dims(i) for i in range(tensor.DimsLength())]
            raw = tensor.RawDataAsNumpy()
            data = b"" if isinstance(raw, int) else raw.tobytes()
            return np.frombuffer(data, dtype).reshape(shape)
        node = self._makers.get(name)
        if node is None or node.kind not in {"Cast", "Mul", "Add", "Transpose"}:
            return None
        inputs = [self.value(item) for item in node.inputs]
        first, *rest = inputs
        if first is None or any(item is None for item in rest):
            return None
        if node.kind == "Cast":
            return first.astype(DTYPES[node.element_type])
        if node.kind == "Transpose":
            return np.transpose(first, node.permutation or None)
        result: Array = first * rest[0] if node.kind == "Mul" else first + rest[0]
        return result


def _text(raw: bytes | str | None) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw or ""


def _integers(attribute: Any) -> tuple[int, ...]:
    if attribute is None:
        return ()
    return tuple(attribute.Ints(i) for i in range(attribute.IntsLength()))
