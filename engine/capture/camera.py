"""A camera as Video messages: a grabber that stamps every picture and keeps the sampled ones."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.capture.devices import find, list_cameras
from engine.capture.envelopes import Sealer, video_message
from engine.capture.faces import FaceFinder
from engine.capture.microphone import NS, DeviceLost
from engine.settings import EngineSettings
from engine.wire.messages import Video

Shot = tuple[int, NDArray[np.uint8]]


def camera_address(wanted: str | int) -> str | int:
    """What OpenCV opens: an address or path as it is, a name or number as its number.

    Raises:
        CaptureError: no such camera; lists the known ones.
    """
    text = str(wanted)
    if "://" in text or "/" in text:
        return text
    return find(wanted, list_cameras(), "camera").index


def run_camera(
    wanted: str | int,
    sealer: Sealer,
    finder: FaceFinder,
    settings: EngineSettings,
    stop: threading.Event,
    emit: Callable[[Video], None],
    opened: Callable[[], None],
) -> None:
    """Capture until ``stop``.

    Raises:
        CaptureError: unknown camera.
        DeviceLost: it cannot be opened, or gives no picture in time.
    """
    import cv2

    address = camera_address(wanted)
    limits = settings.capture
    if isinstance(address, str):
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limits.open_timeout_ms]
        waits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, limits.stall_timeout_ms]
        device = cv2.VideoCapture(address, cv2.CAP_FFMPEG, waits)
    else:
        device = cv2.VideoCapture(address)
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    shots: queue.Queue[Shot | None] = queue.Queue(2)
    closing = threading.Event()
    period_ns = round(NS / limits.video_rate_hz)

    def grab() -> None:
        due_ns = 0
        while not (stop.is_set() or closing.is_set()) and device.grab():
            now_ns = time.monotonic_ns()
            if now_ns < due_ns or shots.full():
                continue
            due_ns = max(due_ns + period_ns, now_ns - period_ns // 2)
            fine, picture = device.retrieve()
            if fine:
                shots.put((now_ns, np.asarray(picture, np.uint8)))
        closing.set()

    if not device.isOpened():
        raise DeviceLost("the camera cannot be opened")
    opened()
    grabber = threading.Thread(target=grab, daemon=True)
    grabber.start()
    try:
        silent_ns = time.monotonic_ns() + limits.stall_timeout_ms * 1_000_000
        while not stop.is_set():
            try:
                shot = shots.get(timeout=0.1)
            except queue.Empty:
                if closing.is_set() or time.monotonic_ns() > silent_ns:
                    raise DeviceLost("no picture from the camera") from None
                continue
            if shot is None:
                continue
            t_ns, picture = shot
            silent_ns = time.monotonic_ns() + limits.stall_timeout_ms * 1_000_000
            emit(video_message(sealer.seal(t_ns - period_ns, t_ns), finder.look(picture)))
    finally:
        closing.set()
        grabber.join(2.0)
        if not grabber.is_alive():
            device.release()
