"""Converts MediaPipe's BlazeFace from TFLite to ONNX, once. Nothing of the engine imports this.

    pip install tflite
    npm pack @mediapipe/face_detection@0.4.1657300184 && tar xzf mediapipe-face_detection-*.tgz
    python convert.py package/face_detection_full_range.tflite full_range.onnx
    python convert.py package/face_detection_short_range.tflite short_range.onnx

The graphs take RGB pictures [1, 3, S, S] in [-1, 1] and give ``boxes`` [N, 16] (centre x, y,
width, height, then x, y of right eye, left eye, nose, mouth, right and left ear, in pixels
relative to the anchor) and ``scores`` [N] in [0, 1]. Weights stay in float16, as they come.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
Array = NDArray[Any]


class Converter:
    """One TFLite graph, rewritten node by node with channels first."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self._tflite = tflite
        self._model = tflite.Model.GetRootAsModel(data, 0)
        self._graph = self._model.Subgraphs(0)
        operators = vars(tflite.BuiltinOperator)
        self._names = {code: name for name, code in operators.items() if isinstance(code, int)}
        self._constants: dict[int, Array] = {}
        self._nodes: list[Any] = []
        self._weights: dict[str, Array] = {}

    def convert(self) -> Any:
        """The ONNX model, checked."""
        for index in range(self._graph.OperatorsLength()):
            self._operator(self._graph.Operators(index))
        size = self._shape(self._graph.Inputs(0))[1]
        boxes, scores = (self._name(self._graph.Outputs(i)) for i in range(2))
        self._node("Squeeze", [boxes, self._put("first", np.array([0]))], "boxes")
        self._node("Squeeze", [scores, self._put("ends", np.array([0, 2]))], "logits")
        self._node("Sigmoid", ["logits"], "scores")
        count = self._shape(self._graph.Outputs(0))[1]
        graph = helper.make_graph(
            self._nodes,
            "blazeface",
            [
                helper.make_tensor_value_info(
                    self._name(self._graph.Inputs(0)), TensorProto.FLOAT, [1, 3, size, size]
                )
            ],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [count, 16]),
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, [count]),
            ],
            [numpy_helper.from_array(value, name) for name, value in self._weights.items()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _operator(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        name = self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is None:
            raise SystemExit(f"{name}: an operator that this script does not know")
        handler(operator, inputs, operator.Outputs(0))

    def _dequantize(self, _: Any, inputs: list[int], output: int) -> None:
        self._constants[output] = self._constant(inputs[0])

    def _conv_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, self._tflite.Conv2DOptions())
        weights = self._constant(inputs[1]).transpose(0, 3, 1, 2)
        self._convolution(options, inputs, weights, 1, output)

    def _depthwise_conv_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, self._tflite.DepthwiseConv2DOptions())
        weights = self._constant(inputs[1]).transpose(3, 0, 1, 2)
        self._convolution(options, inputs, weights, len(weights), output)

    def _convolution(
        self, options: Any, inputs: list[int], weights: Array, groups: int, output: int
    ) -> None:
        strides = (options.StrideH(), options.StrideW())
        kernel = weights.shape[2:]
        raw = f"{self._name(output)}_raw"
        self._node(
            "Conv",
            [
                self._name(inputs[0]),
                self._cast(f"weights_{output}", weights),
                self._cast(f"bias_{output}", self._constant(inputs[2])),
            ],
            raw,
            group=groups,
            strides=list(strides),
            kernel_shape=list(kernel),
            pads=self._pads(inputs[0], kernel, strides, options.Padding()),
        )
        self._activate(options, raw, output)

    def _max_pool_2d(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, self._tflite.Pool2DOptions())
        kernel = (options.FilterHeight(), options.FilterWidth())
        strides = (options.StrideH(), options.StrideW())
        self._node(
            "MaxPool",
            [self._name(inputs[0])],
            self._name(output),
            kernel_shape=list(kernel),
            strides=list(strides),
            pads=self._pads(inputs[0], kernel, strides, options.Padding()),
        )

    def _add(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, self._tflite.AddOptions())
        raw = f"{self._name(output)}_raw"
        self._node("Add", [self._name(i) for i in inputs], raw)
        self._activate(options, raw, output)

    def _relu(self, _: Any, inputs: list[int], output: int) -> None:
        self._node("Relu", [self._name(inputs[0])], self._name(output))

    def _pad(self, _: Any, inputs: list[int], output: int) -> None:
        before, after = self._constant(inputs[1]).T
        order = (0, 3, 1, 2)
        pads = [int(before[i]) for i in order] + [int(after[i]) for i in order]
        amounts = self._put(f"pads_{output}", np.array(pads, np.int64))
        self._node("Pad", [self._name(inputs[0]), amounts], self._name(output))

    def _resize_bilinear(self, operator: Any, inputs: list[int], output: int) -> None:
        options = self._options(operator, self._tflite.ResizeBilinearOptions())
        if options.AlignCorners():
            mode = "align_corners"
        else:
            mode = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
        old, new = self._shape(inputs[0]), self._shape(output)
        scales = np.array([1, 1, new[1] / old[1], new[2] / old[2]], np.float32)
        self._node(
            "Resize",
            [self._name(inputs[0]), "", self._put(f"scales_{output}", scales)],
            self._name(output),
            mode="linear",
            coordinate_transformation_mode=mode,
        )

    def _reshape(self, _: Any, inputs: list[int], output: int) -> None:
        # The rows of a channels-last map are what the anchors count.
        last = f"{self._name(output)}_last"
        self._node("Transpose", [self._name(inputs[0])], last, perm=[0, 2, 3, 1])
        shape = self._put(f"shape_{output}", np.array(self._shape(output), np.int64))
        self._node("Reshape", [last, shape], self._name(output))

    def _concatenation(self, _: Any, inputs: list[int], output: int) -> None:
        self._node("Concat", [self._name(i) for i in inputs], self._name(output), axis=1)

    def _activate(self, options: Any, raw: str, output: int) -> None:
        kinds = self._tflite.ActivationFunctionType
        kind = options.FusedActivationFunction()
        if kind not in (kinds.NONE, kinds.RELU):
            raise SystemExit(f"activation {kind}: not known to this script")
        self._node("Relu" if kind == kinds.RELU else "Identity", [raw], self._name(output))

    def _pads(
        self, tensor: int, kernel: tuple[int, ...], strides: tuple[int, int], padding: int
    ) -> list[int]:
        if padding != self._tflite.Padding.SAME:
            return [0, 0, 0, 0]
        sizes = self._shape(tensor)[1:3]
        total = [
            max(0, (-(-size // step) - 1) * step + span - size)
            for size, step, span in zip(sizes, strides, kernel, strict=True)
        ]
        return [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def _put(self, name: str, value: Array) -> str:
        self._weights[name] = value
        return name

    def _cast(self, name: str, value: Array) -> str:
        self._put(f"{name}_half", np.ascontiguousarray(value).astype(np.float16))
        self._node("Cast", [f"{name}_half"], name, to=TensorProto.FLOAT)
        return name

    def _constant(self, index: int) -> Array:
        if index not in self._constants:
            tensor = self._graph.Tensors(index)
            kinds = self._tflite.TensorType
            dtype = {kinds.FLOAT16: np.float16, kinds.FLOAT32: np.float32, kinds.INT32: np.int32}
            raw = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
            values = np.frombuffer(raw.tobytes(), dtype[tensor.Type()])
            self._constants[index] = values.reshape(tensor.ShapeAsNumpy())
        return self._constants[index]

    def _shape(self, index: int) -> list[int]:
        return [int(size) for size in self._graph.Tensors(index).ShapeAsNumpy()]

    def _name(self, index: int) -> str:
        return "input" if index == self._graph.Inputs(0) else f"t{index}"

    @staticmethod
    def _options(operator: Any, options: Any) -> Any:
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    onnx.save(Converter(source.read_bytes()).convert(), target)
