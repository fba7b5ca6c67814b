"""Checkpoints: everything a killed run needs to continue as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

VERSION = 3
"""Changes with the names and shapes of the weights, and with what else is kept."""


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
class Within:
    """How far an epoch has come that is not finished."""

    batches: int
    """Batches that ran."""
    sums: dict[str, float]
    """Of the training terms over those."""
    seconds: float
    generators: list[list[torch.Tensor]]
    """Torch's generator states (CPU, then GPU where there is one) of each process."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State after ``history.epochs[-1]``, or within the epoch behind it.

    ``recipe`` and ``data`` guard against resuming another run.
    """

    recipe: dict[str, Any]
    """What of the recipe a run must not change on its way."""
    data: str
    seed: int
    model: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    history: History
    best_model: dict[str, torch.Tensor] = field(default_factory=dict)
    within: Within | None = None
    averaged: dict[str, torch.Tensor] = field(default_factory=dict)
    """The running mean of the weights, where one is kept."""

    def save(self, path: Path) -> None:
        """Write next to the target and rename: a kill leaves the old checkpoint or the new one.

        Raises:
            CheckpointError: the disk is full, or cannot be written.
        """
        state = {
            "version": VERSION,
            "recipe": json.dumps(self.recipe),
            "data": self.data,
            "seed": self.seed,
            "model": self.model,
            "optimiser": self.optimiser,
            "best_model": self.best_model,
            "averaged": self.averaged,
            "epochs": self.history.to_list(),
            "best_epoch": self.history.best_epoch,
            "best_score": self.history.best_score,
            "within": None if self.within is None else asdict(self.within),
        }
        partial = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            free = shutil.disk_usage(path.parent if path.parent.exists() else path.anchor).free
            reason = getattr(error, "strerror", None) or "it could not be written to its end"
            raise CheckpointError(
                f"{path}: no checkpoint: {reason} (it takes {_bytes(state) / 1e6:,.0f} MB, "
                f"{free / 1e6:,.0f} MB free); the one before is kept: make room and run again"
            ) from None

    @staticmethod
    def load(path: Path, recipe: dict[str, Any], seed: int, data: str | None = None) -> Checkpoint:
        """Read a checkpoint of the same recipe, seed and data (None: any).

        Raises:
            CheckpointError: unreadable, of another version, recipe, seed or data.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch, zip and pickle each raise types of their own
            size = path.stat().st_size if path.is_file() else 0
            raise CheckpointError(
                f"{path}: expected a checkpoint, got {size:,} bytes that cannot be read as one "
                f"({type(error).__name__}): cut off or damaged; remove it to train the seed again"
            ) from None
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: expected a checkpoint, got a {type(state).__name__}")
        found = json.loads(state["recipe"]) if state.get("version") == VERSION else {}
        wanted: tuple[tuple[str, Any, Any], ...] = (
            ("version", VERSION, state.get("version")),
            ("seed", seed, state.get("seed")),
            ("recipe", recipe, found),
            ("data", data or state.get("data"), state.get("data")),
        )
        for name, expected, actual in wanted:
            if actual != expected:
                what = f" ({_difference(actual, expected)})" if name == "recipe" else ""
                hint = "give another --out or remove the folder"
                if name == "data":
                    what = " (clips, labels or features have changed)"
                raise CheckpointError(f"{path}: made with another {name}{what}; {hint}")
        history = History(
            tuple(Epoch(**row) for row in state["epochs"]),
            state["best_epoch"],
            state["best_score"],
        )
        within = None if state["within"] is None else Within(**state["within"])
        return Checkpoint(
            recipe,
            state["data"],
            seed,
            state["model"],
            state["optimiser"],
            history,
            state["best_model"],
            within,
            state.get("averaged", {}),
        )


def _bytes(state: object) -> int:
    """Of the tensors in a tree."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(_bytes(part) for part in state.values())
    return sum(_bytes(part) for part in state) if isinstance(state, list | tuple) else 0


def _difference(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> str:
    """The first few settings that differ."""
    differences: list[str] = []
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            if one != other:
                differences.append(_difference(one, other, f"{prefix}{key}."))
        elif one != other:
            differences.append(f"{prefix}{key}: made with {one!r}, now {other!r}")
    return "; ".join(differences[:3])
