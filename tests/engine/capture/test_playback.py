"""A clip played as if live: again and again, and on a machine that stands still for a while."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path

import pytest

from engine.capture import playback
from engine.capture.clip import SAMPLE_CLIP, read_clip
from engine.capture.device import Media
from engine.capture.playback import Playback, passes
from engine.settings import load
from engine.wire.clock import now_ns
from engine.wire.messages import Audio, Video

pytestmark = pytest.mark.slow


def test_a_clip_that_was_held_up_continues_in_the_present() -> None:
    clip = Playback("sample", "s", load())
    lags_ns: list[int] = []
    ends_ns: dict[type, list[int]] = {Audio: [], Video: []}
    clip.open()
    try:
        while len(lags_ns) < 60:
            for message in clip.read(0.1) or ():
                lags_ns.append(now_ns() - message.envelope.t_end_ns)
                ends_ns[type(message)].append(message.envelope.t_end_ns)
                if len(lags_ns) == 10:
                    time.sleep(3.0)  # the process is stopped, or the machine asleep
    finally:
        clip.close()
    assert clip.counters["pauses"] > 0
    assert lags_ns[-1] < 2_000_000_000
    for ends in ends_ns.values():
        assert ends == sorted(ends)
        assert max(late - early for early, late in pairwise(ends)) > 2_000_000_000


def test_every_pass_of_a_clip_comes_after_the_one_before(shared_data: Path) -> None:
    clip = shared_data / "clips" / "edge_noface_face.mov"  # its picture lasts longer than its sound
    once = list(read_clip(clip, load()))
    twice = list(islice(passes(clip, "s", load()), 2 * len(once)))
    for kind in (Audio, Video):
        ends = [m.envelope.t_end_ns for m in twice if isinstance(m, kind)]
        assert len(ends) == 2 * sum(isinstance(m, kind) for m in once)
        assert all(early < late for early, late in pairwise(ends))


def test_decoding_ahead_fills_up_again_once_there_is_room_for_a_burst() -> None:
    made: Counter[str] = Counter()

    def messages() -> Iterator[Media]:
        for message in cycle(islice(read_clip(SAMPLE_CLIP, load()), 8)):
            made["messages"] += 1
            yield message

    decoder = playback._Decoder(messages())

    def wait_until_full() -> None:
        while not decoder.ahead.full():
            time.sleep(0.01)

    try:
        wait_until_full()
        for _ in range(playback.BURST):
            decoder.ahead.get()
        wait_until_full()
        assert made["messages"] >= playback.AHEAD + playback.BURST
    finally:
        decoder.close()
    assert not decoder._thread.is_alive()
