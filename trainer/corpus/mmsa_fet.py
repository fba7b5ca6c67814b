"""MMSA-FET: ``label.csv`` next to ``Raw/<video_id>/<clip_id>.mp4``.

A ``segments.csv`` (file, start, end) next to it gives durations where ``clip_id`` is a start time:
the clips and segments of a video are matched in order, if they are as many.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import Clip, Corpus, Media
from trainer.corpus.tables import header, number, table

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
SEGMENT_COLUMNS = ("file", "start", "end")


def read(path: Path) -> Corpus:
    """Read a ``label.csv`` or its folder.

    Raises:
        CorpusError: unreadable, a column or every clip is missing.
    """
    path = path / "label.csv" if path.is_dir() else path
    raw = path.parent / "Raw"
    ledger = Ledger()
    if not raw.is_dir():
        ledger.add("note", "no folder Raw next to label.csv: text only")
    name = corpus_name(path)
    rows = list(table(path, COLUMNS, ledger))
    durations = _durations(path.parent / "segments.csv", rows, ledger)
    clips = []
    for row in rows:
        video, number_in_video = row["video_id"].strip(), row["clip_id"].strip()
        clip_id = f"{video}$_${number_in_video}"
        split, valence = split_by_name(row["mode"]), number(row["label"])
        if split is None:
            ledger.add(
                "lost", "mode other than train, valid, test", f"{row['mode']!r} of {clip_id}"
            )
            continue
        if valence is None:
            ledger.add("lost", "label that is no number", f"{row['label']!r} of {clip_id}")
            continue
        media = Media(raw / video / f"{number_in_video}.mp4") if raw.is_dir() else None
        if media is not None and not media.path.is_file():
            ledger.add("lost", "missing videos", clip_id)
            media = None
        clips.append(
            Clip(
                id=clip_id,
                corpus=name,
                split=split,
                valence=valence,
                group=video,
                audio=media,
                video=media,
                transcript=row["text"].strip() or None,
                duration_s=durations.get((video, number_in_video)),
            )
        )
    return assemble(path, "MMSA-FET label.csv", clips, ledger)


def _durations(
    path: Path, rows: list[dict[str, str]], ledger: Ledger
) -> dict[tuple[str, str], float]:
    """Durations by video and clip.

    The start in an id is in the middle where two segments overlap, so only order matches it.
    """
    if not path.is_file() or not set(SEGMENT_COLUMNS) <= set(header(path)):
        return {}
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in table(path, SEGMENT_COLUMNS, ledger):
        start_s, end_s = number(row["start"]), number(row["end"])
        if start_s is not None and end_s is not None and end_s > start_s:
            spans[row["file"]].append((start_s, end_s))
    clips: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in rows:
        start_s = number(row["clip_id"].strip().replace("_", "."))
        if start_s is not None:
            clips[row["video_id"].strip()].append((start_s, row["clip_id"].strip()))
    found: dict[tuple[str, str], float] = {}
    for video, starts in clips.items():
        segments = sorted(spans.get(video, []))
        if len(segments) == len(starts):
            for (_, clip), (start_s, end_s) in zip(sorted(starts), segments, strict=True):
                found[video, clip] = end_s - start_s
    return found
