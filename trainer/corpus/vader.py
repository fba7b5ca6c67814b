"""VADER's rated sentences (Hutto and Gilbert, ICWSM 2014): tweets, reviews, editorials.

``<source>_GroundTruth.txt``, without a header, three columns apart by tabs: id, mean rating of 20
people in [-4, 4], text. The files lie in the source archive of the package ``vaderSentiment``
(MIT). Each source is a corpus of its own; ratings are brought to [-3, 3].

Sentences are read as if they were said: links and emoticons are nothing that a voice says, and
much of a rating may rest on them, so sentences with any are left out; of ``@name`` and ``#word``
the sign goes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from trainer.corpus.checks import Ledger, assemble, split_by_hash
from trainer.corpus.clip import Clip, Corpus, CorpusError
from trainer.corpus.tables import number

ENDING = "_GroundTruth.txt"
SCALE = 3 / 4
NAMES = {
    "amazonReviewSnippets": "products",
    "movieReviewSnippets": "films",
    "nytEditorialSnippets": "editorials",
}
"""What the sources are called in a recipe; ``tweets`` and others keep their names."""
UNSPOKEN = re.compile(
    r"https?:|www\.|[:;=][-o^']?[)(\[\]dp/\\|*](?!\w)|\b[8x]-?d\b|8-\)|<3|\^_*\^|:'\(",
    re.IGNORECASE,
)


def files(folder: Path) -> list[Path]:
    """The rated sources in a folder."""
    return sorted(folder.glob(f"*{ENDING}"))


def read(path: Path) -> Corpus:
    """Read one source, or all sources of a folder.

    Splits go by a hash of the group: a review, an article, a tweet.

    Raises:
        CorpusError: unreadable, or no line is a rated sentence.
    """
    ledger = Ledger()
    sources = files(path) if path.is_dir() else [path]
    clips = [clip for source in sources for clip in _clips(source, ledger)]
    return assemble(path, "VADER's rated sentences", clips, ledger)


def _clips(source: Path, ledger: Ledger) -> Iterator[Clip]:
    try:
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CorpusError(f"{source}: cannot be read: {error.strerror}") from None
    stem = source.name.removesuffix(ENDING)
    name = NAMES.get(stem, stem)
    for count, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        clip_id, rating, text = [*line.split("\t", 2), "", ""][:3]
        valence, said = number(rating), _as_said(text)
        if valence is None or not said:
            kind = "lines that are not id, rating and text, apart by tabs"
            ledger.add("lost", kind, f"{source.name}, line {count}")
        elif UNSPOKEN.search(text):
            ledger.add("lost", "sentences with links or emoticons", clip_id)
        else:
            group = f"{name}-{clip_id.split('_')[0]}"
            yield Clip(
                id=f"{name}-{clip_id}",
                corpus=name,
                split=split_by_hash(group),
                valence=valence * SCALE,
                group=group,
                transcript=said,
            )


def _as_said(text: str) -> str:
    text = html.unescape(text).replace("''", "").replace("`", "'").replace("\ufffd", "'")
    text = re.sub(r"[@#](\w)", r"\1", text)
    return re.sub(r"\s+", " ", text).strip(' "')
