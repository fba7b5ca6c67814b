"""A bundle's face alone on pictures of faces: how right it is, on whom, and what harms it.

    python -m benchmarks.face_accuracy BUNDLE --corpus ferplus.csv --corpus rafdb.csv [--split test]

Pictures go through the engine's cutter and the bundle's ONNX graphs, the face network in float32
and in 8 bits, and the rest with voice and words absent. *Named* is the sign of faces called happy
against those called angry, sad, fear or disgust. Coverage is that of the bundle's calibrated
interval; ``--stretch`` takes another stretch than the bundle's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models import bundle as bundles
from models.bundle import Bundle
from models.calibration import widened
from models.framing import Frame, cut, whole
from models.preprocessing import normalise_crop
from models.sessions import open_session
from models.spec import MODALITIES
from trainer.corpus import SPLITS, Clip, Media
from trainer.corpus import open as open_corpus
from trainer.corpus.clip import EMOTIONS
from trainer.evaluation.metrics import regression_metrics
from trainer.features.media import decode_picture

Picture = NDArray[np.uint8]
Values = NDArray[np.float64]
BATCH = 64
CLEAR = 0.5
"""A label whose sign is beyond doubt."""
NEGATIVE = ("angry", "sad", "fear", "disgust")
THIRDS = ("dark", "middle", "bright")


@dataclass(frozen=True, eq=False)
class Faces:
    """Pictures with their labels."""

    pictures: list[Picture]
    valence: Values
    emotions: tuple[str, ...]

    def part(self, chosen: NDArray[np.bool_]) -> Faces:
        places = np.flatnonzero(chosen)
        emotions = tuple(self.emotions[place] for place in places)
        return Faces([self.pictures[place] for place in places], self.valence[chosen], emotions)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a bundle says of pictures."""

    valence: Values
    low: Values
    high: Values

    def part(self, chosen: NDArray[np.bool_]) -> Answers:
        return Answers(self.valence[chosen], self.low[chosen], self.high[chosen])


class FaceAlone:
    """A bundle's face encoder, its projection and the fusion with everything else absent."""

    def __init__(self, bundle: Bundle, eight_bits: bool, stretch: float | None) -> None:
        encoder = bundle.config.video_encoder
        assert encoder is not None
        self._encoder, self._dim = encoder, bundle.config.network.projected_dim
        known = bundle.calibration.patterns["video"]
        self._margin, self._stretch = known.margin, stretch or known.stretch
        path = bundle.cpu_path if eight_bits else bundle.path
        self._graphs = [
            open_session(path("video_encoder")),
            open_session(bundle.path("video_projection")),
            open_session(bundle.path("fusion")),
        ]

    def answer(self, pictures: Sequence[Picture], frame: Callable[[Picture], Frame]) -> Answers:
        """Of each picture's face, cut as ``frame`` says."""
        rows = [
            self._batch(
                [self._crop(picture, frame(picture)) for picture in pictures[i : i + BATCH]]
            )
            for i in range(0, len(pictures), BATCH)
        ]
        valence, low, high = np.concatenate(rows, axis=1)
        return Answers(valence, *widened(valence, low, high, self._margin, self._stretch))

    def _crop(self, picture: Picture, frame: Frame) -> NDArray[np.float32]:
        crop = cut(picture, frame, self._encoder.size_px)
        assert crop is not None
        size, channels = self._encoder.size_px, self._encoder.channels_in
        return normalise_crop(crop, size, channels, self._encoder.colour)

    def _batch(self, crops: list[NDArray[np.float32]]) -> Values:
        encoder, projection, fusion = self._graphs
        rows = len(crops)
        (frames,) = encoder.run(None, {encoder.get_inputs()[0].name: np.stack(crops)})
        (projected,) = projection.run(None, {projection.get_inputs()[0].name: frames})
        inputs: dict[str, Any] = {"text_simulated": np.ones(rows, np.bool_)}
        for name in MODALITIES:
            seen = name == "video"
            absent = np.zeros((rows, 1, self._dim), np.float32)
            inputs[name] = projected[:, None] if seen else absent
            inputs[f"{name}_mask"] = np.full((rows, 1), seen)
        taken = {entry.name for entry in fusion.get_inputs()}
        given = {name: value for name, value in inputs.items() if name in taken}
        return np.stack(fusion.run(["valence", "low", "high"], given)).astype(np.float64)


def framed(scale: float = 1.0, degrees: float = 0.0) -> Callable[[Picture], Frame]:
    """The picture's own square, wider or tighter, or turned."""

    def frame(picture: Picture) -> Frame:
        own = whole(picture)
        return Frame(own.x, own.y, own.side * scale, np.deg2rad(degrees))

    return frame


def compressed(quality: int) -> Callable[[Picture], Picture]:
    def change(picture: Picture) -> Picture:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)

    return change


def dimmed(times: int) -> Callable[[Picture], Picture]:
    """A sensor with noise of one level sees so many times less light."""

    def change(picture: Picture) -> Picture:
        noise = np.random.default_rng(picture.size + int(picture[0, 0, 0])).normal(
            0, 1, picture.shape
        )
        return np.clip(np.round(picture / times + noise), 0, 255).astype(np.uint8)

    return change


def shrunk(side_px: int) -> Callable[[Picture], Picture]:
    def change(picture: Picture) -> Picture:
        small = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
        back = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(back, np.uint8)

    return change


def _same(picture: Picture) -> Picture:
    return picture


HARMS: dict[str, tuple[Callable[[Picture], Picture], Callable[[Picture], Frame]]] = {
    "as they are": (_same, framed()),
    **{f"JPEG of quality {q}": (compressed(q), framed()) for q in (95, 90)},
    **{f"a {n}th of the light, noise": (dimmed(n), framed()) for n in (4, 16, 32)},
    **{f"{n} px a side": (shrunk(n), framed()) for n in (24, 16, 12)},
    **{f"tilted by {d} degrees": (_same, framed(degrees=d)) for d in (15, 30)},
    "framed 30 % wider": (_same, framed(1.3)),
    "framed 20 % tighter": (_same, framed(0.8)),
}


def brightness(picture: Picture, part: float) -> float:
    """Mean brightness of the middle ``part`` of a picture, along each side."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    top, left = round(height * (1 - part) / 2), round(width * (1 - part) / 2)
    return float(grey[top : height - top, left : width - left].mean())


def thirds(values: Values) -> dict[str, NDArray[np.bool_]]:
    """Which values are in the lowest, middle and highest third."""
    low, high = np.quantile(values, (1 / 3, 2 / 3))
    parts = (values <= low, (values > low) & (values <= high), values > high)
    return dict(zip(THIRDS, parts, strict=True))


def figures(faces: Faces, answers: Answers) -> str:
    """One line of figures."""
    truth, found = faces.valence, answers.valence
    clear = np.abs(truth) > CLEAR
    sign = np.mean((found[clear] > 0) == (truth[clear] > 0))
    emotions = np.array(faces.emotions)
    happy, negative = emotions == "happy", np.isin(emotions, NEGATIVE)
    named = np.mean(np.concatenate(((found > 0)[happy], (found <= 0)[negative])))
    covered = np.mean((answers.low <= truth) & (truth <= answers.high))
    width = np.mean(answers.high - answers.low)
    ccc = regression_metrics(found, truth).ccc
    return (
        f"n {len(truth):>5,}  CCC {ccc:.3f}  sign {sign:.1%}  named {named:.1%}  "
        f"coverage {covered:.3f}  width {width:.2f}"
    )


def load(path: Path, split: str) -> tuple[str, Faces]:
    """A corpus's pictures of one split."""
    corpus = open_corpus(path)
    clips = [clip for clip in corpus.clips if clip.split == split and isinstance(clip.video, Media)]
    pictures = [decode_picture(clip.video) for clip in clips if isinstance(clip.video, Media)]
    valence = np.array([clip.valence for clip in clips], np.float64)
    return corpus.name, Faces(pictures, valence, tuple(_emotion(clip) for clip in clips))


def _emotion(clip: Clip) -> str:
    """What most people called the face."""
    return "" if clip.emotions is None else EMOTIONS[int(np.argmax(clip.emotions))]


def report(name: str, faces: Faces, exact: FaceAlone, eight: FaceAlone) -> None:
    """Everything about one corpus."""
    print(f"\n{name}")
    print(f"  {'float32':<28}{figures(faces, exact.answer(faces.pictures, framed()))}")
    for harm, (change, frame) in HARMS.items():
        answers = eight.answer([change(picture) for picture in faces.pictures], frame)
        label = "8 bits" if harm == "as they are" else harm
        print(f"  {label:<28}{figures(faces, answers)}")
    answers = eight.answer(faces.pictures, framed())
    for what, part in (("skin", 0.5), ("picture", 1.0)):
        bright = np.array([brightness(picture, part) for picture in faces.pictures])
        for third, chosen in thirds(bright).items():
            line = figures(faces.part(chosen), answers.part(chosen))
            print(f"  {f'{what}: {third}':<28}{line}")
    emotions = np.array(faces.emotions)
    for emotion in sorted(set(faces.emotions)):
        chosen = emotions == emotion
        share = np.mean(answers.valence[chosen] > 0)
        print(f"  {f'called {emotion}':<28}n {chosen.sum():>5,}  positive {share:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="a bundle's face alone on pictures of faces")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--corpus", type=Path, action="append", required=True)
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--stretch", type=float)
    options = parser.parse_args()
    bundle = bundles.open(options.bundle)
    exact, eight = (FaceAlone(bundle, bits, options.stretch) for bits in (False, True))
    for path in options.corpus:
        report(*load(path, options.split), exact, eight)


if __name__ == "__main__":
    main()
