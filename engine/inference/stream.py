"""What the core keeps of one stream, and which of its messages it takes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.inference.explanation import Said
from engine.inference.grid import MAX_OWED, Due, HopGrid
from engine.inference.rolling import RollingValence
from engine.inference.text.pieces import Reading
from engine.inference.tracks.audio import JITTER_NS, AudioTrack
from engine.inference.tracks.evidence import NS_PER_S
from engine.inference.tracks.text import MAX_WAITING, TextTrack
from engine.inference.tracks.video import VideoTrack
from engine.inference.tracks.words import WordsTrack
from engine.settings import InferenceSettings
from engine.wire.messages import SAMPLE_RATE_HZ, Audio, Envelope, Text, Video
from models.calibration import COVERAGE
from models.spec import BundleConfig

if TYPE_CHECKING:
    from engine.inference.forward import Fused

FUTURE_NS = 1_000_000_000
"""A message that ends this far ahead of now has a broken clock."""
PAST_NS = 60_000_000_000
"""So has one that ended this long ago."""
MAX_TIME_NS = 1 << 62
MAX_LOST = 1_000_000
LOSS_SLACK = 40
"""A jump of the sequence number beyond what fits between two messages, and beyond this, is another
sender and no loss."""
SPACING_NS = 8_000_000
"""Pictures closer than this are no camera's: 120 a second."""
MAX_MARK = 256
ARRIVALS = 64
CATCH_UP_NS = 1_000_000_000
"""What is played from a stream's past has this long to arrive; then it is scored as it is."""

Input = Audio | Video | Text


class StreamState:
    """One stream: its tracks, grid and filter, and what it lost.

    A capture host's clock that is not ours is compared with ours through ``offset_ns`` (ours minus
    that one, which the core keeps up to date); stamps stay as they are.
    """

    def __init__(
        self,
        first: Envelope,
        config: BundleConfig,
        settings: InferenceSettings,
        now_ns: int,
        words_delay_ms: int | None = None,
        coverage: float = COVERAGE,
    ) -> None:
        """``words_delay_ms``: None where no words are read; ``coverage``: of the intervals."""
        self.name = first.stream
        self.clock = first.clock
        self.epoch = first.epoch
        self.offset_ns = 0
        self.began_ns = first.t_start_ns
        """Where the stream's own time begins: the filter's clock runs from here."""
        self.window_ns = config.window_ms * 1_000_000
        self.hop_ns = settings.hop_ms * 1_000_000
        self._skew_ns = settings.skew_ms * 1_000_000
        self.grid = HopGrid(first.t_start_ns, self.hop_ns, self.window_ns, self._skew_ns)
        self.audio = AudioTrack(config)
        self.video = VideoTrack(config)
        self.text = TextTrack(config, max(MAX_WAITING, MAX_WAITING * settings.hop_ms // 1000))
        self.words: WordsTrack | None = None
        self.to_read: list[Reading] = []
        """Readings that were not asked for yet."""
        if config.recogniser is not None and words_delay_ms is not None:
            self.words = WordsTrack(config.recogniser, config, words_delay_ms)
        self.rolling = RollingValence(
            settings.half_life_s, settings.hold_s, config.window_ms / 1000.0, coverage
        )
        self.arrived_ns = now_ns
        self._scored_ns = first.t_start_ns
        self.last_score: tuple[int, int] | None = None
        """(t_end_ns, seq) of the newest score."""
        self._resume = first.resume
        self._catch_up_until_ns = self.local_ns(now_ns) + CATCH_UP_NS
        self._caught_up = first.resume is None
        if first.resume is not None:
            # Without a score so far, every window since the beginning is owed.
            known = first.resume.t_end_ns >= 0
            self.grid.resume(first.resume.t_end_ns if known else first.t_start_ns)
        self.dropped = 0
        self.mark: str | None = None
        self.brought = False
        """Whether any message was taken since the last window."""
        self.fused: tuple[list[str], Fused | None] | None = None
        """The modalities that the last window held, and what the network said of it."""
        self._keep_ns = self.window_ns + MAX_OWED * self.hop_ns + CATCH_UP_NS
        self._skip_ns = first.t_start_ns + 2 * self._keep_ns
        self.said: Mapping[str, Said] = {}
        """What each modality said by itself when it was last asked."""
        self._seq: dict[type[Input], Envelope] = {}
        self._arrivals: deque[tuple[int, int]] = deque(maxlen=ARRIVALS)

    def take_mark(self, label: str) -> bool:
        """Put a label on the next score; False where it has no room for it."""
        marks = label if self.mark is None else f"{self.mark}; {label}"
        if len(marks) > MAX_MARK:
            return False
        self.mark = marks
        return True

    @property
    def is_settled(self) -> bool:
        """Whether it has been scored for a whole window."""
        return self.last_score is not None and (
            self.last_score[0] - self.began_ns >= self.window_ns
        )

    def local_ns(self, now_ns: int) -> int:
        """Translate our time into the stream's."""
        return now_ns - self.offset_ns

    @property
    def deadline_ns(self) -> int:
        """When the next window is due at the latest, on our clock."""
        deadline_ns = self.grid.deadline_ns
        if not self._caught_up:
            deadline_ns = max(deadline_ns, self._catch_up_until_ns)
        return deadline_ns + self.offset_ns

    def push(self, message: Input, now_ns: int, counters: Counter[str]) -> bool:
        """Take a message or count why not; True if it was taken."""
        envelope = message.envelope
        refusal = self._refusal(message, self.local_ns(now_ns))
        last = self._seq.get(type(message))
        if last is None or last.seq < envelope.seq <= last.seq + _most_lost(last, envelope):
            lost = 0 if last is None else envelope.seq - last.seq - 1
            counters["messages_lost"] += lost
            self.dropped += lost + (refusal is not None)
            self._seq[type(message)] = envelope
        elif refusal is None:
            counters["senders_restarted"] += 1
            self._seq[type(message)] = envelope
        # Otherwise it was counted as lost when its successor came.
        if refusal is not None:
            counters[refusal] += 1
            return False
        self.arrived_ns = now_ns
        self.brought = True
        self.grid.wake()
        if isinstance(message, Text):
            counters["text_dropped"] += self.text.push(message)
            return True
        self._arrivals.append((envelope.t_end_ns, now_ns))
        if isinstance(message, Video):
            self.video.push(message)
        else:
            begins = self.audio.progress.newest_ns is None
            gaps = self.audio.push(message)
            counters["audio_gaps"] += gaps
            if begins or gaps:
                self.grid.align(envelope.t_start_ns, envelope.t_end_ns - envelope.t_start_ns)
            if self.words is not None:
                self.to_read += self.words.push(message, gaps, self.grid.t0_ns)
        if envelope.t_end_ns >= self._skip_ns:
            # A stream that nobody gets round to stays small.
            self._skip_ns = envelope.t_end_ns + self._keep_ns
            self.skip(envelope.t_end_ns - self._keep_ns, counters)
        return True

    def skip(self, before_ns: int, counters: Counter[str]) -> None:
        """Leave out what waits from before ``before_ns``, which no window will ask for.

        There is such only where the machine is too slow for all streams: then what is said now
        comes before what was said a while ago.
        """
        if samples := self.audio.skip(before_ns):
            counters["sound_skipped_ms"] += samples * 1000 // SAMPLE_RATE_HZ
        if faces := self.video.skip(before_ns):
            counters["faces_skipped"] += faces

    def refuses(self, message: Input, now_ns: int) -> bool:
        """Whether ``push`` would drop a message; ``now_ns`` is on our clock."""
        return self._refusal(message, self.local_ns(now_ns)) is not None

    def _refusal(self, message: Input, now_ns: int) -> str | None:
        """Name the counter of the reason to drop a message; None to take it."""
        envelope = message.envelope
        if envelope.t_end_ns > now_ns + FUTURE_NS:
            return "messages_out_of_time"
        oldest_ns = self.grid.next_end_ns - self.window_ns
        if isinstance(message, Text):
            newest_ns = self.text.newest_ns
        else:
            track = self.audio if isinstance(message, Audio) else self.video
            newest_ns = track.progress.newest_ns
        if envelope.t_end_ns <= oldest_ns:
            return self._repeated(message) or "messages_out_of_time"
        if newest_ns is None:
            return None
        begins_ns = envelope.t_end_ns if isinstance(message, Video) else envelope.t_start_ns
        if isinstance(message, Video) and 0 < envelope.t_end_ns - newest_ns < SPACING_NS:
            return None if message.last else "faces_too_fast"
        tolerance_ns = JITTER_NS if isinstance(message, Audio) else 0
        if begins_ns < newest_ns - tolerance_ns or envelope.t_end_ns <= newest_ns:
            return self._repeated(message) or "messages_late"
        return None

    def _repeated(self, message: Input) -> str | None:
        last = self._seq.get(type(message))
        repeated = last is not None and last.seq == message.envelope.seq
        return "messages_repeated" if repeated else None

    def take(self, now_ns: int) -> Due | None:
        """Hand out the stream's due window, if any; ``now_ns`` is on our clock.

        None of a stream that has moved here, as long as its past is still arriving.
        """
        if not self._caught_up and not self._catches_up(self.local_ns(now_ns)):
            return None
        return self.grid.take((self.audio.progress, self.video.progress), self.local_ns(now_ns))

    def _catches_up(self, now_ns: int) -> bool:
        newest = (self.audio.progress.newest_ns, self.video.progress.newest_ns)
        until_ns = 0 if self._resume is None else self._resume.until_ns
        arrived = max((ns for ns in newest if ns is not None), default=0) >= until_ns
        self._caught_up = arrived or now_ns >= self._catch_up_until_ns
        return self._caught_up

    def next_seq(self, end_ns: int, following: int) -> int:
        """Number of the score at ``end_ns``: ``following`` the last one here, or another worker's.

        After a move it counts on by hops, so that a client sees what was lost in between.
        """
        resume, self._resume = self._resume, None
        if resume is None or resume.seq < 0:
            return following
        return resume.seq + max(1, round((end_ns - resume.t_end_ns) / self.hop_ns))

    def arrival(self, end_ns: int) -> tuple[int, int]:
        """(end on the stream's clock, arrival on ours) of the newest sample up to ``end_ns``.

        Where the last hop brought none, the window's end stands for it.
        """
        before = [item for item in self._arrivals if end_ns - self.hop_ns < item[0] <= end_ns]
        return max(before) if before else (end_ns, end_ns + self.offset_ns)

    def news(self, end_ns: int) -> frozenset[str]:
        """Name the modalities that brought a voice, a face, a transcript since the last window."""
        since_ns = self._scored_ns
        new = {
            # The last of a voice may have waited for its block to be whole.
            "audio": self.audio.voiced.covered_ns(since_ns - self.audio.block_ns, end_ns) > 0,
            "video": self.video.seen.covered_ns(since_ns, end_ns) > 0,
            "text": self.text.is_new or (self.words is not None and self.words.is_new(end_ns)),
        }
        return frozenset(name for name, is_new in new.items() if is_new)

    def finish(self, end_ns: int) -> None:
        """Drop what no window after the one that ends at ``end_ns`` will ask for."""
        self._scored_ns = end_ns
        self.brought = False
        before_ns = end_ns - self.window_ns
        self.audio.finish(before_ns)
        self.video.finish(before_ns)
        self.text.finish(before_ns)
        if self.words is not None:
            self.to_read += self.words.finish(end_ns)


def _most_lost(last: Envelope, now: Envelope) -> int:
    """How far a sender's number can have risen since its last message, by their times."""
    span_ns = max(now.t_end_ns - now.t_start_ns, 1_000_000)
    return min(MAX_LOST, 2 * max(0, now.t_end_ns - last.t_end_ns) // span_ns + LOSS_SLACK)


def fault_of(message: Input, foreign: bool, now_ns: int) -> str | None:
    """Name the counter of an invalid message; None for a message in order.

    A first message is believed about where its stream begins, and content is encoded later
    together with that of other streams, so both are checked before anything is kept.
    """
    envelope = message.envelope
    reference_ns = envelope.t_sent_ns if foreign else now_ns
    if not 0 <= envelope.t_start_ns <= envelope.t_end_ns < MAX_TIME_NS:
        return "messages_malformed"
    if not -FUTURE_NS <= reference_ns - envelope.t_end_ns <= PAST_NS:
        return "messages_out_of_time"
    if isinstance(message, Audio):
        span_ns = envelope.t_end_ns - envelope.t_start_ns
        sound_ns = len(message.samples) * NS_PER_S // SAMPLE_RATE_HZ
        if not len(message.samples) or abs(span_ns - sound_ns) > JITTER_NS:
            return "messages_malformed"
    if isinstance(message, Video) and message.crop is not None:
        shape = message.crop.shape
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            return "messages_malformed"
    return None
