"""Epochs in MLflow or Weights & Biases, through their own libraries: ``training.tracking``.

Both keep files in the run's folder where the environment names no server (``MLFLOW_TRACKING_URI``,
``WANDB_API_KEY``, ``WANDB_MODE``). A run that is continued is continued there, too. Training never
fails for a tracker: what goes wrong is said once, and nothing more is logged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from models.errors import UserError

if TYPE_CHECKING:
    from trainer.checkpoint import Epoch
    from trainer.recipe import Recipe

Kind = Literal["none", "mlflow", "wandb"]
RUN = "tracking.json"
"""Which run of the tracker a seed's folder belongs to."""


class TrackingError(UserError):
    """The library is not installed."""


def refuse_absent(kind: Kind) -> None:
    """Say before any work that a tracker's library is missing.

    Raises:
        TrackingError: names what to install.
    """
    if kind != "none" and find_spec(kind) is None:
        raise TrackingError(
            f"training.tracking: {kind} is not installed: "
            'pip install "undertone-sentiment[tracking]"'
        )


@contextmanager
def tracking(
    kind: Kind, folder: Path, recipe: Recipe, seed: int, say: Callable[[str], None]
) -> Iterator[Callable[[Epoch], None]]:
    """What to call with each epoch of a seed.

    Args:
        kind: of tracker.
        folder: of the seed, inside of the run's.
        recipe: kept as the run's parameters.
        seed: its number.
        say: called with what went wrong.
    """
    opened: _MlFlow | _WandB | None = None
    broken = False

    def attempt(work: Callable[[], None]) -> None:
        nonlocal broken
        if not broken:
            try:
                work()
            except Exception as error:  # a server, a disk, a proxy: each raises types of its own
                broken = True
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
                say(f"{kind}: nothing more is logged there: {reason}")

    def start() -> None:
        nonlocal opened
        if kind == "mlflow":
            opened = _MlFlow(folder, recipe, seed)
        elif kind == "wandb":
            opened = _WandB(folder, recipe, seed)

    def log(epoch: Epoch) -> None:
        if opened is not None:
            attempt(lambda: opened.log(rows(epoch), epoch.epoch))

    attempt(start)
    try:
        yield log
    finally:
        if opened is not None:
            attempt(opened.close)


def rows(epoch: Epoch) -> dict[str, float]:
    """An epoch's figures by name, as trackers and TensorBoard have them."""
    found = {f"train/{name}": value for name, value in epoch.terms.items()}
    found |= {f"valid/{name}": value for name, value in epoch.valid.items()}
    return found | {"learning_rate": epoch.learning_rate}


class _MlFlow:
    def __init__(self, folder: Path, recipe: Recipe, seed: int) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # Its files need no database driver; the library wants to be told that they are meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder.parent / "mlruns").absolute().as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        name = folder.parent.name
        kept = folder / RUN
        if kept.is_file():
            self._run = json.loads(kept.read_text())["mlflow"]
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = self._client.create_run(number, run_name=f"seed-{seed}").info.run_id
        for key, value in _flat(recipe.model_dump(mode="json")).items():
            self._client.log_param(self._run, key, value)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"mlflow": self._run}))

    def log(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _WandB:
    def __init__(self, folder: Path, recipe: Recipe, seed: int) -> None:
        import wandb

        kept = folder / RUN
        known = json.loads(kept.read_text()) if kept.is_file() else {"wandb": uuid4().hex[:8]}
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(known))
        mode: Any = os.environ.get("WANDB_MODE")
        if mode is None and "WANDB_API_KEY" not in os.environ:
            mode = "offline"  # it would ask for a login in the terminal
        self._run = wandb.init(
            project="undertone",
            group=folder.parent.name,
            name=f"seed-{seed}",
            id=known["wandb"],
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=_flat(recipe.model_dump(mode="json")),
        )

    def log(self, figures: dict[str, float], step: int) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


def _flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
