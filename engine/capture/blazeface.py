"""BlazeFace: the detector that comes with the package, run by ONNX Runtime on one thread.

Where the weights come from and how they were converted: ``data/NOTICE.md``.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.capture.detections import Detection, Picture, merge, nearest
from models.framing import Frame, cut

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Variant:
    """One of the two networks."""

    file: str
    size_px: int
    grids: tuple[tuple[int, int], ...]
    """Cells per side and anchors per cell of each feature map."""


VARIANTS = {
    "full": Variant("blazeface_full_range.onnx", 192, ((48, 1),)),
    "short": Variant("blazeface_short_range.onnx", 128, ((16, 2), (8, 6))),
}
SEARCH_SCORE = 0.6
"""Score from which a face in a whole picture is believed."""
FOLLOW_SCORE = 0.5
"""Score from which a face is still where one was: half of what it takes to begin."""
FOLLOW_SIZE = 0.8
"""Share of the smallest face that counts to which one may shrink that counted already."""
FOLLOW_REACH = 2.0
"""Side of the square in which a face is followed, in sides of the face."""
FRAME_SIDE = 1.04
"""Side of what the face network sees, in sides of BlazeFace's box (RAF-DB 1.00, FER+ 1.15)."""
SHIFT = {"full": 0.0, "short": -0.06}
"""Its centre above that of the box (negative: above), in sides."""
LEAST_GAIN = 1.3
"""A picture this much longer than wide is searched in square parts where no face is found in it as
a whole: in 1280 x 720 that finds faces of 50 px, where the whole finds those of 80 px."""
MAX_PARTS = 3
NEARLY_BLACK = 24.0
"""Mean of 255, of each pixel's strongest colour, below which a picture is brightened."""
LIGHTENED, MAX_GAIN = 100.0, 16.0


class BlazeFace:
    """One of the two networks: pictures in, detections out."""

    def __init__(self, kind: Literal["full", "short"]) -> None:
        self._variant = VARIANTS[kind]
        self._shift = SHIFT[kind]
        self._session = _session(DATA / self._variant.file)
        self._anchors = _anchors(self._variant) * self._variant.size_px

    @property
    def size_px(self) -> int:
        """Side of the pictures that it takes."""
        return self._variant.size_px

    def run(self, small: Picture, min_score: float) -> list[Detection]:
        """Faces in a BGR picture of its own size, one per face."""
        boxes, scores = self._session.run(None, {"input": prepare(small)})
        chosen = np.flatnonzero(scores >= min_score)
        points = boxes[chosen].reshape(-1, 8, 2).astype(np.float64)
        points[:, 0] += self._anchors[chosen]
        points[:, 2:] += self._anchors[chosen, None]
        return merge(
            [
                Detection(self._framed(values), score)
                for values, score in zip(points.tolist(), scores[chosen].tolist(), strict=True)
            ]
        )

    def _framed(self, points: list[list[float]]) -> Frame:
        """What the face network sees, of a box's centre and sides and six points, [8][2]."""
        (x, y), (width, height), right_eye, left_eye = points[:4]
        turn = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
        side = FRAME_SIDE * (width + height) / 2
        shift = self._shift * side
        return Frame(x - shift * math.sin(turn), y + shift * math.cos(turn), side, turn)


class BlazeFaceDetector:
    """Faces with their eyes, upright or tilted, near or some metres away.

    Args:
        far: search with both networks, so that faces some metres away are found, too.
        min_face_px: smaller faces are left out.
        enough: while fewer people than this are found in a whole picture, each search looks into
            one of its square parts, too, in turn: somebody far away next to somebody near.
    """

    def __init__(self, far: bool, min_face_px: int, enough: int = 1) -> None:
        self._near = BlazeFace("short")
        self._networks = [self._near]
        if far and (DATA / VARIANTS["full"].file).is_file():
            self._networks.append(BlazeFace("full"))
        elif far:
            log.warning("no %s here: faces beyond two metres are missed", VARIANTS["full"].file)
        self._min_face_px = min_face_px
        self._enough = enough
        self._searches = 0

    def detect(self, picture: Picture) -> list[Detection]:
        """Faces in a BGR picture [H, W, 3], in its own pixels."""
        seen = merge([d for network in self._networks for d in _search(network, picture)])
        if len(seen) < self._enough and len(self._networks) > 1:
            # Small faces: in a part, they are up to twice as large to the network.
            parts = square_parts(picture)
            if seen and parts:
                parts = [parts[self._searches % len(parts)]]
            self._searches += 1
            for left, top, part in parts:
                seen += [_moved(d, left, top) for d in _search(self._networks[-1], part)]
            seen = merge(seen)
        return [d for d in seen if d.frame.side >= self._min_face_px]

    def follow(self, picture: Picture, frame: Frame) -> Detection | None:
        """The face that was at ``frame``, looked for around it with the head held upright."""
        size = self._near.size_px
        around = Frame(frame.x, frame.y, FOLLOW_REACH * frame.side, frame.turn)
        small = cut(picture, around, size, oversampling=1)
        if small is None:
            return None
        scale = around.side / size
        cos, sin = scale * math.cos(frame.turn), scale * math.sin(frame.turn)
        found = []
        for seen in self._near.run(lighten(small), FOLLOW_SCORE):
            across, down = seen.frame.x - size / 2, seen.frame.y - size / 2
            x = frame.x + cos * across - sin * down
            y = frame.y + sin * across + cos * down
            turn = math.remainder(frame.turn + seen.frame.turn, math.tau)
            found.append(Detection(Frame(x, y, scale * seen.frame.side, turn), seen.score))
        seen_now = nearest(found, frame)
        if seen_now is None or seen_now.frame.side < FOLLOW_SIZE * self._min_face_px:
            return None
        return seen_now


def _search(network: BlazeFace, picture: Picture) -> list[Detection]:
    """Faces in a picture of any size, in its own pixels."""
    small, scale, left, top = letterbox(picture, network.size_px)
    return [
        Detection(_placed(seen.frame, scale, left, top), seen.score)
        for seen in network.run(lighten(small), SEARCH_SCORE)
    ]


def square_parts(picture: Picture) -> list[tuple[int, int, Picture]]:
    """Squares that cover a picture which is none, and where each begins: left, top, pixels."""
    height, width = picture.shape[:2]
    side, length = min(height, width), max(height, width)
    if length < LEAST_GAIN * side:
        return []
    count = min(MAX_PARTS, math.ceil(length / side))
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    if width > height:
        return [(x, 0, picture[:, x : x + side]) for x in starts]
    return [(0, y, picture[y : y + side]) for y in starts]


def _moved(seen: Detection, left: int, top: int) -> Detection:
    frame = seen.frame
    return Detection(Frame(frame.x + left, frame.y + top, frame.side, frame.turn), seen.score)


def _placed(frame: Frame, scale: float, left: int, top: int) -> Frame:
    """A frame of the small picture in the large one."""
    return Frame((frame.x - left) / scale, (frame.y - top) / scale, frame.side / scale, frame.turn)


def lighten(small: Picture) -> Picture:
    """A nearly black picture brightened for the detector; any other as it is.

    Down to an eighth of usual light the network finds every face by itself; at a 32nd it finds
    63 % of them, and all where the picture is brightened first.
    """
    import cv2

    brightness = float(small[::4, ::4].max(axis=2).mean())
    if brightness >= NEARLY_BLACK:
        return small
    gain = min(MAX_GAIN, LIGHTENED / max(brightness, 1.0))
    return np.asarray(cv2.convertScaleAbs(small, alpha=gain), np.uint8)


def letterbox(picture: Picture, size: int) -> tuple[Picture, float, int, int]:
    """The picture within a black square of side ``size``, its scale, and where it begins."""
    import cv2

    height, width = picture.shape[:2]
    scale = size / max(height, width)
    # A detector does not mind pixels left out, and averaging all of 720p costs half a search.
    kept = max(1, max(height, width) // (2 * size))
    picture = picture[::kept, ::kept]
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.zeros((size, size, 3), np.uint8)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    small[top : top + inner[1], left : left + inner[0]] = cv2.resize(
        picture, inner, interpolation=method
    )
    return small, scale, left, top


def prepare(small: Picture) -> Floats:
    """BGR [S, S, 3] to RGB [1, 3, S, S] in [-1, 1]."""
    values = small[..., ::-1].transpose(2, 0, 1).astype(np.float32)
    return np.ascontiguousarray(values * np.float32(2 / 255) - 1)[None]


@cache
def _anchors(variant: Variant) -> NDArray[np.float64]:
    """Centres [N, 2] of the anchors in [0, 1], row by row, feature map by feature map."""
    found = []
    for cells, count in variant.grids:
        place = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(place, place), axis=-1).reshape(-1, 2)
        found.append(np.repeat(grid, count, axis=0))
    return np.concatenate(found)


@cache
def _session(path: Path) -> Any:
    """A network, one for all cameras and passes of a clip in the process: it keeps no state."""
    import onnxruntime

    if not path.is_file():
        raise CaptureError(f"faces.detector: no weights at {path}: install the package again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
