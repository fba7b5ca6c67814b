"""Writes tables: HTML with figures, CSV, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

from trainer.study.tables import Rendered

LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%}"
)


def write_all(tables: Sequence[Rendered], out: Path, notes: Sequence[str]) -> list[Path]:
    """Write every table in every form.

    Args:
        tables: built.
        out: folder.
        notes: lines about the study, for the top of the page.

    Returns:
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    figures = {}
    for table in tables:
        for suffix, text in (
            ("csv", to_csv(table)),
            ("tex", to_latex(table)),
            ("md", to_markdown(table)),
        ):
            path = out / f"{table.name}.{suffix}"
            path.write_text(text)
            written.append(path)
        if table.curves:
            figures[table.name] = draw(table)
            path = out / f"{table.name}.svg"
            path.write_text(figures[table.name])
            written.append(path)
    page = out / "tables.html"
    page.write_text(to_html(tables, notes, figures))
    return [page, *written]


def to_csv(table: Rendered) -> str:
    """Header and lines; the notes stay in the other forms."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(line.cells for line in table.lines)
    return buffer.getvalue()


def to_markdown(table: Rendered) -> str:
    """A table for a page of documentation."""
    rows = [table.columns, ("---",) * len(table.columns), *(line.cells for line in table.lines)]
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return f"{body}\n\n" + "\n".join(table.notes) + "\n"


def to_latex(table: Rendered) -> str:
    """A ``tabular`` for a paper."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"

    lines = [
        *(f"% {note}" for note in table.notes),
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        row(table.columns),
        r"\midrule",
        *(row(line.cells) for line in table.lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def to_html(tables: Sequence[Rendered], notes: Sequence[str], figures: dict[str, str]) -> str:
    """One page without scripts or outside files."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Tables</title><style>{STYLE}</style>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in notes]
    for table in tables:
        parts.append(f"<h2>{html.escape(table.title)}</h2><table>")
        parts.append("<tr>" + "".join(f"<th>{html.escape(c)}</th>" for c in table.columns))
        for line in table.lines:
            parts.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in line.cells))
        parts.append("</table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in table.notes]
        parts.append(figures.get(table.name, ""))
    return "\n".join(parts) + "\n"


def draw(table: Rendered) -> str:
    """The curves of a table as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    for label, points in table.curves.items():
        axis.plot([x for x, _ in points], [y for _, y in points], "o-", label=label)
    axis.set(xlabel="rate of what is missing", ylabel="MAE")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
