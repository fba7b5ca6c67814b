"""The pure core: messages in, scores out, the clock as an argument.

It owns no socket, thread or file; the live worker and offline scoring both drive it, which
is why they agree. ``push`` only files a message; ``pop_ready`` encodes what is new, cuts the due
windows of all streams, fuses them in one batch and filters each stream's valence.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

from engine.backends.protocol import Backend
from engine.inference.explanation import is_due, present
from engine.inference.forward import (
    Fused,
    Fuser,
    TextEncode,
    encode,
    encode_ahead,
    encode_blocks,
)
from engine.inference.grid import LIVE_PATIENCE_NS
from engine.inference.outcome import Outcome, score_of
from engine.inference.rolling import Observation
from engine.inference.roster import Roster
from engine.inference.stream import StreamState, fault_of
from engine.inference.text.backlog import Job
from engine.inference.text.recognition import WordsSource
from engine.inference.text.spoken import SpeechSimulator
from engine.inference.window import Window, cut
from engine.settings import InferenceSettings, WordsSettings
from engine.wire.clock import Clocks
from engine.wire.fields import WireError
from engine.wire.jpeg import opened
from engine.wire.membership import Held
from engine.wire.messages import (
    Audio,
    Clock,
    Message,
    ModelInfo,
    Score,
    Text,
    Video,
)
from models.bundle import Bundle

SPEAKING_NS = 100_000_000
"""A voice within this long before the window's end counts as speaking now."""
BLOCKS_WHEN_LATE = 2
"""Blocks of a stream's sound in one run while the machine is too slow for all streams: the tone is
up to a block older then, and more of them are scored."""


class InferenceCore:
    """Scores any number of streams with one bundle.

    Args:
        bundle: the opened bundle; its calibration makes the intervals.
        backend: runs its graphs.
        settings: windows, skew and filter.
        clock: our own clock; messages of another one are compared through an offset. None
            takes every message's clock as ours (a clip read from a file).
        encode_text: a transcript to its frames; None counts transcripts as unavailable.
        simulate_speech: text simulation by speech segment, for a bundle with a language model.
        words: reads what is said, for a bundle with a recogniser; None: no words.
        words_settings: when words count, and whether scores carry them.
        timer: nanoseconds for measuring the stages.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        settings: InferenceSettings,
        *,
        clock: Clock | None = None,
        encode_text: TextEncode | None = None,
        simulate_speech: SpeechSimulator | None = None,
        words: WordsSource | None = None,
        words_settings: WordsSettings | None = None,
        timer: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._config = bundle.config
        self._coverage = bundle.calibration.coverage
        self._backend = backend
        self._settings = settings
        self._clocks = None if clock is None else Clocks(clock)
        self._encode_text = encode_text
        self._simulate_speech = simulate_speech
        self._words = words
        self._words_settings = words_settings or WordsSettings()
        self._timer = timer
        self._counters: Counter[str] = Counter()
        self._roster = Roster(settings, self._counters, timer)
        self._fresh: set[str] = set()
        self._fuser = Fuser(bundle, backend, self._counters)
        self.model = ModelInfo(
            name=bundle.config.name,
            version=bundle.config.version,
            sha256=bundle.sha256,
            backend=f"{backend.name}:{backend.device}",
            precision=backend.precision,
            trained=bundle.config.trained,
            coverage=bundle.calibration.coverage,
        )

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted so far, by name."""
        words = self._words.counters if self._words is not None else {}
        return {**self._counters, **words}

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams that are known now."""
        return self._roster.names

    def push(self, message: Message, now_ns: int) -> bool:
        """File a message that arrived at ``now_ns``; False if it was dropped (and counted)."""
        if not isinstance(message, Audio | Video | Text):
            self._counters["messages_unexpected"] += 1
            return False
        self._counters["messages"] += 1
        envelope = message.envelope
        foreign = self._clocks is not None and not self._clocks.is_own(envelope.clock)
        if (fault := fault_of(message, foreign, now_ns)) is not None:
            self._counters[fault] += 1
            return False
        if (refusal := self._roster.refusal(envelope)) is not None:
            self._counters[refusal] += 1
            return False
        state = self._roster.current(envelope)
        # A picture is opened only where it will be taken: that is most of the work it makes.
        if isinstance(message, Video) and not (state and state.refuses(message, now_ns)):
            try:
                message = opened(message)
            except WireError:
                self._counters["messages_malformed"] += 1
                return False
        if state is None:
            state = StreamState(
                envelope,
                self._config,
                self._settings,
                now_ns,
                None if self._words is None else self._words_settings.delay_ms,
                self._coverage,
            )
        if foreign and self._clocks is not None:
            # None for a repetition alone, which no sender of captures makes.
            state.offset_ns = self._clocks.observe(envelope, now_ns) or 0
        self._roster.enter(state)
        self._fresh.add(state.name)
        rested = state.grid.rests
        taken = state.push(message, now_ns, self._counters)
        if rested and not state.grid.rests:
            self._roster.reschedule(state)
        if self._words is not None and state.to_read:
            self._ask_for_words(self._words, state, now_ns)
        return taken

    def learn_clock(self, clock: Clock, offset_ns: int) -> None:
        """Compare stamps of ``clock`` through a measured offset: our clock minus that one."""
        if self._clocks is None or self._clocks.is_own(clock):
            return
        self._clocks.learn(clock, offset_ns)
        self._roster.learn_offset(clock, offset_ns)

    def mark(self, label: str, stream: str | None = None) -> int:
        """Put a label on the next score of a stream, or of all; return how many it reaches.

        Several marks within one hop stand in one score, as far as there is room for them.
        """
        marked = [s for s in self._roster if stream is None or s.name == stream]
        return sum(state.take_mark(label) for state in marked)

    def pop_forgotten(self) -> list[str]:
        """Hand out the names of the streams that were forgotten since the last call."""
        return self._roster.pop_forgotten()

    def forget(self) -> None:
        """Forget every stream, as after a pause; counters and score numbers go on."""
        self._roster.forget()

    def release(self, stream: str, epoch: int) -> Held:
        """Stop at once with a stream held under ``epoch`` or an older one: it lives elsewhere now.

        Returns how far it was scored; asked once more, the same.
        """
        return self._roster.release(stream, epoch)

    def pop_ended(self) -> list[str]:
        """Hand out the streams that have ended since the last call: their people have left."""
        return self._roster.pop_ended()

    def held(self) -> dict[str, Held]:
        """The streams that are here, and how far each is scored."""
        return self._roster.held()

    def next_deadline_ns(self) -> int | None:
        """When ``pop_ready`` must be called even if no message comes; None without streams."""
        return self._roster.next_deadline_ns()

    def pop_ready(self, now_ns: int) -> list[Score]:
        """Score every window that is due at ``now_ns``, all of them in one batch."""
        started = self._timer()
        due = self._roster.take(now_ns, started, self._encode_blocks)
        if not due:
            return []
        if self._simulate_speech is not None:
            self._exchange_speech(self._simulate_speech, [state for state, _ in due])
        if self._words is not None:
            self._take_words(self._words)
        encode([s for s, _ in due], self._backend, self._encode_text, self._counters, self._blocks)
        windows = [cut(state, window, self._settings) for state, window in due]
        if self._blocks > 1:
            self._counters["windows_tone_late"] += sum(state.audio.in_blocks for state, _ in due)
        encoded = self._timer()
        fused = self._fuse(windows)
        finished = self._timer()
        scores = []
        for window, result in zip(windows, fused, strict=True):
            stages = (encoded - started, finished - encoded)
            score = self._score(window, result, now_ns, stages)
            scores.append(score)
            quiet = now_ns - window.stream.arrived_ns > LIVE_PATIENCE_NS
            rests = quiet and score.reason == "no_voice_and_no_face"
            window.stream.finish(window.due.end_ns)
            if rests:
                window.stream.grid.rest()
            if self._words is not None and window.stream.to_read:
                self._ask_for_words(self._words, window.stream, now_ns)
            over_ns = window.stream.video.over_ns
            here = self._roster.get(window.stream.name) is window.stream
            if here and over_ns is not None and window.due.end_ns >= over_ns:
                self._roster.end(window.stream.name)
        return scores

    def work_ahead(self) -> bool:
        """Encode a part of what waits for windows yet to come; False where nothing is left.

        To be called while no window is due, so that a window finds most of its work done. The
        scores are the same without it.
        """
        if not self._fresh:
            return False
        states = self._roster.in_order(self._fresh)
        for place, state in enumerate(states, 1):
            if encode_ahead(state, islice(states, place, None), self._backend, self._blocks):
                return True
            self._fresh.discard(state.name)
        self._fresh.clear()
        return False

    @property
    def _blocks(self) -> int:
        """Blocks of sound that are encoded in one run: two cost a third less than one and one."""
        return BLOCKS_WHEN_LATE if self._roster.is_late else 1

    def _encode_blocks(self, state: StreamState) -> None:
        encode_blocks(state, self._backend, self._blocks)

    def _explains(self, window: Window) -> bool:
        """Whether each modality of a window is asked by itself."""
        place = round((window.due.end_ns - window.stream.grid.t0_ns) / window.stream.hop_ns)
        return self._settings.explain and is_due(place, len(self._roster))

    def _fuse(self, windows: Sequence[Window]) -> list[Fused | None]:
        """What the network says of windows; of one that got nothing new it has said it before."""
        results = [self._unchanged(window) for window in windows]
        asked = [row for row, (known, _) in enumerate(results) if not known]
        found = self._fuser.fuse(
            [windows[row] for row in asked], [self._explains(windows[row]) for row in asked]
        )
        for row, fused in zip(asked, found, strict=True):
            windows[row].stream.fused = (present(windows[row]), fused)
            results[row] = (True, fused)
        return [fused for _, fused in results]

    @staticmethod
    def _unchanged(window: Window) -> tuple[bool, Fused | None]:
        """Whether a window merely lost its oldest part, and then what was said of the last one."""
        last = window.stream.fused
        if window.is_new or window.stream.brought or last is None or last[0] != present(window):
            return False, None
        return True, last[1]

    def _exchange_speech(self, simulator: SpeechSimulator, due: Sequence[StreamState]) -> None:
        """Hand over the speech that has ended, and file the text of what was handed over before."""
        for state in due:
            for segment in state.audio.speech.pop_ready() if state.audio.speech else ():
                self._counters["speech_dropped"] += simulator.submit(segment)
        for spoken in simulator.pop_ready():
            owner = self._roster.get(spoken.segment.stream)
            # The stream may be gone, or begun again, by the time that its text is there.
            if owner is None or owner.clock != spoken.segment.clock:
                self._counters["speech_late"] += 1
            else:
                owner.audio.accept_spoken(spoken)

    def _ask_for_words(self, words: WordsSource, state: StreamState, now_ns: int) -> None:
        """Hand over the readings that a chunk of sound gave rise to."""
        assert state.words is not None
        for reading in state.to_read:
            needed_ns = reading.counts_from_ns + state.offset_ns
            words.submit(Job(state.name, state.words.session, reading, now_ns, needed_ns))
        state.to_read.clear()

    def _take_words(self, words: WordsSource) -> None:
        """File what was read since the last windows."""
        for item in words.pop_ready():
            owner = self._roster.get(item.stream)
            # The stream may be gone, or begun again, by the time that its words are there.
            if owner is None or owner.words is None or owner.words.session != item.session:
                self._counters["words_late"] += 1
            else:
                self._counters["words_late"] += owner.words.add(item.passage, item.frames)

    def _score(
        self, window: Window, fused: Fused | None, now_ns: int, stages_ns: tuple[int, int]
    ) -> Score:
        state, end_ns = window.stream, window.due.end_ns
        # A window that saw and heard nothing new repeats old evidence, which is none about now.
        seen = None
        if fused is not None and window.is_new:
            seen = Observation(fused.valence, fused.low, fused.high, window.evidence)
        rolling = state.rolling.update((end_ns - state.began_ns) / 1e9, seen)
        if fused is not None and fused.alone is not None:
            state.said = fused.alone
        said = {name: state.said[name] for name in present(window) if name in state.said}
        mark, state.mark = state.mark, None
        spoke_on = state.audio.voiced.covered_ns(end_ns - SPEAKING_NS, end_ns) > 0
        seq = self._roster.next_seq(state, end_ns)
        self._counters["scores"] += 1
        outcome = Outcome(window, fused, said, rolling, seq, mark, spoke_on, now_ns, stages_ns)
        return score_of(outcome, self.model, self._words_settings.publish)
