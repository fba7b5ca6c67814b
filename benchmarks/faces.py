"""Faces in clips: the share of pictures in which one is found, and what a capture worker costs.

    python -m benchmarks.faces CLIP... [--seconds 8]

Each clip is looked at as it is, at a quarter of its light, and tilted by 30 degrees, ten pictures a
second, through the reader that live capture uses. The cost is CPU time of ``read_clip`` (decoding,
sound, faces, crops) by the clip's length, from its second pass on, and that of decoding all of its
pictures. Clips are to show one face throughout.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from engine.capture.clip import read_clip
from engine.capture.detectors import open_detector
from engine.capture.faces import FaceReader
from engine.capture.stamps import FrameSampler
from engine.settings import load

Picture = np.ndarray
TILT_DEGREES = 30


def tilted(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), TILT_DEGREES, 1)
    return cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


VARIANTS: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda picture: picture,
    "a quarter of the light": lambda picture: picture >> 2,
    f"tilted by {TILT_DEGREES} degrees": tilted,
}


def found(path: Path, seconds: float) -> dict[str, float]:
    """Share of sampled pictures with a face, per variant."""
    settings = load()
    detector = open_detector(settings.faces)
    readers = {name: FaceReader(detector, settings.faces.detect_every, 48) for name in VARIANTS}
    seen: dict[str, list[bool]] = {name: [] for name in VARIANTS}
    sampler = FrameSampler(settings.capture.video_rate_hz)
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            if frame.time is None or frame.time > seconds:
                break
            t_ns = int(frame.time * 1e9)
            if sampler.wants(t_ns):
                shown = np.rot90(frame.to_ndarray(format="bgr24"), frame.rotation // 90)
                for name, change in VARIANTS.items():
                    picture = np.ascontiguousarray(change(shown))
                    seen[name].append(readers[name].read(picture, t_ns).crop is not None)
    return {name: float(np.mean(values)) for name, values in seen.items()}


def cost(path: Path) -> tuple[float, float]:
    """CPU share of a core of reading a clip, and of decoding its pictures alone."""
    settings = load(capture={"loop": False})
    for _ in range(2):  # the second pass counts: a clip's networks are loaded once
        began, end_ns = time.process_time(), 0
        for message in read_clip(path, settings):
            end_ns = max(end_ns, message.envelope.t_end_ns)
        reading = time.process_time() - began
    began = time.process_time()
    with av.open(str(path)) as container:
        for _ in container.decode(container.streams.video[0]):
            pass
    decoding = time.process_time() - began
    return reading * 1e9 / end_ns, decoding * 1e9 / end_ns


def main() -> None:
    parser = argparse.ArgumentParser(description="faces found in clips, and what they cost")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    shares = {path: found(path, options.seconds) for path in options.clips}
    for name in VARIANTS:
        values = [share[name] for share in shares.values()]
        print(f"{name}: found in {np.mean(values):.4f} of the pictures, worst {min(values):.3f}")
    for path in options.clips:
        reading, decoding = cost(path)
        print(f"{path.name}: {reading:.1%} of a core, decoding all pictures alone {decoding:.1%}")


if __name__ == "__main__":
    main()
