"""Carries out one step, or all, of a run: what the command line calls; errors become one line."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.bundle import BundleError
from trainer.checkpoint import CheckpointError
from trainer.distributed import Team, join
from trainer.features.store import FeatureError
from trainer.fit import FitError, StoppedError, choose_device, set_threads
from trainer.opening import FAULTS, Opened, Places, opening
from trainer.progress import TerminalProgress
from trainer.recipe import AssemblyError
from trainer.results import PipelineError, Results
from trainer.run import Pipeline
from trainer.stop import Stop

USERS_FAULTS = (
    *FAULTS,
    AssemblyError,
    BundleError,
    CheckpointError,
    FeatureError,
    FitError,
    PipelineError,
)
STOPPED = 143
"""Exit status after SIGTERM: 128 + 15, as a shell gives it."""


def carry_out(
    step: str,
    corpora: Sequence[Path],
    out: Path,
    run: Path,
    features: Path,
    recipe: str | None,
    seeds: int | None,
    overrides: tuple[str, ...],
    joined: Sequence[Path] = (),
) -> int:
    """Do ``run`` or one of its steps; arguments as of ``trainer.opening.opening``.

    Returns:
        The exit status: 0, 2 for a user's mistake, 130 if interrupted, 143 if terminated.
    """
    places, progress = Places(out, run, features), own_progress()
    try:
        opened = opening(step, corpora, places, recipe, seeds, overrides, joined, progress)
    except FAULTS as error:
        return told(error)
    return carry_on(step, opened, places)


def own_progress() -> TerminalProgress:
    """Of this process: under torchrun, the first one speaks."""
    return TerminalProgress(quiet=os.environ.get("RANK", "0") != "0")


def carry_on(step: str, opened: Opened, places: Places) -> int:
    """As ``carry_out``, of a run that may begin."""
    stop = Stop()
    try:
        with stop:
            _do(step, opened, places, stop)
    except USERS_FAULTS as error:
        return told(error)
    except OSError as error:
        return told(_disk_fault(error, places))
    except StoppedError as error:
        return told(error, STOPPED)
    except KeyboardInterrupt:
        if stop.asked():
            return told("terminated; the same command continues where it stopped", STOPPED)
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    return 0


def _do(step: str, opened: Opened, places: Places, stop: Stop) -> None:
    recipe, progress = opened.recipe, own_progress()
    device = choose_device(recipe.training.device)
    Results(places.run, recipe).require(step)
    team = join(device)
    set_threads(recipe.training.threads)
    if team.size > 1 and step not in ("fit", "features"):
        raise PipelineError("several processes train together: use torchrun with `fit` only")
    with locked(places.run, team):
        pipeline = Pipeline(
            opened.corpus,
            recipe,
            places,
            progress,
            overrides=opened.staged,
            team=team,
            stop=stop,
        )
        if step == "features":
            stored = len(pipeline.data.extraction.clips)
            progress.say(f"{places.features}: frames of {stored} clips")
        else:
            getattr(pipeline, step)()


def _disk_fault(error: OSError, places: Places) -> str:
    """One line of what could not be read or written."""
    if error.errno != errno.ENOSPC:
        return f"{error.filename or places.run}: {error.strerror or error}"
    folders = dict.fromkeys((places.run, places.features, places.out.parent))
    room = [(shutil.disk_usage(f).free / 1e6, f) for f in folders if f.is_dir()]
    least, where = min(room, default=(0.0, places.run))
    return (
        f"{error.filename or where}: the disk is full ({least:,.0f} MB free): make room; the same "
        "command continues where it stopped"
    )


def told(error: object, code: int = 2) -> int:
    """Print an error's one line; the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return code


@contextmanager
def locked(run: Path, team: Team) -> Iterator[None]:
    """One run at a time in a folder.

    Raises:
        PipelineError: another one is there.
    """
    if not team.leads:
        yield
        return
    with (run / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "unknown"
            raise PipelineError(
                f"{run}: another run (process {who}) is working there: wait, or give another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
