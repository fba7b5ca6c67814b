"""What ``inspect`` says of a corpus: counts, durations, labels, modalities, baselines, problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.spec import MODALITIES
from trainer.corpus import SPLITS, Clip, Corpus, CorpusError, Features, Media, Problem, Split
from trainer.evaluation.baselines import trivial_baselines

BAR = 40
COLOURS = {"error": "bold red", "lost": "yellow", "note": "dim"}
WORDS = {"error": "ERROR", "lost": "left out", "note": "note"}


@dataclass(frozen=True)
class Inspection:
    """A corpus after a look into every clip's features and media."""

    corpus: Corpus
    durations_s: dict[Split, tuple[float, ...]]
    """Known durations per split."""
    shapes: dict[str, Counter[str]]
    """What each modality's evidence is: media, transcripts, or the size of feature frames."""
    problems: tuple[Problem, ...]
    """The corpus's own, and what looking brought to light."""


def look(corpus: Corpus, clips: Iterable[Clip] | None = None) -> Inspection:
    """Read every clip's features and every media file's header.

    ``clips``: the corpus's clips behind a progress bar; None takes them as they are.
    """
    repaired: Counter[str] = Counter()
    unreadable: list[str] = []
    shapes: dict[str, Counter[str]] = {name: Counter() for name in MODALITIES}
    durations: dict[Split, list[float]] = {split: [] for split in SPLITS}
    probed: dict[Path, float | None] = {}
    for clip in corpus.clips if clips is None else clips:
        try:
            for modality in clip.modalities:
                what, bad = _evidence(clip, modality)
                shapes[modality][what] += 1
                repaired[modality] += bad
            seconds = _duration_s(clip, probed)
            if seconds is not None:
                durations[clip.split].append(seconds)
        except CorpusError:
            unreadable.append(clip.id)
    found = [
        Problem("note", f"{name} values that are not finite (read as 0)", count)
        for name, count in repaired.items()
        if count
    ]
    if unreadable:
        kind = "clips whose features or media cannot be read"
        found.append(Problem("lost", kind, len(unreadable), tuple(unreadable[:3])))
    problems = (*corpus.problems, *found)
    return Inspection(corpus, {s: tuple(d) for s, d in durations.items()}, shapes, problems)


def _evidence(clip: Clip, modality: str) -> tuple[str, int]:
    """What a modality is of, and how many of its values are not finite."""
    source: Media | Features | None = getattr(clip, modality)
    if isinstance(source, Features):
        values, bad = source.read()
        return f"features [T, {values.shape[1]}]", bad
    if isinstance(source, Media):
        return "pictures" if source.still else "recordings", 0
    return "transcripts", 0


def _duration_s(clip: Clip, probed: dict[Path, float | None]) -> float | None:
    if clip.duration_s is not None:
        return clip.duration_s
    for source in (clip.audio, clip.video):
        if isinstance(source, Media) and not source.still and source.member is None:
            if source.path not in probed:
                probed[source.path] = media_duration_s(source.path)
            seconds = probed[source.path]
            if seconds is not None:
                return max(0.0, (source.end_s or seconds) - source.start_s)
    return None


def media_duration_s(path: Path) -> float | None:
    """Duration by a media file's header; None where it does not say.

    Raises:
        CorpusError: not a media file.
    """
    import av

    av.logging.set_level(None)
    try:
        with av.open(str(path)) as container:
            return None if container.duration is None else container.duration / 1_000_000
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise CorpusError(f"{path}: not a media file: {error}") from None


def show(inspection: Inspection, console: Console) -> None:
    """Print an inspection."""
    corpus = inspection.corpus
    console.print(f"[bold]{escape(corpus.name)}[/] · {corpus.format} · {len(corpus.clips):,} clips")
    console.print(_counts(inspection))
    if any(inspection.durations_s.values()):
        console.print(_durations(inspection))
    for modality, shapes in inspection.shapes.items():
        if shapes:
            listed = ", ".join(f"{count:,} {what}" for what, count in shapes.most_common(5))
            console.print(f"[bold]{modality}[/]: {escape(listed)}")
    console.print(_histogram(corpus.clips))
    split = evaluation_split(corpus)
    console.print(_baselines(corpus, split))
    _show_problems(inspection.problems, console)


def evaluation_split(corpus: Corpus) -> Split:
    """The split that figures are about: test, or what comes nearest to it."""
    order: tuple[Split, ...] = ("test", "valid", "train")
    return next(split for split in order if corpus.split(split))


def _table(title: str, *columns: str) -> Table:
    """A table that shows its numbers whole on 80 columns; the first column is of words."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _counts(inspection: Inspection) -> Table:
    table = _table("clips", "split", "clips", "groups", *MODALITIES, "all three")
    for split in SPLITS:
        clips = inspection.corpus.split(split)
        groups = {clip.group for clip in clips if clip.group is not None}
        has = Counter(name for clip in clips for name in clip.modalities)
        complete = sum(len(clip.modalities) == len(MODALITIES) for clip in clips)
        row = [len(clips), len(groups), *(has[name] for name in MODALITIES), complete]
        table.add_row(split, *(f"{value:,}" for value in row))
    return table


def _durations(inspection: Inspection) -> Table:
    table = _table("durations", "split", "hours", "p5 s", "median s", "p95 s", "unknown")
    for split in SPLITS:
        seconds = np.asarray(inspection.durations_s[split])
        times = ["-"] * 4
        if seconds.size:
            quantiles = np.quantile(seconds, (0.05, 0.5, 0.95))
            times = [f"{seconds.sum() / 3600:.2f}", *(f"{value:.1f}" for value in quantiles)]
        unknown = len(inspection.corpus.split(split)) - seconds.size
        table.add_row(split, *times, f"{unknown:,}")
    return table


def _histogram(clips: Sequence[Clip]) -> Table:
    """Labels per class of Acc-7, by numpy's rounding (half to even), as the metrics round."""
    classes = np.round([clip.valence for clip in clips]).astype(int)
    counts = [int((classes == value).sum()) for value in range(-3, 4)]
    table = Table(title="valence (rounded)", title_justify="left", show_header=False, box=None)
    for justify in ("right", "right", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for value, count in zip(range(-3, 4), counts, strict=True):
        bar = "█" * round(BAR * count / max(counts))
        table.add_row(f"{value:+d}", f"{count:,}", bar, f"{count / len(clips):.1%}")
    return table


def _baselines(corpus: Corpus, split: Split) -> Table:
    labels = [clip.valence for clip in corpus.split(split)]
    train = [clip.valence for clip in corpus.split("train")]
    measures = ("MAE", "Acc-7", "Acc-5", "Acc-2", "non0", "F1", "non0")
    title = f"trivial baselines on {split} (percent; Acc-2 and F1 with and without zeros)"
    table = _table(title, "prediction", "value", *measures)
    for baseline in trivial_baselines(labels, train):
        m = baseline.metrics
        shares = (m.acc7, m.acc5, m.acc2_has0, m.acc2_non0, m.f1_has0, m.f1_non0)
        percents = (f"{100 * share:.1f}" for share in shares)
        table.add_row(baseline.name, f"{baseline.value:+.2f}", f"{m.mae:.4f}", *percents)
    return table


def _show_problems(problems: Sequence[Problem], console: Console) -> None:
    if not problems:
        console.print("[green]no problems found[/]")
        return
    for problem in problems:
        examples = f" (such as {', '.join(problem.examples)})" if problem.examples else ""
        times = f"{problem.count:,} x " if problem.count > 1 or examples else ""
        text = escape(f"{times}{problem.kind}{examples}")
        console.print(f"[{COLOURS[problem.severity]}]{WORDS[problem.severity]}[/]: {text}")
