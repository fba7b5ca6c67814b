"""Media of clips: sound and face crops by the engine's own readers.

The one place where the trainer reaches into the engine: what the network is trained on is
decoded, resampled, tracked and cropped by the very code that does so live.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.capture import CaptureError
from engine.capture.clip import read_clip, read_sound
from engine.capture.stamps import NS_PER_S
from engine.settings import EngineSettings
from engine.settings import load as load_settings
from engine.wire.jpeg import opened
from engine.wire.messages import Audio, Video
from models.framing import cut, whole
from models.preprocessing import SAMPLE_RATE_HZ, to_float
from trainer.corpus import CorpusError, Media

Crop = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Recording:
    """A whole file: samples at 16 kHz, and the face crops with their times."""

    samples: NDArray[np.int16]
    crops: tuple[Crop, ...]
    crop_times_s: NDArray[np.float64]
    seconds: float


class MediaReader:
    """Reads clips' media; keeps the last file, as neighbouring clips are often of one video."""

    def __init__(self) -> None:
        self._settings = load_settings()
        self._path: Path | None = None
        self._recording: Recording | None = None

    @property
    def crop_settings(self) -> str:
        """Short digest of the settings that crops depend on (``UNDERTONE_*``, file)."""
        capture = self._settings.capture
        described = f"{self._settings.faces!r}/{capture.video_rate_hz}/{capture.crop_format}"
        return hashlib.sha256(described.encode()).hexdigest()[:8]

    def samples(self, media: Media) -> NDArray[np.float32]:
        """Sound [N] of a clip at 16 kHz, in [-1, 1).

        Raises:
            CorpusError: it cannot be decoded, or there is no sound.
        """
        known = self._recording if media.path == self._path else None
        sound = known.samples if known is not None else self._sound(media)
        first = round(media.start_s * SAMPLE_RATE_HZ)
        last = None if media.end_s is None else round(media.end_s * SAMPLE_RATE_HZ)
        cut = sound[first:last]
        if len(cut) == 0:
            raise CorpusError(f"{media.path}: no sound between {media.start_s} and {media.end_s} s")
        return to_float(cut)

    def crops(self, media: Media, size_px: int) -> tuple[list[Crop], float]:
        """Face crops [size_px, size_px, 3] (BGR) of a clip, and its seconds; one for a still.

        A still is a face already: its central square is cut as a camera's face is.

        Raises:
            CorpusError: it cannot be decoded, or no face was found.
        """
        if media.still:
            picture = decode_picture(media)
            crop = cut(picture, whole(picture), size_px)
            assert crop is not None  # a picture's own square lies within it
            return [crop], 0.0
        self._take_size(size_px)
        recording = self._whole(media)
        end_s = recording.seconds if media.end_s is None else media.end_s
        # A stretch begins after its start, so that neighbours share no picture; a file's first
        # picture belongs to the stretch that begins with the file.
        after = recording.crop_times_s > (media.start_s or -1.0)
        inside = after & (recording.crop_times_s <= end_s)
        found = [crop for crop, kept in zip(recording.crops, inside, strict=True) if kept]
        if not found:
            raise CorpusError(f"{media.path}: no face between {media.start_s} and {end_s:.1f} s")
        return found, end_s - media.start_s

    def _take_size(self, size_px: int) -> None:
        """From now on, crops are of this size: they are cut from the picture once."""
        capture = self._settings.capture
        if capture.crop_px != size_px:
            capture = capture.model_copy(update={"crop_px": size_px})
            self._settings = self._settings.model_copy(update={"capture": capture})
            self._path = self._recording = None

    def _sound(self, media: Media) -> NDArray[np.int16]:
        if media.end_s is not None:  # a stretch of a longer file: the next clip wants it, too
            return self._whole(media).samples
        try:
            return read_sound(_plain(media))
        except CaptureError as error:
            raise CorpusError(str(error)) from None

    def _whole(self, media: Media) -> Recording:
        path = _plain(media)
        if self._recording is None or path != self._path:
            self._recording, self._path = _decode(path, self._settings), path
        return self._recording


def decode_picture(media: Media) -> Crop:
    """A still [H, W, 3] (BGR).

    Raises:
        CorpusError: not a picture.
    """
    import cv2

    raw = np.frombuffer(media.read_bytes(), np.uint8)
    picture = cv2.imdecode(raw, cv2.IMREAD_COLOR) if len(raw) else None
    if picture is None:
        raise CorpusError(f"{media.path}:{media.member or ''}: not a picture")
    return np.asarray(picture, np.uint8)


def _plain(media: Media) -> Path:
    if media.member is not None:
        raise CorpusError(f"{media.path}: sound and video inside an archive: unpack it first")
    return media.path


def _decode(path: Path, settings: EngineSettings) -> Recording:
    sound: list[NDArray[np.int16]] = []
    crops: list[Crop] = []
    times: list[float] = []
    end_s = 0.0
    try:
        for message in read_clip(path, settings, silence=False):
            end_s = max(end_s, message.envelope.t_end_ns / NS_PER_S)
            if isinstance(message, Audio):
                sound.append(np.asarray(message.samples))
            elif isinstance(message, Video) and message.has_face:
                crops.append(np.asarray(opened(message).crop))
                times.append(message.envelope.t_end_ns / NS_PER_S)
    except CaptureError as error:
        raise CorpusError(str(error)) from None
    samples = np.concatenate(sound) if sound else np.zeros(0, np.int16)
    return Recording(samples, tuple(crops), np.array(times), end_s)
