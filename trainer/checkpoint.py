"""Checkpoints: everything a killed run needs to go on as if nothing had happened."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

VERSION = 2
"""Changes with the names and shapes of the weights."""


class CheckpointError(Exception):
    """A checkpoint that cannot be resumed from."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: mean training terms and validation figures."""

    epoch: int
    learning_rate: float
    terms: dict[str, float]
    valid: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class History:
    """The finished epochs and which of them is the best on validation."""

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = -1
    best_score: float = float("inf")

    def to_list(self) -> list[dict[str, Any]]:
        """As plain rows, for JSON."""
        return [asdict(epoch) for epoch in self.epochs]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State after ``history.epochs[-1]``; ``recipe`` guards against resuming another run."""

    recipe: str
    seed: int
    model: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    history: History
    best_model: dict[str, torch.Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write beside the target and rename: a kill leaves the old checkpoint or the new one."""
        state = {
            "version": VERSION,
            "recipe": self.recipe,
            "seed": self.seed,
            "model": self.model,
            "optimiser": self.optimiser,
            "best_model": self.best_model,
            "epochs": self.history.to_list(),
            "best_epoch": self.history.best_epoch,
            "best_score": self.history.best_score,
        }
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @staticmethod
    def load(path: Path, recipe: str, seed: int) -> Checkpoint:
        """Read a checkpoint of the same recipe and seed.

        Raises:
            CheckpointError: unreadable, of another version, recipe or seed.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path}: cannot be read ({type(error).__name__})") from None
        for name, expected in (("version", VERSION), ("recipe", recipe), ("seed", seed)):
            if state.get(name) != expected:
                raise CheckpointError(
                    f"{path}: made with another {name}; give another --out or remove the folder"
                )
        history = History(
            tuple(Epoch(**row) for row in state["epochs"]),
            state["best_epoch"],
            state["best_score"],
        )
        return Checkpoint(
            recipe, seed, state["model"], state["optimiser"], history, state["best_model"]
        )
