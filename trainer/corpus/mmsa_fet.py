"""MMSA-FET: ``label.csv`` beside ``Raw/<video_id>/<clip_id>.mp4``.

A ``segments.csv`` (file, start, end) beside it gives durations where ``clip_id`` is a start time.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from trainer.corpus.checks import Ledger, assemble, corpus_name, split_by_name
from trainer.corpus.clip import Clip, Corpus, Media
from trainer.corpus.tables import header, number, table

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
SEGMENT_COLUMNS = ("file", "start", "end")
NEAR_S = 0.1
"""A segment starts this close to the time in the clip's id; they are printed in other precision."""


def read(path: Path) -> Corpus:
    """Read a ``label.csv`` or its folder.

    Raises:
        CorpusError: unreadable, a column or every clip is missing.
    """
    path = path / "label.csv" if path.is_dir() else path
    raw = path.parent / "Raw"
    ledger = Ledger()
    if not raw.is_dir():
        ledger.add("note", "no folder Raw beside label.csv: text only")
    durations = _Durations(path.parent / "segments.csv", ledger)
    name = corpus_name(path)
    clips = []
    for row in table(path, COLUMNS, ledger):
        video, number_in_video = row["video_id"].strip(), row["clip_id"].strip()
        clip_id = f"{video}$_${number_in_video}"
        split, valence = split_by_name(row["mode"]), number(row["label"])
        if split is None or valence is None:
            ledger.add("lost", "mode or label that is none", clip_id)
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
                duration_s=durations.find(video, number_in_video),
            )
        )
    return assemble(path, "MMSA-FET label.csv", clips, ledger)


class _Durations:
    """Lengths of segments by video and start."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self._spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        if not path.is_file() or not set(SEGMENT_COLUMNS) <= set(header(path)):
            return
        for row in table(path, SEGMENT_COLUMNS, ledger):
            start_s, end_s = number(row["start"]), number(row["end"])
            if start_s is not None and end_s is not None and end_s > start_s:
                self._spans[row["file"]].append((start_s, end_s))

    def find(self, video: str, clip: str) -> float | None:
        spans, start_s = self._spans.get(video), number(clip.replace("_", "."))
        if not spans or start_s is None:
            return None
        nearest = min(spans, key=lambda span: abs(span[0] - start_s))
        return nearest[1] - nearest[0] if abs(nearest[0] - start_s) <= NEAR_S else None
