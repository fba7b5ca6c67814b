"""Scoring messages as fast as the machine allows, through the same core as the live worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.backends.protocol import Backend
from engine.inference.core import InferenceCore
from engine.inference.text.given import GivenTextEncoder
from engine.inference.text.llm import speech_simulator
from engine.inference.text.words import words_source
from engine.settings import EngineSettings
from engine.wire.messages import Message, Score
from models.bundle import Bundle


def offline_core(settings: EngineSettings, bundle: Bundle, backend: Backend) -> InferenceCore:
    """A core that waits for words and transcripts instead of doing without what is late."""
    reader = GivenTextEncoder(bundle, wait=True)
    return InferenceCore(
        bundle,
        backend,
        settings.inference,
        encode_text=reader,
        simulate_speech=speech_simulator(bundle, wait=True),
        words=words_source(bundle, settings.words, reader, now=None),
        words_settings=settings.words,
    )


def score_messages(core: InferenceCore, messages: Iterable[Message]) -> Iterator[Score]:
    """Feed messages in time order to ``core`` as if each arrived at its own end.

    Windows that are waiting for a slow modality are scored at their deadline, before the next
    message is taken, so that no window is skipped however fast the messages come.
    """
    for message in messages:
        now_ns = message.envelope.t_end_ns
        deadline_ns = core.next_deadline_ns()
        while deadline_ns is not None and deadline_ns <= now_ns:
            yield from core.pop_ready(deadline_ns)
            deadline_ns = core.next_deadline_ns()
        core.push(message, now_ns)
        yield from core.pop_ready(now_ns)
