"""Devices by name: microphones through PortAudio, cameras through the kernel's list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.capture import CaptureError

CAMERAS = Path("/sys/class/video4linux")


@dataclass(frozen=True, slots=True)
class NamedDevice:
    """A microphone or camera; ``index`` is what its driver calls it."""

    index: int
    name: str


def portaudio() -> Any:
    """The sounddevice module.

    Raises:
        CaptureError: it or PortAudio is missing; says what to install.
    """
    try:
        import sounddevice
    except ImportError:
        raise CaptureError('no microphones: pip install -e ".[microphone]"') from None
    except OSError:
        raise CaptureError(
            "no microphones: PortAudio is missing, apt install libportaudio2"
        ) from None
    return sounddevice


def list_microphones() -> list[NamedDevice]:
    """Every input device.

    Raises:
        CaptureError: sounddevice or PortAudio is missing.
    """
    return [
        NamedDevice(index, str(entry["name"]))
        for index, entry in enumerate(portaudio().query_devices())
        if entry["max_input_channels"] > 0
    ]


def list_cameras(root: Path = CAMERAS) -> list[NamedDevice]:
    """Every video device of the kernel (Linux), by number."""
    if not root.is_dir():
        return []
    entries = [
        NamedDevice(int(node.name[5:]), (node / "name").read_text().strip())
        for node in root.glob("video*")
        if node.name[5:].isdigit() and (node / "name").is_file()
    ]
    return sorted(entries, key=lambda device: device.index)


def find(wanted: str | int, devices: list[NamedDevice], kind: str) -> NamedDevice:
    """The device with this index, exact name, or name that contains it.

    Raises:
        CaptureError: none; lists the known ones.
    """
    text = str(wanted)
    for device in devices:
        if text.isdigit() and device.index == int(text):
            return device
    for matches in (lambda n: n == text.lower(), lambda n: text.lower() in n):
        for device in devices:
            if matches(device.name.lower()):
                return device
    known = ", ".join(f"{d.index} {d.name!r}" for d in devices) or "none"
    raise CaptureError(f"no {kind} {wanted!r}; known: {known}")
