"""The model card: a bundle's README.md, filled from measured numbers only."""

from __future__ import annotations

import re

from trainer.evaluation.report import TEMPLATES, Run, summarise


def card(run: Run, version: str) -> str:
    """Render the card of a finished run."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    licence = str(run.recipe["licence"])
    return environment.get_template("card.md").render(
        name=run.name,
        version=version,
        licence=licence,
        licence_name=re.sub(r"[^a-z0-9]+", "-", licence.lower()).strip("-")[:60],
        corpus=run.corpus,
        seeds=len(run.evaluations),
        rows=summarise(run.evaluations),
    )
