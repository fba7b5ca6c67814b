"""YuNet from a user's own ONNX file, run by ONNX Runtime on one thread.

The published files come with a dynamic or a fixed input size; both work. For each of the strides
8, 16 and 32 they give ``cls``, ``obj`` [1, N, 1], ``bbox`` [1, N, 4] and ``kps`` [1, N, 10].
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.capture.detections import Detection, Picture, look_around, merge
from models.framing import Frame

STRIDES = (8, 16, 32)
MIN_SCORE = 0.7
SIDE = 1.06
"""What the face network sees, in sides of YuNet's box (the mean of width and height)."""


class YunetDetector:
    """Faces with their eyes.

    Raises:
        CaptureError: no such file, or not a YuNet model.
    """

    def __init__(self, model: Path, width_px: int, min_face_px: int) -> None:
        import onnxruntime

        path = model.expanduser()
        if not path.is_file():
            raise CaptureError(f"faces.model: no YuNet model file at {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own errors have no common base
            reason = str(error).splitlines()[0][:120]
            raise CaptureError(f"faces.model: {path} is not a YuNet model: {reason}") from None
        outputs = {output.name for output in self._session.get_outputs()}
        self._outputs = [
            f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox", "kps")
        ]
        missing = sorted(set(self._outputs) - outputs)
        if missing:
            raise CaptureError(
                f"faces.model: {path} is not a YuNet model: no output {', '.join(missing)}"
            )
        first = self._session.get_inputs()[0]
        self._input = first.name
        height, width = first.shape[2:]
        self._fixed = (width, height) if isinstance(width, int) else None
        self._width_px = width_px
        self._min_face_px = min_face_px

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture [H, W, 3], in its own pixels."""
        padded, scale = self._padded(picture)
        values = padded.astype(np.float32).transpose(2, 0, 1)[None]
        outputs = self._session.run(self._outputs, {self._input: np.ascontiguousarray(values)})
        height, width = padded.shape[:2]
        found: list[Detection] = []
        for place, stride in enumerate(STRIDES):
            kinds = outputs[4 * place : 4 * place + 4]
            cells = (height // stride, width // stride)
            classes, objects, boxes, points = (kind[0] for kind in kinds)
            found += read_stride(classes, objects, boxes, points, cells, stride, scale)
        return [d for d in merge(found) if d.frame.side >= self._min_face_px]

    def follow(self, picture: Picture, frame: Frame) -> Detection | None:
        """The face that was at ``frame``, looked for around it."""
        return look_around(self, picture, frame)

    def _padded(self, picture: Picture) -> tuple[Picture, float]:
        """The picture in whole cells of the coarsest stride, and its scale."""
        import cv2

        height, width = picture.shape[:2]
        if self._fixed:
            scale = min(self._fixed[0] / width, self._fixed[1] / height)
        else:
            scale = min(1.0, self._width_px / width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        step = STRIDES[-1]
        outer = self._fixed or tuple(-(-side // step) * step for side in inner)
        padded = np.zeros((outer[1], outer[0], 3), np.uint8)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        padded[: inner[1], : inner[0]] = cv2.resize(picture, inner, interpolation=method)
        return padded, scale


def read_stride(
    classes: NDArray[np.float32],
    objects: NDArray[np.float32],
    boxes: NDArray[np.float32],
    points: NDArray[np.float32],
    cells: tuple[int, int],
    stride: int,
    scale: float,
) -> list[Detection]:
    """Faces of one stride's outputs [N, .], with N = rows x columns of ``cells``."""
    scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
    found = []
    for index in np.flatnonzero(scores >= MIN_SCORE):
        corner = np.array([index % cells[1], index // cells[1]], np.float64)
        x, y = (corner + boxes[index, :2]) * stride / scale
        sides = np.exp(boxes[index, 2:]) * stride / scale
        right_eye, left_eye = (points[index, 2 * k : 2 * k + 2] for k in range(2))
        across, down = left_eye - right_eye
        side = SIDE * float(sides.mean())
        frame = Frame(float(x), float(y), side, math.atan2(float(down), float(across)))
        found.append(Detection(frame, min(1.0, float(scores[index]))))
    return found
