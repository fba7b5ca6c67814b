"""Balance of good and bad moods, and words that are given to other voices."""

from pathlib import Path

import pytest

from trainer.corpus import Clip, Corpus
from trainer.data.balance import balanced
from trainer.data.clips import PAIRS, StoredClip, pair
from trainer.recipe import AssemblyError, load
from trainer.selection import usable


def clip(corpus: str, number: int, valence: float, *names: str, weight: float = 1.0) -> StoredClip:
    keys = {name: f"{corpus}{number}{name}" for name in names or ("audio",)}
    name = f"{corpus}/{number}"
    return StoredClip(name, corpus, "train", valence, None, weight, 2.0, keys)


ACTED = tuple(clip("acted", n, v, weight=2.0) for n, v in enumerate((-2, -1, -1.5, -1.5, 0, 2)))
RATED = (clip("rated", 0, -1.0), clip("rated", 1, 0.5))


def test_good_and_bad_moods_of_a_balanced_corpus_weigh_alike() -> None:
    found = balanced((*ACTED, *RATED), {"acted": 1.0})
    acted, rated = found[: len(ACTED)], found[len(ACTED) :]
    assert sum(c.weight * c.valence for c in acted) == pytest.approx(0)
    assert sum(c.weight for c in acted) == pytest.approx(sum(c.weight for c in ACTED))
    assert acted[4].weight == 2.0  # neutral
    assert rated == RATED
    assert [c.id for c in found] == [c.id for c in (*ACTED, *RATED)]


def test_balance_goes_as_far_as_it_is_asked_to() -> None:
    def pull(share: float) -> float:
        return sum(c.weight * c.valence for c in balanced(ACTED, {"acted": share}))

    assert pull(0.0) == pytest.approx(sum(c.weight * c.valence for c in ACTED))
    assert pull(0.0) < pull(0.5) < pull(1.0) == pytest.approx(0)


def test_a_corpus_of_one_sign_stays_as_it_is() -> None:
    bad = ACTED[:5]
    assert balanced(bad, {"acted": 1.0, "absent": 1.0}) == bad


def test_words_of_bare_transcripts_are_given_to_voices_and_weigh_as_asked() -> None:
    voices = [clip("acted", n, n / 10 - 1) for n in range(20)]
    faces = [clip("faces", n, n / 10 - 1, "video") for n in range(20)]
    words = [clip("rated", n, n / 10 - 1, "text") for n in range(20)]
    spoken = [clip("spoken", n, n / 10 - 1, "audio", "text", "simulated_text") for n in range(20)]
    known = {key: c.valence for c in (*voices, *faces, *words, *spoken) for key in c.keys.values()}
    made = pair((*voices, *faces, *words, *spoken), 1.0, 0.5, 0, 0.5, words_weight=2.0)
    given = [one for one in made if one.keys["audio"].startswith("acted")]
    assert {one.keys["text"][:5] for one in given} == {"rated", "spoke"}
    for one in given:
        voice, face, said = (known[one.keys[name]] for name in ("audio", "video", "text"))
        assert abs(voice - said) <= 0.5 + 1e-9
        assert one.valence == pytest.approx((voice + face + 2 * said) / 4)
        assert one.understood == ("simulated_text" not in one.keys)
    own = [one for one in made if one.keys["audio"].startswith("spoken")]
    assert own
    assert all(one.keys["text"].startswith("spoken") and not one.understood for one in own)


def test_a_balance_of_an_unknown_corpus_is_refused() -> None:
    recipe = load("features", ("balance={acted=1.0, pairs=1.0}",))
    features = Clip("rated/0", "rated", "train", 1.0, transcript="good")
    corpus = Corpus("rated", Path("rated"), "manifest", (features,))
    with pytest.raises(AssemblyError, match=f"balance: no corpus acted, only rated, {PAIRS}"):
        usable(corpus, recipe)
