"""What people say is shown where the engine publishes it, and recorded only when asked for."""

import json

from msgspec.structs import replace

from clients.recorder import without_words
from clients.watch import caption
from engine.wire.codec import decode, encode
from engine.wire.messages import Score, TextState, Word
from engine.wire.rows import row_from, row_of
from tests.support.scores import make_score

SAID = (Word("so", 10, 20, False), Word("good", 20, 30, False), Word("to", 30, 40, True))


def spoken() -> Score:
    return replace(make_score(), transcript=TextState("simulated", SAID))


def test_words_travel_with_their_times() -> None:
    score = spoken()
    assert decode(encode(score)) == score
    assert decode(encode(make_score())).transcript.words is None


def test_a_row_holds_words_as_json_and_gives_them_back() -> None:
    values = row_of(spoken(), 1.0).values()
    assert [word["text"] for word in json.loads(values["text_words"])] == ["so", "good", "to"]
    assert row_from(values).score.transcript.words == SAID


def test_a_recording_leaves_words_out_unless_asked() -> None:
    silent = without_words(spoken())
    assert silent.transcript == TextState("simulated")
    assert row_of(silent, 1.0).values()["text_words"] is None
    assert replace(silent, transcript=spoken().transcript) == spoken()


def test_a_caption_puts_what_may_change_in_brackets() -> None:
    assert caption(spoken()) == "so good (to)"
    assert caption(without_words(spoken())) == ""
