"""Cuts one stream's speech into pieces and says when each is to be read. Pure.

A piece begins with a voice and ends where the voice pauses, or at a quiet point once it is as
long as a piece may be. While it is open it is read again at fixed points of stream time; those
readings are tentative. Everything here depends on the sound and its stamps alone, so a clip is
cut alike live and offline.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.wire.messages import SAMPLE_RATE_HZ, Audio

NS_PER_S = 1_000_000_000
MS = 1_000_000
LEAD_NS = 200 * MS
"""Sound before the first voiced frame that a piece takes along: soft beginnings of words."""
TAIL_NS = 150 * MS
"""Sound after the last voiced frame that a piece keeps."""
PAUSE_NS = 150 * MS
"""Silence after the last frame that counts as voiced (a hang-over is in that) that ends a piece."""
PERIOD_NS = 1_000 * MS
"""From one tentative reading of a piece to the next."""
SHORTEST_NS = 100 * MS
"""A voice shorter than this in a piece holds no word."""
CUT_SOON_NS = 700 * MS
"""A piece that is cut within this is not read just before: its end is read, and is nearly as soon
believed."""
NEW_NS = 300 * MS
"""Less sound than this since the last reading is not worth a tentative one."""
QUIET_NS = 90 * MS
"""Width of the quiet point that a long piece is cut at."""
CUT_FROM = 0.6
"""A long piece is cut after this share of its length."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Sound of one piece that is to be read, and from when on its words count."""

    piece: int
    """Number of the piece in its stream."""
    order: int
    """Number of the reading in its stream: a later one knows better."""
    final: bool
    t_start_ns: int
    t_end_ns: int
    """Of its last voiced frame."""
    counts_from_ns: int
    """The words count in windows that end at or after this."""
    voiced_ns: int
    samples: NDArray[np.int16]
    """[N] at 16 kHz, with the sound around the voice."""


@dataclass(slots=True)
class _Frame:
    t_start_ns: int
    t_end_ns: int
    samples: NDArray[np.int16]
    voiced: bool

    @property
    def energy(self) -> float:
        values = self.samples.astype(np.float32)
        return float(values @ values)


class PieceCutter:
    """Speech of one stream in, readings out.

    Args:
        longest_ns: longest piece.
        delay_ns: from the end of a word to the first window that may know it.
    """

    def __init__(self, longest_ns: int, delay_ns: int) -> None:
        self._longest_ns = longest_ns
        self._delay_ns = delay_ns
        self._lead: deque[_Frame] = deque()
        self._open: list[_Frame] = []
        self._piece = 0
        self._order = 0
        self._read_ns = 0
        """Up to where the open piece was read."""
        self._ready: list[Reading] = []

    def push(self, message: Audio, gap: bool, grid_ns: int) -> None:
        """Take a chunk of sound.

        Args:
            message: samples and speech flags.
            gap: something is missing before it: an open piece ends.
            grid_ns: end of some window: tentative readings are timed so that their words come
                to count exactly where a window ends.
        """
        if gap:
            self._close(len(self._open), self._voice_end())
            self._open, self._lead = [], deque()
        samples, start_ns = message.samples, message.envelope.t_start_ns
        size = SAMPLE_RATE_HZ * message.frame_ms // 1000
        for index, voiced in enumerate(message.speech):
            part = samples[index * size : (index + 1) * size]
            if not len(part):
                break
            first_ns = start_ns + index * size * NS_PER_S // SAMPLE_RATE_HZ
            last_ns = first_ns + len(part) * NS_PER_S // SAMPLE_RATE_HZ
            self._take(_Frame(first_ns, last_ns, part, voiced), grid_ns)

    def break_off(self, before_ns: int) -> None:
        """End the open piece where no sound has come since ``before_ns``: its sender is gone."""
        if self._open and self._open[-1].t_end_ns <= before_ns:
            self._close(len(self._open), self._voice_end())
            self._open = []
        if self._lead and self._lead[-1].t_end_ns <= before_ns:
            self._lead.clear()

    def pop_ready(self) -> list[Reading]:
        """Hand out what is to be read since the last call, in order."""
        ready, self._ready = self._ready, []
        return ready

    def _take(self, frame: _Frame, grid_ns: int) -> None:
        if not self._open:
            if not frame.voiced:
                self._keep_lead(frame)
                return
            self._open = [*self._lead, frame]
            self._lead.clear()
            self._read_ns = frame.t_start_ns
        else:
            self._open.append(frame)
        now_ns = frame.t_end_ns
        if not frame.voiced and now_ns - self._voice_end() >= PAUSE_NS:
            self._pause()
        elif now_ns - self._open[0].t_start_ns >= self._longest_ns:
            self._cut(now_ns)
        else:
            since = (now_ns + self._delay_ns - grid_ns) % PERIOD_NS
            due = since < now_ns - frame.t_start_ns
            # A voice that has paused, or is cut soon, is read as a whole at once.
            cut_ns = self._open[0].t_start_ns + self._longest_ns
            due = due and frame.voiced and cut_ns - now_ns > CUT_SOON_NS
            if due and self._voice_end() - self._read_ns >= NEW_NS:
                self._read_ns = now_ns
                self._ask(self._open, self._voice_end(), now_ns + self._delay_ns, final=False)

    def _keep_lead(self, frame: _Frame) -> None:
        self._lead.append(frame)
        while self._lead and frame.t_end_ns - self._lead[0].t_start_ns > LEAD_NS:
            self._lead.popleft()

    def _voice_end(self) -> int:
        """End of the open piece's last voiced frame."""
        for frame in reversed(self._open):
            if frame.voiced:
                return frame.t_end_ns
        return self._open[0].t_start_ns if self._open else 0

    def _pause(self) -> None:
        end_ns = self._voice_end()
        stop = len(self._open)
        while stop and self._open[stop - 1].t_start_ns >= end_ns + TAIL_NS:
            stop -= 1
        rest = self._open[stop:]
        self._close(stop, end_ns)
        self._open = []
        for frame in rest:
            self._keep_lead(frame)

    def _cut(self, now_ns: int) -> None:
        """End a long piece at its quietest point; what follows begins the next one."""
        frames = self._open
        length_ns = frames[0].t_end_ns - frames[0].t_start_ns
        width = max(1, QUIET_NS // length_ns)
        energy = np.array([frame.energy for frame in frames])
        smooth = np.convolve(energy, np.ones(width), mode="same")
        first = int(CUT_FROM * len(frames))
        stop = min(first + int(smooth[first : len(frames) - width].argmin()) + 1, len(frames) - 1)
        counts_ns = now_ns - PAUSE_NS + self._delay_ns
        self._close(stop, frames[stop - 1].t_end_ns, counts_ns)
        self._open = frames[stop:]
        self._read_ns = frames[stop].t_start_ns

    def _close(self, stop: int, end_ns: int, counts_ns: int | None = None) -> None:
        if self._open:
            counts_ns = end_ns + self._delay_ns if counts_ns is None else counts_ns
            self._ask(self._open[:stop], end_ns, counts_ns, final=True)
            self._piece += 1

    def _ask(self, frames: list[_Frame], end_ns: int, counts_ns: int, final: bool) -> None:
        voiced_ns = sum(frame.t_end_ns - frame.t_start_ns for frame in frames if frame.voiced)
        if voiced_ns < SHORTEST_NS:
            return
        self._ready.append(
            Reading(
                piece=self._piece,
                order=self._order,
                final=final,
                t_start_ns=frames[0].t_start_ns,
                t_end_ns=end_ns,
                counts_from_ns=counts_ns,
                voiced_ns=voiced_ns,
                samples=np.concatenate([frame.samples for frame in frames]),
            )
        )
        self._order += 1
