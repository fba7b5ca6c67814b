"""Make engine/samples/sample.mp4: a public-domain portrait, moving, and a synthesised voice.

Usage: python examples/make_sample_clip.py ASTRONAUT_PNG OUT_MP4
The picture is scikit-image's ``data/astronaut.png``; needs espeak-ng and ffmpeg.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

RATE_HZ, SECONDS, FACE_SECONDS = 15, 10, 8
WIDTH, HEIGHT = 320, 240
SPEECH = (
    '<speak>What a wonderful day. <break time="900ms"/> I was so happy to see you. '
    '<break time="1200ms"/> Now I am a little tired, and rather sad.</speak>'
)


def frame(portrait: np.ndarray, index: int) -> np.ndarray:
    """Picture ``index``: a slow zoom and pan with changing light, at the end no face."""
    seconds = index / RATE_HZ
    # The lower part of the portrait (the suit) shows no face.
    top = 0.0 if seconds < FACE_SECONDS else 260.0
    side = 330.0 - 6.0 * min(seconds, FACE_SECONDS)
    left = 60.0 + 12.0 * np.sin(seconds)
    scale = HEIGHT * (WIDTH / HEIGHT) / side
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    picture = cv2.warpAffine(portrait, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    light = 1.0 + 0.08 * np.sin(1.7 * seconds)
    return np.clip(picture * light, 0, 255).astype(np.uint8)


def main(portrait_path: str, out: str) -> None:
    """Write the clip."""
    portrait = cv2.imread(portrait_path)
    if portrait is None:
        sys.exit(f"no picture at {portrait_path}")
    with tempfile.TemporaryDirectory() as folder:
        voice = Path(folder) / "voice.wav"
        subprocess.run(["espeak-ng", "-m", "-s", "150", "-w", str(voice), SPEECH], check=True)
        command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24"]
        command += ["-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE_HZ), "-i", "-", "-i", str(voice)]
        command += ["-af", "apad", "-t", str(SECONDS), "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command += ["-crf", "26", "-c:a", "aac", "-b:a", "48k", "-ar", "16000", out]
        pictures = b"".join(frame(portrait, i).tobytes() for i in range(RATE_HZ * SECONDS))
        subprocess.run(command, input=pictures, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
