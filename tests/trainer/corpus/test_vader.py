"""VADER's rated sentences: ratings, sources, what a voice would not say, damaged lines."""

from pathlib import Path

import pytest

import trainer.corpus
from trainer.corpus import CorpusError


def _write(folder: Path, source: str, *lines: str) -> Path:
    path = folder / f"{source}_GroundTruth.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_each_source_is_a_corpus_on_the_products_scale(tmp_path: Path) -> None:
    _write(tmp_path, "tweets", "1\t2.8\tSo &amp; so, @ann is #blessed.", "2\t-4\tNo ''good'' day.")
    _write(tmp_path, "amazonReviewSnippets", "1_1\t-0.4\tIt broke.", "1_2\t1\tIt works.")
    corpus = trainer.corpus.open(tmp_path)
    assert [(clip.corpus, clip.valence, clip.transcript) for clip in corpus.clips] == [
        ("products", pytest.approx(-0.3), "It broke."),
        ("products", pytest.approx(0.75), "It works."),
        ("tweets", pytest.approx(2.1), "So & so, ann is blessed."),
        ("tweets", pytest.approx(-3.0), "No good day."),
    ]
    assert len({clip.split for clip in corpus.clips if clip.group == "products-1"}) == 1


def test_a_file_alone_and_its_splits_stay_the_same(tmp_path: Path) -> None:
    path = _write(tmp_path, "tweets", *(f"{n}\t{n / 100}\tword {n}" for n in range(300)))
    first, second = trainer.corpus.open(path), trainer.corpus.open(tmp_path)
    assert [clip.split for clip in first.clips] == [clip.split for clip in second.clips]
    sizes = {name: len(first.split(name)) for name in ("train", "valid", "test")}
    assert sum(sizes.values()) == 300
    assert min(sizes.values()) > 10


@pytest.mark.parametrize("text", ["so good :-)", "love it <3", "see http://t.co/x", "hm :/ no"])
def test_what_no_voice_says_is_left_out_and_counted(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, "tweets", f"1\t2\t{text}", "2\t1\tAt 8: (maybe) later, and so on.")
    corpus = trainer.corpus.open(path)
    assert [clip.id for clip in corpus.clips] == ["tweets-2"]
    (left_out,) = [problem for problem in corpus.problems if problem.severity == "lost"]
    assert (left_out.kind, left_out.count) == ("sentences with links or emoticons", 1)


def test_damaged_lines_are_counted_and_a_file_of_them_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "tweets", "1\tgood\tno number", "2\t1\tfine", "3\t1", "")
    corpus = trainer.corpus.open(path)
    assert [problem.count for problem in corpus.problems if problem.severity == "lost"] == [2]
    path.write_text("nothing here\n")
    with pytest.raises(CorpusError, match="no usable clip: 1 x lines that are not id, rating"):
        trainer.corpus.open(path)
