"""The folder of CMU_MOSEI.zip: whole videos, segmented transcripts, labels on intervals.

``Videos/Full/Combined/<video>.mp4``; ``Transcript/Segmented/Combined/<video>.txt`` with lines
``video___clip___start___end___sentence``; ``CMU_MOSEI_Labels.csd`` anywhere below. A transcript
line gets the label whose interval overlaps it most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.corpus.checks import Ledger, assemble, corpus_name
from trainer.corpus.clip import Clip, Corpus, CorpusError, Media
from trainer.corpus.csd import SPLIT_FILE, Segment, Sequence, Splits, segments
from trainer.corpus.tables import number

LABELS = "CMU_MOSEI_Labels.csd"
TRANSCRIPTS = Path("Transcript/Segmented/Combined")
VIDEOS = Path("Videos/Full/Combined")
FIELDS = "___"
MIN_OVERLAP = 0.5
"""Intersection over union from which a label and a transcript line are of one segment."""


@dataclass(frozen=True)
class Line:
    """One segment of a transcript."""

    video: str
    clip: str
    start_s: float
    end_s: float
    sentence: str


def find_labels(folder: Path) -> Path | None:
    """The label file of a folder, here or in a folder below."""
    return next(iter(sorted(folder.rglob(LABELS))), None)


def read(path: Path) -> Corpus:
    """Read an unpacked CMU_MOSEI folder.

    Raises:
        CorpusError: no labels, no transcripts, or no usable clip.
    """
    labels = find_labels(path)
    if labels is None:
        raise CorpusError(f"{path}: expected {LABELS} in it")
    if not (path / TRANSCRIPTS).is_dir():
        raise CorpusError(f"{path}: expected the transcripts in {TRANSCRIPTS}")
    ledger = Ledger()
    by_video: dict[str, list[Segment]] = defaultdict(list)
    for segment in segments(Sequence(labels), ledger):
        by_video[segment.video].append(segment)
    splits = Splits(path / SPLIT_FILE, ledger)
    name = corpus_name(path)
    clips = []
    matched: set[tuple[str, int]] = set()
    for line in _lines(path / TRANSCRIPTS, ledger):
        clip_id = f"{line.video}[{line.clip}]"
        found = _match(line, by_video.get(line.video, []))
        if found is None:
            ledger.add("lost", "transcript lines without a label", clip_id)
            continue
        matched.add((found.video, found.index))
        split = splits.find(line.video)
        if split is None:
            ledger.add("lost", f"videos that {SPLIT_FILE} does not name", line.video)
            continue
        media: Media | None = Media(
            path / VIDEOS / f"{line.video}.mp4", None, line.start_s, line.end_s
        )
        if media is not None and not media.path.is_file():
            ledger.add("lost", "clips whose video is missing", clip_id)
            media = None
        clips.append(
            Clip(
                id=clip_id,
                corpus=name,
                split=split,
                valence=found.valence,
                group=line.video,
                audio=media,
                video=media,
                transcript=line.sentence or None,
                duration_s=line.end_s - line.start_s,
            )
        )
    for video, of_video in by_video.items():
        for segment in of_video:
            if (video, segment.index) not in matched:
                ledger.add("lost", "labels without a transcript line", f"{video}[{segment.index}]")
    return assemble(path, "CMU-MOSEI raw", clips, ledger)


def _lines(folder: Path, ledger: Ledger) -> Iterator[Line]:
    for file in sorted(folder.glob("*.txt")):
        try:
            text = file.read_text("utf-8", "replace")
        except OSError as error:
            ledger.add("lost", "unreadable transcripts", f"{file.name}: {error.strerror}")
            continue
        for place, raw in enumerate(text.splitlines(), start=1):
            if not raw.strip():
                continue
            line = _parse(file.stem, raw)
            if line is None:
                ledger.add("lost", "transcript lines that cannot be parsed", f"{file.name}:{place}")
            else:
                yield line


def _parse(video: str, raw: str) -> Line | None:
    """Video ids may contain ``_``, even at their end, so the file's name says where it stops."""
    if not raw.startswith(video + FIELDS):
        return None
    clip, _, rest = raw[len(video + FIELDS) :].partition(FIELDS)
    start, _, rest = rest.partition(FIELDS)
    end, separator, sentence = rest.partition(FIELDS)
    start_s, end_s = number(start), number(end)
    if not separator or start_s is None or end_s is None or not 0 <= start_s < end_s:
        return None
    return Line(video, clip, start_s, end_s, sentence.strip())


def _match(line: Line, candidates: list[Segment]) -> Segment | None:
    def overlap(segment: Segment) -> float:
        shared = min(line.end_s, segment.end_s) - max(line.start_s, segment.start_s)
        union = max(line.end_s, segment.end_s) - min(line.start_s, segment.start_s)
        return max(0.0, shared) / union

    best = max(candidates, key=overlap, default=None)
    return best if best is not None and overlap(best) >= MIN_OVERLAP else None
