"""Fitting: the training loop of one seed, resumable, selected on validation only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainer.checkpoint import Checkpoint, Epoch, History
from trainer.data.batches import Batch, Batches
from trainer.distributed import Team
from trainer.evaluation.metrics import regression_metrics
from trainer.evaluation.prediction import Flow, View, predict
from trainer.losses import LossTerms, LossWeights, distillation, double_flow, naming, probing
from trainer.model import SentimentModel
from trainer.recipe import Loss, Optimiser, Recipe

CHECKPOINT = "checkpoint.pt"
FLOWS: tuple[Flow, ...] = ("complete", "missing_text")


class FitError(Exception):
    """A run that cannot go on: no data, or a loss that is not a number."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best epoch's weights and how the run went."""

    model: dict[str, torch.Tensor]
    history: History


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise FitError(f"training.device: expected auto, cpu or cuda[:N], got {name!r}") from None


def learning_rate(settings: Optimiser, epoch: int, epochs: int) -> float:
    """Linear warm-up over the first epochs, then a step decay (facts: paper, Training).

    A cosine schedule goes from the full rate to 0 over the rest of the ``epochs``.
    """
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * (epoch + 1) / settings.warmup_epochs
    if settings.schedule == "cosine":
        done = (epoch - settings.warmup_epochs + 0.5) / max(1, epochs - settings.warmup_epochs)
        return settings.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2
    steps = (epoch - settings.warmup_epochs) // settings.decay_every_epochs
    return float(settings.learning_rate * settings.decay**steps)


def loss_weights(loss: Loss) -> LossWeights:
    """The recipe's weights of the double-flow terms."""
    return LossWeights(**loss.model_dump(exclude={"student", "emotion", "encoder"}))


def batch_loss(model: SentimentModel, batch: Batch, loss: Loss, team: Team) -> LossTerms:
    """Both flows and the loss of one batch, of which this process runs its share."""
    rows = len(batch.valence)
    own = batch.rows(*team.share(rows).indices(rows)[:2])
    frames = model.encode(own)
    complete = team.gather(model.complete(frames), rows)
    own_missing = model.missing_text(frames)
    missing = team.gather(own_missing, rows)
    has_missing = batch.has_missing
    terms = double_flow(
        complete,
        missing,
        batch.valence,
        batch.has_complete,
        has_missing,
        loss_weights(loss),
        model.network.spec.quantiles,
    )
    if model.text_simulation is not None and loss.student > 0:
        paired = batch.audio_mask.any(1) & batch.text_mask.any(1)
        simulated = team.gather_tensor(frames.simulated_text, rows)
        student = distillation(simulated, batch.text, batch.text_mask, paired)
        terms = terms.plus("student", loss.student, student)
    if model.emotions is not None:
        named = has_missing & (batch.emotions.sum(1) > 0)
        scores = team.gather_tensor(model.emotions(own_missing.fused), rows)
        emotion = naming(scores, batch.emotions, named)
        terms = terms.plus("emotion", loss.emotion, emotion)
    for name, probe in model.probes.items():
        mask = getattr(batch, f"{name}_mask")
        answers = team.gather_tensor(
            probe(getattr(frames, name), getattr(frames, f"{name}_mask")), rows
        )
        guess = probing(answers, batch.valence, batch.emotions, mask.any(1))
        terms = terms.plus(f"{name}_encoder", loss.encoder, guess)
    return terms


def fit(
    model: SentimentModel,
    train: Batches,
    valid: Batches,
    recipe: Recipe,
    folder: Path,
    seed: int,
    team: Team | None = None,
    on_batch: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Train one seed to its best validation epoch, resuming from ``folder`` where it stopped.

    Args:
        model: moved to the recipe's device; ends with the best epoch's weights.
        train: batches with augmentation.
        valid: batches without.
        recipe: everything else.
        folder: checkpoints and TensorBoard logs of this seed.
        seed: of shuffling, hiding and dropout.
        team: the processes that train together.
        on_batch: told after each batch.
        on_epoch: told after each epoch.

    Raises:
        FitError: an empty split, or a loss that is not finite.
        CheckpointError: the folder holds a run of another recipe.
    """
    if len(train.samples) == 0 or len(valid.samples) == 0:
        raise FitError(
            f"expected clips to train and validate on, got {len(train.samples)} train and "
            f"{len(valid.samples)} valid"
        )
    team = team or Team()
    device = choose_device(recipe.training.device)
    model.to(device)
    team.agree([*model.parameters(), *model.buffers()])
    settings = recipe.optimiser
    optimiser = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    history, best = History(), _copy(model)
    path, identity = folder / CHECKPOINT, _identity(recipe)
    if path.is_file():
        saved = Checkpoint.load(path, identity, seed)
        model.load_state_dict(saved.model)
        optimiser.load_state_dict(saved.optimiser)
        history, best = saved.history, saved.best_model
    while not finished(history, recipe):
        epoch = len(history.epochs)
        done = _run_epoch(model, optimiser, train, valid, recipe, seed, epoch, team, on_batch)
        score = _selection_score(done)
        history = replace(history, epochs=(*history.epochs, done))
        if score < history.best_score:
            history = replace(history, best_epoch=epoch, best_score=score)
            best = _copy(model)
        if team.leads:
            _log(folder, done)
            folder.mkdir(parents=True, exist_ok=True)
            state = optimiser.state_dict()
            Checkpoint(identity, seed, _copy(model), state, history, best).save(path)
        on_epoch(done)
    model.load_state_dict(best)
    return Fitted(best, history)


def load_fitted(path: Path, recipe: Recipe, seed: int) -> Fitted:
    """What a checkpoint holds of a seed, finished or not.

    Raises:
        CheckpointError: unreadable, or of another recipe or seed.
    """
    saved = Checkpoint.load(path, _identity(recipe), seed)
    return Fitted(saved.best_model, saved.history)


def _identity(recipe: Recipe) -> str:
    """What a checkpoint must have in common with the run that goes on with it."""
    return recipe.model_dump_json(exclude={"training": {"seeds", "device"}})


def finished(history: History, recipe: Recipe) -> bool:
    """All epochs done, or no better validation score for ``patience`` of them."""
    done = len(history.epochs)
    waited = done - 1 - history.best_epoch
    return done >= recipe.training.epochs or (done > 0 and waited >= recipe.training.patience)


def _run_epoch(
    model: SentimentModel,
    optimiser: torch.optim.Optimizer,
    train: Batches,
    valid: Batches,
    recipe: Recipe,
    seed: int,
    epoch: int,
    team: Team,
    on_batch: Callable[[], None],
) -> Epoch:
    started = time.perf_counter()
    device = next(model.parameters()).device
    # Every epoch has a generator state of its own, so that a resumed run draws the same dropout.
    torch.manual_seed(int(np.random.default_rng([seed, epoch, team.rank]).integers(2**31)))
    rate = learning_rate(recipe.optimiser, epoch, recipe.training.epochs)
    for group in optimiser.param_groups:
        group["lr"] = rate
    model.train()
    sums: dict[str, float] = {}
    for batch in train.epoch(epoch):
        batch = batch.to(device)
        half = recipe.training.mixed_precision and device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            terms = batch_loss(model, batch, recipe.loss, team)
        if not bool(terms.total.isfinite()):
            faults = {name: float(value) for name, value in terms.parts.items()}
            raise FitError(f"epoch {epoch}: the loss is {terms.total.item()}: {faults}")
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()  # type: ignore[no-untyped-call]
        team.sum_gradients(model, len(batch.valence))
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()
        for name, value in {"total": terms.total.detach(), **terms.parts}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        on_batch()
    means = {name: value / len(train) for name, value in sums.items()}
    figures = {}
    for flow in FLOWS:
        found = predict(model, valid.samples, valid.shapes, View(flow), device, valid.size)
        parts = found.by_corpus()
        for corpus, own in parts.items():
            if len(own) > 1:
                metrics = regression_metrics(own.valence, own.labels)
                name = f"{flow}/{corpus}" if len(parts) > 1 else flow
                figures[f"{name}/mae"] = metrics.mae
                figures[f"{name}/corr"] = metrics.corr
    return Epoch(epoch, rate, means, figures, time.perf_counter() - started)


def _selection_score(epoch: Epoch) -> float:
    """Mean validation MAE of the corpora and of the flows that they have, each counting alike."""
    errors = [value for name, value in epoch.valid.items() if name.endswith("/mae")]
    if not errors:
        raise FitError("no validation clip could be scored: does any have a usable modality?")
    return float(np.mean(errors))


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _log(folder: Path, epoch: Epoch) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        rows = {f"train/{name}": value for name, value in epoch.terms.items()}
        rows |= {f"valid/{name}": value for name, value in epoch.valid.items()}
        rows["learning_rate"] = epoch.learning_rate
        for name, value in rows.items():
            writer.add_scalar(name, value, epoch.epoch)
