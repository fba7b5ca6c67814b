"""Which pictures of a file are looked at, decided before they are decoded.

A file's packets say when their pictures are shown. A picture that is not looked at, and that no
other one is built from, need not be decoded: that saves a quarter of the decoding of 30 pictures
a second, and changes nothing in those that are looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from engine.capture.stamps import FrameSampler

MAX_WAITING = 64
"""Packets held back at most: four times what a codec may put out of order."""


class PicturePlan:
    """Packets in the order of decoding in, the same with a verdict out.

    Pictures are sampled in the order in which they are shown. It is certain once a packet's
    decoding time has come to a picture's time: whatever follows is shown later. Files that do not
    say both times of every packet are decoded as a whole, and sampled afterwards.

    Args:
        sampler: asked once for every picture.
        time_ns: a packet's or picture's time on the stream's clock.
    """

    def __init__(self, sampler: FrameSampler, time_ns: Callable[[Any], int]) -> None:
        self._sampler = sampler
        self._time_ns = time_ns
        self._waiting: deque[Any] = deque()
        self._open: list[tuple[int, int]] = []
        """Times of pictures that are not decided yet: as the file and as the stream counts them."""
        self._verdicts: dict[int, bool] = {}
        """By the file's time, rising."""
        self._until: int | None = None
        """Pictures up to this time are decided."""
        self._knows = True

    def push(self, packet: Any) -> list[tuple[Any, bool]]:
        """Take the next packet; return those that may be decoded now, and whether fully."""
        self._waiting.append(packet)
        if packet.size == 0:  # the last one: what the decoder still holds
            return self.rest()
        if packet.pts is None or packet.dts is None or len(self._waiting) > MAX_WAITING:
            self._knows = False
        if not self._knows:
            return self.rest()
        if not packet.is_discard:
            heappush(self._open, (packet.pts, self._time_ns(packet)))
        self._decide(packet.dts)
        ready = []
        while self._waiting and self._is_decided(self._waiting[0]):
            ready.append(self._with_verdict(self._waiting.popleft()))
        return ready

    def rest(self) -> list[tuple[Any, bool]]:
        """Every packet that waits, at a file's end."""
        if self._knows:
            self._decide(None)
        packets, self._waiting = list(self._waiting), deque()
        return [self._with_verdict(packet) for packet in packets]

    def wants(self, picture: Any) -> bool:
        """Whether a decoded picture is looked at; they come in the order in which they are shown.

        Where one that was to be looked at did not come, or where a picture is two fields, which
        may be two packets, nothing is left out from then on.
        """
        while self._verdicts and (first := next(iter(self._verdicts))) < picture.pts:
            if self._verdicts.pop(first):
                self._knows = False
        if picture.pts not in self._verdicts or picture.interlaced_frame:
            self._knows = False
        verdict = self._verdicts.pop(picture.pts, None)
        return self._sampler.wants(self._time_ns(picture)) if verdict is None else verdict

    def _decide(self, until: int | None) -> None:
        self._until = until
        while self._open and (until is None or self._open[0][0] <= until):
            pts, t_ns = heappop(self._open)
            if pts not in self._verdicts:
                self._verdicts[pts] = self._sampler.wants(t_ns)

    def _is_decided(self, packet: Any) -> bool:
        return packet.is_discard or (self._until is not None and packet.pts <= self._until)

    def _with_verdict(self, packet: Any) -> tuple[Any, bool]:
        if not self._knows or packet.size == 0:
            return packet, True
        return packet, self._verdicts.get(packet.pts, True)
