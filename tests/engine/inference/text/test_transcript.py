"""What is said lately is read together; what was not understood is left out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from engine.inference.text.belief import believed, repetition
from engine.inference.text.pieces import Reading
from engine.inference.text.transcript import Passage, Transcript
from models.recogniser.decoding import NOTHING, Transcription, token_limit
from models.spec import BeliefSpec, RecogniserSpec

MS = 1_000_000
S = 1000 * MS


def reading(piece: int, order: int, start_ms: int, end_ms: int, final: bool = True) -> Reading:
    return Reading(
        piece=piece,
        order=order,
        final=final,
        t_start_ns=start_ms * MS,
        t_end_ns=end_ms * MS,
        counts_from_ns=(end_ms + 750) * MS,
        voiced_ns=(end_ms - start_ms) * MS,
        samples=np.zeros(16, np.int16),
    )


def said(text: str, logprob: float = -0.05) -> Transcription:
    return Transcription(text, tuple(range(10, 10 + len(text.split()))), logprob, True)


def transcript(span_ms: int = 10_000) -> Transcript:
    spec = RecogniserSpec(tokens="t", text_span_ms=span_ms, belief=BeliefSpec(min_logprob=-0.45))
    return Transcript(spec)


def take(into: Transcript, what: Reading, found: Transcription) -> Passage:
    passage = into.accept(what, found)
    assert passage is not None
    return passage


def test_utterances_of_the_span_are_joined_in_order() -> None:
    rolling = transcript(span_ms=5_000)
    take(rolling, reading(0, 0, 0, 1000), said("That was"))
    assert take(rolling, reading(1, 1, 1500, 3000), said("really good.")).text == (
        "That was really good."
    )
    late = take(rolling, reading(2, 2, 5500, 6500), said("Well."))
    assert late.text == "really good. Well."
    assert late.spans == ((1500 * MS, 3000 * MS), (5500 * MS, 6500 * MS))
    assert late.counts_from_ns == 7250 * MS


def test_a_later_reading_of_a_piece_replaces_the_earlier_one() -> None:
    rolling = transcript()
    tentative = take(rolling, reading(0, 0, 0, 1000, final=False), said("I do"))
    assert [word.tentative for word in tentative.words] == [True, True]
    final = take(rolling, reading(0, 1, 0, 1600), said("I do not like it"))
    assert final.text == "I do not like it"
    assert not any(word.tentative for word in final.words)
    assert rolling.accept(reading(0, 0, 0, 1000, final=False), said("I do")) is None


def test_a_word_cut_in_half_does_not_undo_what_was_understood() -> None:
    rolling = transcript()
    take(rolling, reading(0, 0, 0, 1000, final=False), said("I do"))
    half = take(rolling, reading(0, 1, 0, 2000, final=False), said("I do not lie lie", -1.2))
    assert (half.text, half.counts_from_ns) == ("I do", 2750 * MS)
    assert take(rolling, reading(0, 2, 0, 2400), said("mumble", -1.2)).text == "", "the end decides"


def test_a_piece_that_is_read_late_joins_what_is_known() -> None:
    rolling = transcript()
    first = take(rolling, reading(1, 1, 2000, 3000), said("not good"))
    both = take(rolling, reading(0, 0, 0, 1500), said("It was"))
    assert both.text == "It was not good"
    assert (both.order, both.counts_from_ns) == (first.order, first.counts_from_ns)


def test_words_that_are_not_believed_are_left_out_and_lower_the_quality() -> None:
    rolling = transcript()
    sure = take(rolling, reading(0, 0, 0, 1000), said("good morning"))
    assert sure.quality == pytest.approx(math.exp(-0.05))
    mixed = take(rolling, reading(1, 1, 1500, 3000), said("do you vastly yet", -1.9))
    assert mixed.text == "good morning"
    assert mixed.quality < 0.35
    assert mixed.spans == ((0, 1000 * MS),)


def test_nothing_understood_is_no_text() -> None:
    passage = take(transcript(), reading(0, 0, 0, 1000), NOTHING)
    assert (passage.text, passage.words, passage.spans, passage.quality) == ("", (), (), 0.0)


def test_words_are_spread_over_the_time_of_their_piece() -> None:
    words = take(transcript(), reading(0, 0, 1000, 2000), said("a longest b")).words
    assert [word.text for word in words] == ["a", "longest", "b"]
    assert words[0].t_start_ns == 1000 * MS
    assert words[-1].t_end_ns == 2000 * MS
    assert all(a.t_end_ns == b.t_start_ns for a, b in itertools.pairwise(words))
    assert words[1].t_end_ns - words[1].t_start_ns > 2 * (words[0].t_end_ns - words[0].t_start_ns)


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ((1, 2, 3, 4, 5, 6), 0.0),
        ((7, 7, 7, 7, 7, 7), 5 / 6),
        ((1, 2, 1, 2, 1, 2), 4 / 6),
        ((1, 2, 3, 3, 4, 5, 6, 7, 8, 9), 0.1),
        ((1, 1), 0.0),
    ],
)
def test_repetition_is_the_share_that_says_the_same_again(
    tokens: tuple[int, ...], share: float
) -> None:
    assert repetition(tokens) == pytest.approx(share)


def test_belief_asks_for_probable_words_that_fit_the_time() -> None:
    spec = BeliefSpec(min_logprob=-0.4, min_tokens_per_s=0.5, max_repetition=0.5)
    good = said("it was a good day")
    assert believed(good, 2 * S, spec)
    assert not believed(said("it was a good day", -0.5), 2 * S, spec)
    assert not believed(good, 20 * S, spec)  # five words in twenty seconds
    assert not believed(good, 200 * MS, BeliefSpec(max_tokens_per_s=5, min_logprob=-0.4))
    looped = Transcription("ha ha ha ha ha ha", (9,) * 6, -0.01, True)
    assert not believed(looped, 2 * S, spec)
    assert not believed(Transcription("and on", (1, 2), -0.01, False), S, spec)
    assert not believed(NOTHING, S, spec)


def test_who_talks_fast_is_written_down_and_believed() -> None:
    voiced_s, tokens = 3.2, 29  # of a person who talks to a camera
    assert token_limit(round(voiced_s * 16_000)) > tokens
    fast = Transcription("many words", tuple(range(10, 10 + tokens)), -0.12, True)
    assert believed(fast, round(voiced_s * S), BeliefSpec())
    assert not believed(fast, S, BeliefSpec())
