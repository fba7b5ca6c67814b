"""The last seconds of a stream, and from where they are played to its next worker. Pure."""

from __future__ import annotations

from collections import deque

from engine.wire.messages import Audio, Resume, Text, Video

KEEP_NS = 4_000_000_000
"""What is played to the next worker: the span of a window."""

Media = Audio | Video | Text


class Tape:
    """The last ``KEEP_NS`` of one device's messages, and which of them are still to be sent."""

    def __init__(self) -> None:
        self._messages: deque[Media] = deque()
        self._unsent = 0
        self._anchor_ns: int | None = None
        self._heard = False
        self._resume: Resume | None = None
        self.dropped = 0

    @property
    def unsent(self) -> int:
        """Messages that are still to be sent."""
        return self._unsent

    def push(self, message: Media) -> None:
        """Keep a message; what is too old goes, and counts as dropped if it was never sent."""
        sound = isinstance(message, Audio)
        # The worker's windows end where the chunks of sound do, and are laid again after a gap.
        if self._anchor_ns is None or (
            isinstance(message, Audio) and (not self._heard or message.gap_samples)
        ):
            self._anchor_ns = message.envelope.t_start_ns
        self._heard = self._heard or sound
        self._messages.append(message)
        self._unsent += 1
        oldest_ns = message.envelope.t_end_ns - KEEP_NS
        while self._messages[0].envelope.t_end_ns < oldest_ns:
            self._messages.popleft()
            if self._unsent > len(self._messages):
                self._unsent -= 1
                self.dropped += 1

    def rewind(self, hop_ns: int, t_end_ns: int, seq: int) -> int:
        """Play again from the oldest hop boundary on; return how many messages that are.

        Args:
            hop_ns: time between two windows.
            t_end_ns: end of the newest window that is known to be scored, -1 for none.
            seq: number of its score, -1 for none.
        """
        if not self._messages or self._anchor_ns is None:
            self._resume = None
            return 0
        newest_ns = self._messages[-1].envelope.t_end_ns
        oldest_ns = max(newest_ns - KEEP_NS, self._messages[0].envelope.t_start_ns)
        boundary_ns = oldest_ns + (self._anchor_ns - oldest_ns) % hop_ns
        self._unsent = sum(m.envelope.t_start_ns >= boundary_ns for m in self._messages)
        self._resume = Resume(t_end_ns=t_end_ns, seq=seq, until_ns=newest_ns)
        return self._unsent

    def next(self) -> tuple[Media, Resume | None] | None:
        """The next message to send; with the word where to resume, as long as it is played."""
        if not self._unsent:
            return None
        message = self._messages[-self._unsent]
        resume = self._resume
        if resume is not None and message.envelope.t_end_ns > resume.until_ns:
            resume = self._resume = None
        return message, resume

    def sent(self) -> None:
        """Note that the next message was sent."""
        self._unsent -= 1
