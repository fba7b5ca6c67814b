"""A camera as video messages: a grabber that stamps every picture and keeps the sampled ones."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.capture.device import DeviceLostError, Feed
from engine.capture.listing import find, list_cameras
from engine.capture.people import People
from engine.capture.pictures import squared
from engine.capture.stamps import NS_PER_S, FrameSampler, Stamper
from engine.settings import EngineSettings
from engine.wire.clock import now_ns
from engine.wire.messages import Video

QUEUED = 2
"""Pictures that wait to be looked at; more would only grow old."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A picture [H, W, 3] and when it was taken."""

    t_ns: int
    picture: NDArray[np.uint8]


def camera_address(wanted: str | int) -> str | int:
    """What OpenCV opens: an address or path as it is, a name or number as its number.

    Raises:
        CaptureError: no such camera; lists the known ones.
    """
    text = str(wanted)
    if "://" in text or "/" in text or Path(text).is_file():
        return text
    return find(wanted, list_cameras(), "camera").index


class Camera:
    """A camera as a device of the capture loop.

    Args:
        wanted: its name, number, path or address.
        settings: of pictures, faces and patience.
        stamper: numbers the messages.
    """

    def __init__(self, wanted: str | int, settings: EngineSettings, stamper: Stamper) -> None:
        self._wanted, self._settings, self._stamper = wanted, settings, stamper
        self.counters: Counter[str] = Counter()
        self._grabber: _Grabber | None = None
        self._people: People

    def open(self) -> None:
        """Find the camera and start to grab its pictures."""
        address = camera_address(self._wanted)
        period_ns = round(NS_PER_S / self._settings.capture.video_rate_hz)
        self._people = People(self._stamper, self._settings, period_ns)
        driver = _open(address, self._settings)
        self._grabber = _Grabber(driver, address, self._settings, self.counters)

    def read(self, timeout_s: float) -> list[Video]:
        """The faces of the next picture."""
        assert self._grabber is not None
        shot = self._grabber.shots.get(timeout_s)
        return [] if shot is None else self._people.look(shot.picture, shot.t_ns)

    def close(self) -> list[Video]:
        """Stop grabbing."""
        if self._grabber is None:
            return []
        self._grabber.close()
        self._grabber = None
        return self._people.end()


def _open(address: str | int, settings: EngineSettings) -> Any:
    import cv2

    if isinstance(address, str):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, settings.capture.open_timeout_ms]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, settings.capture.stall_timeout_ms]
        device = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
    else:
        device = cv2.VideoCapture(address)
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if not device.isOpened():
        # The address stays unsaid: it may hold a password, and this goes onto the wire.
        raise DeviceLostError("the camera cannot be opened")
    return device


class _Grabber:
    """A thread that always grabs, so that what is retrieved is never old."""

    def __init__(
        self, device: Any, address: str | int, settings: EngineSettings, counters: Counter[str]
    ) -> None:
        capture = settings.capture
        self.shots: Feed[Shot] = Feed("picture from the camera", capture.stall_timeout_ms, QUEUED)
        self._device = device
        self._sampler = FrameSampler(capture.video_rate_hz)
        self._counters = counters
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grab", daemon=True)
        self._aspect = self._pixel_aspect()
        self._pause_s = self._frame_s() if Path(str(address)).is_file() else 0.0
        self._thread.start()

    def close(self) -> None:
        """Stop grabbing and release the device, unless a grab hangs: then it is left to it."""
        self._closing.set()
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._device.release()

    def _run(self) -> None:
        while not self._closing.is_set() and self._device.grab():
            t_ns = self._stamp_ns()
            if self._sampler.wants(t_ns):
                self._keep(t_ns)
            if self._pause_s:
                time.sleep(self._pause_s)
        self.shots.end()

    def _keep(self, t_ns: int) -> None:
        fine, picture = self._device.retrieve()
        if not fine:
            self._counters["damaged"] += 1
            return
        picture = squared(np.asarray(picture, np.uint8), self._aspect)
        if not self.shots.put(Shot(t_ns, picture)):
            self._counters["skipped"] += 1

    def _stamp_ns(self) -> int:
        """Now; on V4L2 the kernel's own monotonic stamp, where it is plausible."""
        import cv2

        now = now_ns()
        kernel_ns = int(self._device.get(cv2.CAP_PROP_POS_MSEC) * 1_000_000)
        return kernel_ns if 0 < now - kernel_ns < NS_PER_S else now

    def _pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height, as a file or network camera says it; else 1."""
        import cv2

        wide = int(self._device.get(cv2.CAP_PROP_SAR_NUM))
        high = int(self._device.get(cv2.CAP_PROP_SAR_DEN))
        return Fraction(wide, high) if wide > 0 and high > 0 else Fraction(1)

    def _frame_s(self) -> float:
        import cv2

        rate_hz = float(self._device.get(cv2.CAP_PROP_FPS))
        return 1 / rate_hz if rate_hz > 0 else 0.04
