"""Words of real voices, through the engine: believed, counted in time, and kept private."""

from __future__ import annotations

import csv
import shutil
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace as with_fields
from pathlib import Path

import numpy as np
import pytest

from engine.backends.protocol import Backend, BackendError
from engine.backends.select import choose
from engine.capture.speech import SpeechDetector
from engine.inference.core import InferenceCore
from engine.inference.offline import score_messages
from engine.inference.text.backlog import Job
from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.pieces import PieceCutter
from engine.inference.text.recognition import Recognised, ThreadedWords
from engine.inference.text.words import words_source
from engine.settings import InferenceSettings, SpeechSettings, WordsSettings
from engine.wire.messages import Audio, Clock, Envelope, Score
from models.bundle import Bundle, BundleError
from models.bundle import open as open_bundle
from tests.support.words import words_bundle
from trainer.corpus import Media
from trainer.features.media import MediaReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CHUNK = 800
HERE = Clock("test", "test")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return words_bundle()


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Backend:
    return choose("onnx", bundle).backend


def voices(shared_data: Path, name: str, count: int) -> list[np.ndarray]:
    folder = shared_data / "voices" / name
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    reader = MediaReader()
    chosen = rows[:: len(rows) // count][:count]
    return [reader.samples(Media(folder / row["audio"])) for row in chosen]


def messages(samples: np.ndarray, stream: str = "s") -> Iterator[Audio]:
    """Sound as a capture worker sends it."""
    detector = SpeechDetector(SpeechSettings())
    whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    for number, first in enumerate(range(0, len(whole) - CHUNK, CHUNK)):
        part = whole[first : first + CHUNK]
        start_ns, end_ns = (at * 10**9 // 16_000 for at in (first, first + CHUNK))
        yield Audio(
            envelope=Envelope(stream, number, start_ns, end_ns, end_ns, HERE),
            samples=part,
            speech=tuple(detector.push(part)),
            frame_ms=1000 * detector.frame_samples // 16_000,
            level_dbfs=-20.0,
        )


def scored(
    bundle: Bundle, backend: Backend, samples: np.ndarray, words: WordsSettings
) -> list[Score]:
    core = InferenceCore(
        bundle,
        backend,
        InferenceSettings(),
        words=words_source(bundle, words, GivenTextEncoder(bundle, wait=True), now=None),
        words_settings=words,
    )
    quiet = np.zeros(16_000, np.float32)
    return list(score_messages(core, messages(np.concatenate((samples, quiet)))))


class Asked:
    """Takes note of what was asked for, and reads nothing."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def pop_ready(self) -> list[Recognised]:
        return []


def test_a_stream_that_breaks_off_within_a_word_is_read_and_its_sound_let_go(
    bundle: Bundle, backend: Backend
) -> None:
    asked = Asked()
    core = InferenceCore(bundle, backend, InferenceSettings(), words=asked)
    for number in range(20):
        start_ns, end_ns = (at * CHUNK * 10**9 // 16_000 for at in (number, number + 1))
        samples = np.full(CHUNK, 1000, np.int16)
        envelope = Envelope("s", number, start_ns, end_ns, end_ns, HERE)
        core.push(Audio(envelope, samples, (True,) * 5, 10, -20.0), end_ns)
    sound = weakref.ref(samples)
    del samples
    for now_ns in range(10**9, 8 * 10**9, 100_000_000):
        core.pop_ready(now_ns)
        core.work_ahead()
    (last,) = [job.reading for job in asked.jobs if job.reading.final]
    assert last.t_end_ns == 10**9
    assert sound() is None


def said(score: Score) -> str:
    return " ".join(word.text for word in score.transcript.words or ()).lower()


def test_a_spoken_sentence_is_text_within_the_delay(
    bundle: Bundle, backend: Backend, shared_data: Path
) -> None:
    understood = 0
    for samples in voices(shared_data, "ravdess", 4):
        scores = scored(bundle, backend, samples, WordsSettings(publish=True))
        known = [score for score in scores if "by the door" in said(score)]
        understood += bool(known)
        for score in known:
            assert score.text_source == "simulated"
            assert score.text.present
            assert score.text.quality is not None
            assert score.text.quality > 0.5
            words = score.transcript.words
            assert words
            assert all(w.t_end_ns + 750_000_000 <= score.envelope.t_end_ns for w in words)
    assert understood >= 3


def test_another_language_is_hardly_ever_text(
    bundle: Bundle, backend: Backend, shared_data: Path
) -> None:
    windows = believed = 0
    for samples in voices(shared_data, "nemo", 4):
        scores = scored(bundle, backend, samples, WordsSettings())
        windows += sum(score.audio.present for score in scores)
        believed += sum(score.text.present for score in scores)
    assert windows > 8
    assert believed <= 0.25 * windows  # a small sample; benchmarks measure many


def test_words_leave_the_worker_only_where_that_is_wished(
    bundle: Bundle, backend: Backend, shared_data: Path
) -> None:
    (samples,) = voices(shared_data, "ravdess", 1)
    scores = scored(bundle, backend, samples, WordsSettings())
    assert any(score.text.present for score in scores)
    assert all(score.transcript.words is None for score in scores)


def test_words_can_be_switched_off(bundle: Bundle, backend: Backend, shared_data: Path) -> None:
    off = WordsSettings(mode="off")
    assert words_source(bundle, off, GivenTextEncoder(bundle, wait=True), now=None) is None
    (samples,) = voices(shared_data, "ravdess", 1)
    scores = scored(bundle, backend, samples, off)
    assert any(score.audio.present for score in scores)
    assert not any(score.text.present for score in scores)
    assert {score.text_source for score in scores} == {"none"}


def test_the_thread_reads_what_offline_reads(
    bundle: Bundle, backend: Backend, shared_data: Path
) -> None:
    """Fed as fast as the machine takes it, with time for every reading, live equals offline."""
    (samples,) = voices(shared_data, "ravdess", 1)
    expected = scored(bundle, backend, samples, WordsSettings())
    source = words_source(
        bundle, WordsSettings(), GivenTextEncoder(bundle, wait=True), now=lambda: 0
    )
    assert isinstance(source, ThreadedWords)
    core = InferenceCore(bundle, backend, InferenceSettings(), words=source)
    found: list[Score] = []
    for message in messages(np.concatenate((samples, np.zeros(16_000, np.float32)))):
        core.push(message, message.envelope.t_end_ns)
        settle(source)
        found += core.pop_ready(message.envelope.t_end_ns)
    assert source.counters["words_read"] >= 2
    assert core.counters["words_late"] == 0
    for live, offline in zip(found, expected, strict=False):
        assert live.text.present == offline.text.present
        assert live.valence_window == pytest.approx(offline.valence_window, abs=1e-3)


def settle(source: ThreadedWords) -> None:
    end = time.monotonic() + 60
    while source.busy:
        assert time.monotonic() < end
        time.sleep(0.002)


def copy(bundle: Bundle, to: Path, without: str) -> Path:
    """A copy of a bundle by links, but for one file."""
    to.mkdir()
    for file in bundle.directory.iterdir():
        if file.name != without:
            (to / file.name).symlink_to(file)
    shutil.copyfile(bundle.directory / without, to / without)
    return to


def test_a_missing_or_altered_recogniser_is_named(bundle: Bundle, tmp_path: Path) -> None:
    name = bundle.config.graphs["recogniser_decoder"]
    folder = copy(bundle, tmp_path / "bundle", name)
    with (folder / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=rf"{name}: sha256: expected"):
        open_bundle(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: the file is missing"):
        open_bundle(folder)


def test_tokens_of_another_model_are_refused_or_go_without_words(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recogniser = bundle.config.recogniser
    assert recogniser is not None
    assert recogniser.tokens is not None
    folder = copy(bundle, tmp_path / "bundle", recogniser.tokens)
    (folder / recogniser.tokens).write_text('["a", "b"]')
    broken = with_fields(bundle, directory=folder)
    reader = GivenTextEncoder(broken, wait=True)
    with pytest.raises(BackendError, match=r"words\.mode: on, but .* got 2: the table of another"):
        words_source(broken, WordsSettings(mode="on"), reader, now=lambda: 0)
    source = words_source(broken, WordsSettings(mode="auto"), reader, now=lambda: 0)
    assert isinstance(source, ThreadedWords)
    end = time.monotonic() + 60
    while source.failure is None and time.monotonic() < end:
        time.sleep(0.01)
    assert source.failure is not None
    assert "the table of another model" in caplog.text


def test_streams_that_all_speak_are_thinned_and_counted(bundle: Bundle, shared_data: Path) -> None:
    """A flood of readings: the thread takes what it can, the rest is counted, nothing waits."""
    (samples,) = voices(shared_data, "ravdess", 1)
    cutter = PieceCutter(4_000_000_000, 750_000_000)
    readings = []
    for message in messages(samples):
        cutter.push(message, False, 0)
        readings += cutter.pop_ready()
    now = [0]
    source = words_source(
        bundle, WordsSettings(mode="on"), GivenTextEncoder(bundle, wait=True), now=lambda: now[0]
    )
    assert isinstance(source, ThreadedWords)
    for session in range(40):
        for reading in readings:
            source.submit(Job(f"s{session}", session, reading, 0, 750_000_000))
    now[0] = 60_000_000_000  # what still waits has waited for a minute
    settle(source)
    counted = source.counters
    asked = 40 * len(readings)
    assert counted["words_dropped"] > 0
    assert counted["words_read"] + counted["words_thinned"] + counted["words_dropped"] == asked


def test_a_bundle_without_a_recogniser_cannot_be_made_to_have_words() -> None:
    plain = open_bundle("default")
    if plain.config.recogniser is not None:
        plain = with_fields(plain, config=plain.config.model_copy(update={"recogniser": None}))
    reader = GivenTextEncoder(plain, wait=True)
    assert words_source(plain, WordsSettings(), reader, now=None) is None
    with pytest.raises(BackendError, match="has no recogniser"):
        words_source(plain, WordsSettings(mode="on"), reader, now=None)
