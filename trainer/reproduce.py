"""``python -m trainer reproduce``: the paper's tables on a corpus, by one command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from trainer.command import USERS_FAULTS, locked, told
from trainer.distributed import Team
from trainer.progress import TerminalProgress
from trainer.study.runner import Study, StudyOptions
from trainer.study.tables import build
from trainer.study.variants import Table
from trainer.study.writing import write_all


def reproduce(options: StudyOptions, tables: Sequence[Table]) -> int:
    """Train, measure and write the tables; what is done already is kept.

    Returns:
        The exit status: 0, 2 for a user's mistake, 130 if interrupted.
    """
    progress = TerminalProgress()
    try:
        study = Study(options, tables, progress)
        with locked(options.out, Team()):
            rows = study.run()
        train = np.array([clip.valence for clip in study.corpus.split("train")])
        counts = " / ".join(f"{len(study.corpus.split(s)):,}" for s in ("train", "valid", "test"))
        recipe = study.opened[study.variants[0].name].recipe
        about = (
            f"{study.corpus.name}: {counts} clips (train / valid / test); recipe {recipe.name}; "
            f"text simulation: {recipe.encoders.text_simulation.kind}.",
        )
        built = [build(table, rows, study.variants, train) for table in tables]
        for path in write_all(built, options.out / "tables", about):
            progress.say(str(path))
        progress.say(f"{options.out / 'predictions'}: predictions as Parquet and CSV")
    except USERS_FAULTS as error:
        return told(error)
    except OSError as error:
        return told(f"{error.filename or options.out}: {error.strerror or error}")
    except BrokenProcessPool:
        return told("a process that trained was killed (out of memory?): fewer --jobs; run again")
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0
