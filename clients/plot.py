"""Reports of recordings: a PNG, or one self-contained HTML page with the chart and its tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clients.chart import MAX_STREAMS, draw
from clients.record import RecordError
from clients.sessions import Session, sessions, summary
from clients.spans import Average, averages, to_csv

if TYPE_CHECKING:
    from clients.reading import RecordingFile

TEMPLATES = Path(__file__).parent / "templates"
EXTRA = 'plots need matplotlib and jinja2: pip install -e ".[plot]"'
DPI = 150


def plot(
    recording: RecordingFile,
    out: Path,
    over: RecordingFile | None = None,
    table: Path | None = None,
) -> Path:
    """Draw a recording into ``out``, by its suffix .png or .html.

    Args:
        recording: what is drawn.
        out: the picture or page.
        over: another recording, laid over it from its own first score on.
        table: where the averages by mark and minute are written as CSV.

    Raises:
        RecordError: an empty or damaged recording, another suffix, no matplotlib.
    """
    if out.suffix not in (".png", ".html"):
        raise RecordError(f"{out}: expected a name that ends in .png or .html")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise RecordError(EXTRA) from None
    files = [recording] if over is None else [recording, over]
    found = [_read(file) for file in files]
    figure = draw(found[0], recording.path.name, *_laid_over(files, found))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    content = picture.getvalue()
    means = [
        average
        for file, streams in zip(files, found, strict=True)
        for session in streams
        for average in averages(session, file.path.name)
    ]
    if out.suffix == ".html":
        content = _page(files, found, means, picture.getvalue()).encode()
    _write(out, content)
    if table is not None:
        _write(table, to_csv(means).encode())
    return out


def _read(file: RecordingFile) -> list[Session]:
    found = sessions(file.rows())
    if not found:
        raise RecordError(f"{file.path}: no scores in it")
    return found


def _laid_over(
    files: Sequence[RecordingFile], found: Sequence[list[Session]]
) -> tuple[str, dict[str, Session]]:
    """Name of the second recording, and its sessions by the stream of the first they belong to."""
    if len(files) < 2:
        return "", {}
    first, second = found
    if len(first) == len(second) == 1:  # a single person goes by any name
        return files[1].path.name, {first[0].stream: second[0]}
    return files[1].path.name, {session.stream: session for session in second}


def _write(out: Path, content: bytes) -> None:
    try:
        out.write_bytes(content)
    except OSError as error:
        raise RecordError(f"{out}: cannot be written: {error.strerror}") from None


def _page(
    files: Sequence[RecordingFile],
    found: Sequence[list[Session]],
    means: Sequence[Average],
    picture: bytes,
) -> str:
    try:
        import jinja2
    except ImportError:
        raise RecordError(EXTRA) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("recording.html").render(
        recordings=[
            {
                "name": file.path.name,
                "start": datetime.fromtimestamp(
                    min(session.rows[0].received_unix_s for session in streams), UTC
                ),
                "summaries": [summary(session) for session in streams],
            }
            for file, streams in zip(files, found, strict=True)
        ],
        notes=[note for file in files for note in file.notes],
        trained=all(
            row.score.model.trained for streams in found for s in streams for row in s.rows
        ),
        models=_models(found),
        marks=list(_all_marks(found[0])),
        means={
            "By mark": [mean for mean in means if mean.kind == "mark"],
            "By minute": [mean for mean in means if mean.kind == "minute"],
        },
        csv=base64.b64encode(to_csv(means).encode()).decode(),
        picture=base64.b64encode(picture).decode(),
        left_out=max(0, len(found[0]) - MAX_STREAMS),
    )


def _models(found: Sequence[list[Session]]) -> list[tuple[str, ...]]:
    """Name, version, checksum, backend and precision of every model that scored."""
    models = (row.score.model for streams in found for session in streams for row in session.rows)
    named = ((m.name, m.version, m.sha256, m.backend, m.precision) for m in models)
    return list(dict.fromkeys(named))


def _all_marks(found: Iterable[Session]) -> Iterator[tuple[float, str, str]]:
    for session in found:
        for time_s, row in zip(session.t_s, session.rows, strict=True):
            if row.score.mark is not None:
                yield float(time_s), session.stream, row.score.mark
