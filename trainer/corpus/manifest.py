"""``manifest.csv``, our own format: one row per clip, paths relative to the file.

Columns: ``id``, ``split``, ``valence``; optional ``group``, ``audio``, ``video``, ``image`` (a face
crop), ``text``, ``start``, ``end`` (seconds within the media), ``seconds``, ``weight``, and for the
emotion loss ``emotion`` (a name) or ``votes_NAME`` per emotion, which come first. Others are
ignored. An archive of the manifest's name (``faces.zip`` next to ``faces.csv``) may hold the files.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import EMOTIONS, Clip, Corpus, CorpusError, Media
from trainer.corpus.tables import header, number, table

COLUMNS = ("id", "split", "valence")
OPTIONAL = (
    "group",
    "audio",
    "video",
    "image",
    "text",
    "start",
    "end",
    "seconds",
    "weight",
    "emotion",
    *(f"votes_{emotion}" for emotion in EMOTIONS),
)


def read(path: Path) -> Corpus:
    """Read a manifest.

    Raises:
        CorpusError: unreadable, a column or every clip is missing, a damaged archive.
    """
    ledger = Ledger()
    finder = _Finder(path)
    clips = []
    name = corpus_name(path)
    _check_columns(header(path), ledger)
    for row in table(path, COLUMNS, ledger):
        clip = _clip(row, name, finder, ledger)
        if clip is not None:
            clips.append(clip)
    return assemble(path, "manifest", clips, ledger)


def _check_columns(columns: Sequence[str], ledger: Ledger) -> None:
    """A misspelt column would be ignored, and its evidence missed."""
    for column in columns:
        if column not in (*COLUMNS, *OPTIONAL):
            missing = [name for name in OPTIONAL if name not in columns]
            near = get_close_matches(column.strip().lower(), missing, 1, 0.7)
            if near:
                ledger.add("note", f"column {column!r} is ignored: was {near[0]!r} meant?")


class _Finder:
    """Finds a row's files next to the manifest or in the archive of its name."""

    def __init__(self, manifest: Path) -> None:
        self._folder = manifest.parent
        self._archive = manifest.with_suffix(".zip")
        self._members: frozenset[str] = frozenset()
        if self._archive.is_file():
            try:
                with zipfile.ZipFile(self._archive) as archive:
                    self._members = frozenset(archive.namelist())
            except (zipfile.BadZipFile, OSError) as error:
                raise CorpusError(f"{self._archive}: unreadable archive: {error}") from None

    def find(self, name: str, start_s: float, end_s: float | None, still: bool) -> Media | None:
        path = self._folder / name
        if path.is_file():
            return Media(path, None, start_s, end_s, still)
        if name in self._members:
            return Media(self._archive, name, start_s, end_s, still)
        return None


def _clip(row: dict[str, str], corpus: str, finder: _Finder, ledger: Ledger) -> Clip | None:
    name = row["id"].strip()
    split, valence = split_by_name(row["split"]), number(row["valence"])
    if not name:
        ledger.add("lost", "rows without an id")
        return None
    if split is None:
        ledger.add("lost", "split other than train, valid, test", name)
        return None
    if valence is None:
        ledger.add("lost", "valence that is no number", f"{row['valence']!r} of {name}")
        return None
    start_s, end_s = number(row.get("start", "")) or 0.0, number(row.get("end", ""))
    if start_s < 0 or (end_s is not None and end_s <= start_s):
        ledger.add("lost", "clips that end before they start", name)
        return None
    found: dict[str, Media | None] = {"audio": None, "video": None, "image": None}
    for column in found:
        wanted = row.get(column, "").strip()
        if wanted:
            found[column] = finder.find(wanted, start_s, end_s, column == "image")
            if found[column] is None:
                ledger.add("lost", f"missing {column} files", wanted)
    if found["video"] is not None and found["image"] is not None:
        ledger.add("note", "clips with a video and an image: the video is used", name)
    weight = number(row.get("weight", ""))
    if weight is not None and not 0 < weight < float("inf"):
        ledger.add("lost", "weights that are not above 0 (1 is used)", name)
        weight = None
    seconds = number(row.get("seconds", ""))
    return Clip(
        id=name,
        corpus=corpus,
        split=split,
        valence=valence,
        group=row.get("group", "").strip() or None,
        audio=found["audio"] or found["video"],
        video=found["video"] or found["image"],
        transcript=row.get("text", "").strip() or None,
        duration_s=seconds if seconds is not None else end_s - start_s if end_s else None,
        weight=1.0 if weight is None else weight,
        emotions=_emotions(row, ledger),
    )


def _emotions(row: dict[str, str], ledger: Ledger) -> tuple[float, ...] | None:
    """Shares of the votes, or all of it on the emotion that is named."""
    votes = [number(row.get(f"votes_{emotion}", "")) or 0.0 for emotion in EMOTIONS]
    total = sum(votes)
    if total > 0 and min(votes) >= 0:
        return tuple(vote / total for vote in votes)
    name = row.get("emotion", "").strip().lower()
    if not name:
        return None
    if name not in EMOTIONS:
        ledger.add("note", f"emotions other than {', '.join(EMOTIONS)} (not used)", name)
        return None
    return tuple(float(emotion == name) for emotion in EMOTIONS)
