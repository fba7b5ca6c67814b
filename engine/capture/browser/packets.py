"""What a capturing browser sends: packets of sound and pictures, read with every bound checked.

A packet is 16 bytes of header, little endian, then its content: kind (uint8: 1 sound, 2 picture),
flags (uint8: bit 0, sound before this packet was lost), two zero bytes, number (uint32), and the
capture time of its end (float64, ms on the browser's own clock). Sound is int16 mono at 16 kHz, a
picture is one baseline JPEG. Pure.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.wire.fields import WireError
from engine.wire.jpeg import declared_size

HEADER = struct.Struct("<BBHId")
SOUND, PICTURE = 1, 2
MAX_PACKET = 256 * 1024
MAX_SAMPLES = 3_200
"""0.2 s; a browser sends 0.05 s."""
MAX_PICTURE_PX = 640
MIN_PICTURE_PX = 32
MAX_TIME_MS = 1e13
LOST_BEFORE = 1


class PacketError(Exception):
    """A packet that is not by the rules above; says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Samples [N] that end at ``t_end_ms``."""

    t_end_ms: float
    samples: NDArray[np.int16]
    lost_before: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture, its size known to be small."""

    t_ms: float
    jpeg: bytes


def read_packet(data: bytes) -> Sound | Picture:
    """Read a packet.

    Raises:
        PacketError: it breaks a rule.
    """
    if not HEADER.size < len(data) <= MAX_PACKET:
        raise PacketError(f"expected {HEADER.size + 1} to {MAX_PACKET} bytes, got {len(data)}")
    kind, flags, zero, _, t_ms = HEADER.unpack_from(data)
    if zero or flags & ~LOST_BEFORE:
        raise PacketError("expected unused bits of the header to be 0")
    if not (math.isfinite(t_ms) and 0 <= t_ms <= MAX_TIME_MS):
        raise PacketError("expected a time in milliseconds")
    content = data[HEADER.size :]
    if kind == SOUND:
        if len(content) % 2 or len(content) > 2 * MAX_SAMPLES:
            raise PacketError(f"expected at most {MAX_SAMPLES} samples of 2 bytes")
        return Sound(t_ms, np.frombuffer(content, "<i2").astype(np.int16), bool(flags))
    if kind == PICTURE:
        width, height = jpeg_size(content)
        if not all(MIN_PICTURE_PX <= side <= MAX_PICTURE_PX for side in (width, height)):
            raise PacketError(
                f"expected a picture of {MIN_PICTURE_PX} to {MAX_PICTURE_PX} px, "
                f"got {width} x {height}"
            )
        return Picture(t_ms, content)
    raise PacketError(f"expected kind {SOUND} or {PICTURE}, got {kind}")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height that a baseline JPEG declares, without decoding it.

    Raises:
        PacketError: not a JPEG, or none of the plain kind.
    """
    try:
        return declared_size(data)
    except WireError as fault:
        raise PacketError(str(fault)) from None
