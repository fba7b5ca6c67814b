"""A clip scored offline and the same clip replayed live through a worker agree."""

from __future__ import annotations

import multiprocessing
import time
from itertools import pairwise
from pathlib import Path

import pytest
import zmq
from msgspec.structs import replace

from engine.backends import select
from engine.capture.clip import SAMPLE_CLIP, read_clip
from engine.inference.worker import run_inference
from engine.score import score_clip
from engine.settings import EngineSettings, InferenceSettings, WordsSettings
from engine.wire.clock import now_ns, this_clock
from engine.wire.ingest import IngestSender
from engine.wire.messages import Score, Status
from engine.wire.scores import ScoreReceiver
from models import bundle as bundles
from tests.engine.inference.test_worker import free_endpoint, is_ready, wait_for
from tests.support.words import bundle_name

pytestmark = pytest.mark.slow

SPAWN = multiprocessing.get_context("spawn")
SECONDS = 8.0


def heard(score: Score) -> str:
    return " ".join(word.text for word in score.transcript.words or ())


def replay(clip: Path, settings: EngineSettings, receiver: ScoreReceiver) -> list[Score]:
    messages = list(read_clip(clip, settings))
    scores: list[Score] = []
    with IngestSender(settings.ingest) as sender:
        assert sender.raw.poll(5_000, zmq.POLLOUT)
        shift = now_ns() + 100_000_000
        for message in messages:
            envelope = message.envelope
            if envelope.t_end_ns > SECONDS * 1e9:
                break
            while (wait := envelope.t_end_ns + shift - now_ns()) > 0:
                time.sleep(wait / 1e9)
            live = replace(
                envelope,
                t_start_ns=envelope.t_start_ns + shift,
                t_end_ns=envelope.t_end_ns + shift,
                t_sent_ns=now_ns(),
                clock=this_clock(),
            )
            assert sender.send(replace(message, envelope=live))
            scores += [m for m in receiver.receive_all() if isinstance(m, Score)]
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        message = receiver.receive(100)
        if isinstance(message, Score):
            scores.append(message)
    return [
        replace(s, envelope=replace(s.envelope, t_end_ns=s.envelope.t_end_ns - shift))
        for s in scores
    ]


def test_offline_and_live_scores_of_a_clip_with_words_agree() -> None:
    clip, bundle = SAMPLE_CLIP, bundles.open(bundle_name())
    settings = EngineSettings(
        bundle=str(bundle.directory),
        ingest=free_endpoint(),
        scores=free_endpoint(),
        control=free_endpoint(),
        # A busy machine may send a picture late: then live waits for it, as offline does.
        inference=InferenceSettings(skew_ms=2_000),
        # And it may read words late: live says so, and counts them a window later.
        words=WordsSettings(
            mode="auto" if bundle.config.recogniser is None else "on",
            delay_ms=2_500,
            publish=True,
        ),
    )
    backend = select.choose("onnx", bundle, threads=1).backend
    offline = {s.envelope.t_end_ns: s for s in score_clip(clip, settings, bundle, backend)}
    stop = SPAWN.Event()
    worker = SPAWN.Process(target=run_inference, args=(settings, stop))
    worker.start()
    try:
        with ScoreReceiver(settings.scores) as receiver:
            wait_for(receiver, is_ready)
            live = replay(clip, settings, receiver)
            status = wait_for(receiver, lambda message: isinstance(message, Status))
    finally:
        stop.set()
        worker.join(10)
    assert len(offline) >= 10
    ends = [end_ns for end_ns in sorted(offline) if end_ns <= 27e9]  # then only silence follows
    assert {later - earlier for earlier, later in pairwise(ends)} == {500_000_000}
    compared = [score for score in live if score.envelope.t_end_ns <= (SECONDS - 0.5) * 1e9]
    assert len(compared) >= 8
    dropped = status.counters["windows_dropped"]
    if bundle.config.recogniser is not None:
        assert status.counters["words_read"] > 0
        worded = [score for score in compared if score.text.present]
        assert len(worded) >= 5
        assert max(len(heard(score).split()) for score in worded) >= 5
        assert min(score.text.weight for score in worded) > 0.05
    for score in compared:
        twin = offline[score.envelope.t_end_ns]
        assert score.valence_window == pytest.approx(twin.valence_window, abs=1e-3)
        assert score.audio.present == twin.audio.present
        assert score.video.present == twin.video.present
        assert score.text.present == twin.text.present
        assert heard(score) == heard(twin)
        for own, other in zip(
            (score.audio, score.video, score.text), (twin.audio, twin.video, twin.text), strict=True
        ):
            assert own.weight == pytest.approx(other.weight, abs=1e-3)
        if dropped == 0:
            assert score.valence == pytest.approx(twin.valence, abs=1e-3)
            assert score.interval.low == pytest.approx(twin.interval.low, abs=1e-3)
