"""Fitting: the training loop of one seed, resumable, selected on validation only."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainer.checkpoint import Checkpoint, CheckpointError, Epoch, History, Within
from trainer.data.batches import Batch, Batches
from trainer.distributed import Team, share_norms
from trainer.evaluation.metrics import regression_metrics
from trainer.evaluation.prediction import Flow, View, predict
from trainer.losses import LossTerms, LossWeights, distillation, double_flow, naming, probing
from trainer.model import SentimentModel, shares_norms
from trainer.recipe import Loss, Optimiser, Recipe
from trainer.tracking import rows

CHECKPOINT = "checkpoint.pt"
FLOWS: tuple[Flow, ...] = ("complete", "missing_text")


class FitError(Exception):
    """A run that cannot go on: no data, or a loss that is not a number."""


class StoppedError(Exception):
    """Asked to stop (SIGTERM): a checkpoint was written, and the same command continues."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The best epoch's weights and how the run went."""

    model: dict[str, torch.Tensor]
    history: History


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one; under torchrun each process has its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count():
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FitError(f"training.device: expected auto, cpu or cuda[:N], got {name!r}") from None
    cards = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= cards:
        raise FitError(
            f"training.device: expected a device of this machine (cpu"
            f"{', cuda' if cards else ''}), got {name!r}: torch finds {cards} GPUs"
        )
    return device


def set_threads(threads: int) -> None:
    """Threads of torch's arithmetic; 0: half of the cores that this process may use.

    On a machine that others use, too, threads in step wait for the slowest of them.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or max(1, (usable or 1) // 2))


def learning_rate(settings: Optimiser, epoch: int, epochs: int) -> float:
    """Linear warm-up over the first epochs, then a step decay (facts: paper, Training).

    The last epoch of the warm-up has the full rate, and counts as the first before the decay.
    A cosine schedule goes from the full rate to 0 over the rest of the ``epochs``.
    """
    if epoch < settings.warmup_epochs:
        return settings.learning_rate * (epoch + 1) / settings.warmup_epochs
    if settings.schedule == "cosine":
        done = (epoch - settings.warmup_epochs + 0.5) / max(1, epochs - settings.warmup_epochs)
        return settings.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2
    first_full = max(0, settings.warmup_epochs - 1)
    steps = (epoch - first_full) // settings.decay_every_epochs
    return float(settings.learning_rate * settings.decay**steps)


def loss_weights(loss: Loss) -> LossWeights:
    """The recipe's weights of the double-flow terms."""
    return LossWeights(**loss.model_dump(exclude={"student", "emotion", "encoder"}))


def batch_loss(model: SentimentModel, own: Batch, loss: Loss, team: Team) -> LossTerms:
    """Both flows and the loss of one batch, of which this process has its part.

    Args:
        model: that is trained.
        own: this process's part of the batch; alone it is all of it.
        loss: weights of the terms.
        team: the processes, which exchange outputs, labels and what each row has, not frames.
    """
    rows = own.total
    valence = team.gather_tensor(own.valence, rows)
    emotions = team.gather_tensor(own.emotions, rows)

    def everywhere(flags: Tensor) -> Tensor:
        return team.gather_tensor(flags.float(), rows) > 0

    has_complete, has_missing = everywhere(own.has_complete), everywhere(own.has_missing)
    # Moments of batch normalisation, and the student's frames, count the padding, too.
    if team.size > 1 and (shares_norms(model) or model.text_simulation is not None):
        own = own.lengthened(team.most(own.audio.shape[1]))
    frames = model.encode(own)
    own_complete, own_missing = model.flows(frames, own.has_complete, own.has_missing)
    complete, missing = team.gather(own_complete, rows), team.gather(own_missing, rows)
    terms = double_flow(
        complete,
        missing,
        valence,
        has_complete,
        has_missing,
        loss_weights(loss),
        model.network.spec.quantiles,
    )
    if model.text_simulation is not None and loss.student > 0:
        paired = everywhere(own.audio_mask.any(1) & own.text_mask.any(1))
        simulated = team.gather_tensor(frames.simulated_text, rows)
        text = team.gather_tensor(own.text, rows)
        student = distillation(
            simulated,
            everywhere(frames.simulated_text_mask[..., None])[..., 0],
            text,
            everywhere(own.text_mask[..., None])[..., 0],
            paired,
        )
        terms = terms.plus("student", loss.student, student)
    if model.emotions is not None:
        named = has_missing & (emotions.sum(1) > 0)
        scores = team.gather_tensor(model.emotions(own_missing.fused), rows)
        emotion = naming(scores, emotions, named)
        terms = terms.plus("emotion", loss.emotion, emotion)
    for name, probe in model.probes.items():
        having = everywhere(getattr(own, f"{name}_mask").any(1))
        answers = team.gather_tensor(
            probe(getattr(frames, name), getattr(frames, f"{name}_mask")), rows
        )
        guess = probing(answers, valence, emotions, having)
        terms = terms.plus(f"{name}_encoder", loss.encoder, guess)
    return terms


@dataclass(frozen=True, eq=False)
class Hooks:
    """What the loop tells, and asks, of those outside it."""

    on_batch: Callable[[], None] = lambda: None
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    stopping: Callable[[], bool] = lambda: False
    """Asked after each batch; True: write a checkpoint and raise ``StoppedError``."""


def fit(
    model: SentimentModel,
    train: Batches,
    valid: Batches,
    recipe: Recipe,
    folder: Path,
    seed: int,
    team: Team | None = None,
    hooks: Hooks | None = None,
    data: str = "",
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
        hooks: told of progress, asked whether to stop.
        data: digest of what is trained and validated on.

    Raises:
        FitError: an empty split, or a loss that is not finite.
        CheckpointError: the folder holds a run of another recipe or data, or the disk is full.
        StoppedError: asked to stop.
    """
    if len(train.samples) == 0 or len(valid.samples) == 0:
        raise FitError(
            f"expected clips to train and validate on, got {len(train.samples)} train and "
            f"{len(valid.samples)} valid"
        )
    team, hooks = team or Team(), hooks or Hooks()
    loop = _Loop(model, train, valid, recipe, folder, seed, team, hooks, data)
    return loop.run()


class _Loop:
    """The state of a fit that goes from epoch to epoch, or from a checkpoint on."""

    def __init__(
        self,
        model: SentimentModel,
        train: Batches,
        valid: Batches,
        recipe: Recipe,
        folder: Path,
        seed: int,
        team: Team,
        hooks: Hooks,
        data: str,
    ) -> None:
        self.model, self.train, self.valid = model, replace(train, team=team), valid
        self.recipe, self.folder, self.seed = recipe, folder, seed
        self.team, self.hooks, self.data = team, hooks, data
        self.path = folder / CHECKPOINT
        self.device = choose_device(recipe.training.device)
        share_norms(model, team)
        model.to(self.device)
        team.agree([*model.parameters(), *model.buffers()])
        settings = recipe.optimiser
        self.optimiser = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.averaged = _averaged(model, settings.average)
        self.history, self.best = History(), _copy(model)
        self.within: Within | None = None
        on_gpu = self.device.type == "cuda"
        self.loader = self.train.loader(recipe.training.workers, pinned=on_gpu)
        self.saved_at = time.monotonic()
        if self.path.is_file():
            saved = Checkpoint.load(self.path, identity(recipe), seed, data)
            done = len(saved.history.epochs)
            if done > recipe.training.epochs:
                raise CheckpointError(
                    f"{self.path}: trained for {done} epochs, training.epochs asks for "
                    f"{recipe.training.epochs}: give another --out for a shorter run"
                )
            model.load_state_dict(saved.model)
            self.optimiser.load_state_dict(saved.optimiser)
            self.history, self.best, self.within = saved.history, saved.best_model, saved.within
            if self.averaged is not None:
                self.averaged.load_state_dict(saved.averaged)

    def run(self) -> Fitted:
        """Every epoch that is left."""
        while not finished(self.history, self.recipe):
            epoch = len(self.history.epochs)
            done = self._epoch(epoch)
            # Every process scores the split itself; the last bits of a sum may differ between
            # them, the choice of the best epoch and of when to stop may not.
            score = self.team.one(validation_score(done))
            self.history = replace(self.history, epochs=(*self.history.epochs, done))
            if score < self.history.best_score:
                self.history = replace(self.history, best_epoch=epoch, best_score=score)
                self.best = _copy(self.judged)
            self._save(None)
            if self.team.leads:
                _log(self.folder, done)
            self.hooks.on_epoch(done)
        self.model.load_state_dict(self.best)
        return Fitted(self.best, self.history)

    @property
    def judged(self) -> SentimentModel:
        """What is validated and kept: the mean of the weights where there is one."""
        if self.averaged is None:
            return self.model
        assert isinstance(self.averaged.module, SentimentModel)
        return self.averaged.module

    def _epoch(self, epoch: int) -> Epoch:
        started, model = time.perf_counter(), self.model
        rate = learning_rate(self.recipe.optimiser, epoch, self.recipe.training.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Every epoch has a generator state of its own, so that a resumed run draws the same.
        drawn = np.random.default_rng([self.seed, epoch, self.team.rank]).integers(2**31)
        torch.manual_seed(int(drawn))
        ran, before, sums = 0, 0.0, dict[str, float]()
        if self.within is not None:
            ran, before, sums = self.within.batches, self.within.seconds, self.within.sums
            _set_generators(self.within.generators[self.team.rank])
            self.within = None
        model.train()
        for batch in self.train.epoch(epoch, ran, self.loader):
            for name, value in self._step(batch.to(self.device), epoch).items():
                sums[name] = sums.get(name, 0.0) + value
            ran += 1
            self.hooks.on_batch()
            self._save_within(ran, sums, before + time.perf_counter() - started)
        means = {name: value / ran for name, value in sums.items()}
        figures = _validate(self.judged, self.valid, self.device)
        return Epoch(epoch, rate, means, figures, before + time.perf_counter() - started)

    def _step(self, batch: Batch, epoch: int) -> dict[str, float]:
        """One step; the terms of its loss."""
        model, recipe = self.model, self.recipe
        half = recipe.training.mixed_precision and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            terms = batch_loss(model, batch, recipe.loss, self.team)
        if self.team.any(not bool(terms.total.isfinite())):
            faults = {name: float(value) for name, value in terms.parts.items()}
            raise FitError(f"epoch {epoch}: the loss is {terms.total.item()}: {faults}")
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()  # type: ignore[no-untyped-call]
        self.team.sum_gradients(model, batch.total)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(model)
        return {"total": float(terms.total.detach())} | {
            name: float(value) for name, value in terms.parts.items()
        }

    def _save_within(self, batches: int, sums: dict[str, float], seconds: float) -> None:
        """A checkpoint within the epoch: where asked to stop, and every few minutes."""
        stopping = self.team.any(self.hooks.stopping())
        waited = time.monotonic() - self.saved_at
        due = self.team.any(waited > 60 * self.recipe.training.checkpoint_minutes)
        if not (stopping or due):
            return
        generators = self.team.collect(_generators())
        self._save(Within(batches, dict(sums), seconds, generators))
        if stopping:
            raise StoppedError(
                f"{self.path}: stopped by a signal; the same command continues from there"
            )

    def _save(self, within: Within | None) -> None:
        self.saved_at = time.monotonic()
        if self.team.leads:
            state = self.optimiser.state_dict()
            Checkpoint(
                identity(self.recipe),
                self.data,
                self.seed,
                _copy(self.model),
                state,
                self.history,
                self.best,
                within,
                {} if self.averaged is None else _copy(self.averaged),
            ).save(self.path)


def load_fitted(path: Path, recipe: Recipe, seed: int, data: str | None = None) -> Fitted:
    """What a checkpoint holds of a seed, finished or not.

    Raises:
        CheckpointError: unreadable, or of another recipe, seed or data (None: any).
    """
    saved = Checkpoint.load(path, identity(recipe), seed, data)
    return Fitted(saved.best_model, saved.history)


def identity(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that continues it.

    Not what may change on the way: how long to train (but a cosine's end), on what machine, and
    what is measured afterwards.
    """
    free = {
        "seeds", "device", "robustness", "patience", "threads", "workers",
        "checkpoint_minutes", "tracking",
    }  # fmt: skip
    if recipe.optimiser.schedule == "step":
        free.add("epochs")
    excluded: dict[str, Any] = dict.fromkeys(("name", "licence", "stages", "stretch"), True)
    excluded["training"] = free
    excluded["augmentation"] = {"one_draw"}  # recipes of older runs do not know it
    return recipe.model_dump(mode="json", exclude=excluded)


def finished(history: History, recipe: Recipe) -> bool:
    """All epochs done, or no better validation score for ``patience`` of them."""
    done = len(history.epochs)
    waited = done - 1 - history.best_epoch
    return done >= recipe.training.epochs or (done > 0 and waited >= recipe.training.patience)


def _validate(model: SentimentModel, valid: Batches, device: torch.device) -> dict[str, float]:
    """MAE and Corr of both flows, per corpus where there are several."""
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
    return figures


def _generators() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _has_gpu() else [])]


def _set_generators(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if _has_gpu() and len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def _has_gpu() -> bool:
    return torch.cuda.is_available()


def validation_score(epoch: Epoch) -> float:
    """Mean validation MAE of the corpora and of the flows that they have, each counting alike."""
    errors = [value for name, value in epoch.valid.items() if name.endswith("/mae")]
    if not errors:
        raise FitError("no validation clip could be scored: does any have a usable modality?")
    return float(np.mean(errors))


def _averaged(model: SentimentModel, share: float) -> AveragedModel | None:
    """A running mean of the model's weights and of its norms' moments, if one is asked for."""
    if share == 0:
        return None
    mean = get_ema_multi_avg_fn(share)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=mean, use_buffers=True)


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _log(folder: Path, epoch: Epoch) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for name, value in rows(epoch).items():
            writer.add_scalar(name, value, epoch.epoch)
