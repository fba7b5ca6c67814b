"""``python -m trainer adapter``: an adapter from speech to a language model, both frozen.

SLAM-ASR's recipe (arXiv 2402.08846): a speech encoder's frames, five joined, through two linear
layers into the language model's input embeddings; before them nothing, behind them the prompt and
the transcript, whose tokens the frozen model has to predict. What comes out is what
``encoders.text_simulation.adapter`` takes. ``aligned_steps`` start it cheaply (``alignment``).
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.pretrained import PretrainedError
from models.text_simulation.llm import (
    FrameConcatenatingAdapter,
    LlmModels,
    LlmSettings,
    load_models,
)
from trainer.alignment import Alignment
from trainer.command import USERS_FAULTS, told
from trainer.corpus import hold_back
from trainer.corpus import open as open_corpus
from trainer.features.store import FrameStore
from trainer.fit import set_threads
from trainer.model import supports_bfloat16
from trainer.progress import Progress, TerminalProgress
from trainer.stop import Stop
from trainer.utterances import Utterance, transcribed
from trainer.word_errors import error_rate

WEIGHTS, STATE, CURVE = "adapter.safetensors", "state.pt", "curve.csv"
IGNORED = -100
ALIGNED_BATCH = 2
"""Batches in one of the alignment's, which costs next to nothing by comparison."""
ALIGNED_POINTS = 2
"""Rows of the curve are that much farther apart while it is aligned, and not read."""


@dataclass(frozen=True)
class AdapterOptions:
    """What the command line says."""

    corpus: Path
    out: Path
    speech: str
    language_model: str
    steps: int = 1_000
    batch: int = 4
    learning_rate: float = 1e-4
    warmup_steps: int = 100
    longest_s: float = 12.0
    """Longer clips are left out: memory grows with them."""
    evaluate_every: int = 100
    evaluate_clips: int = 20
    aligned_steps: int = 0
    """Steps before the first, in which outputs learn to lie near the tokens' embeddings."""
    seed: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Point:
    """One row of the curve."""

    step: int
    heard_s: float
    """Seconds of speech trained on so far, repetitions counted."""
    loss: float
    """Mean training loss since the row before, per token."""
    valid_loss: float
    word_error_rate: float
    cpu_s: float
    """Of the steps, those of the alignment among them; measuring is left out."""
    aligned_steps: int = 0
    spelled_error_rate: float = float("nan")
    """Words that the adapter's outputs spell by themselves, where they were aligned."""


def run(options: AdapterOptions, models: LlmModels | None = None) -> int:
    """Train, or go on; the exit status.

    Args:
        options: of the command line.
        models: the two frozen models, where they are at hand.
    """
    progress, stop = TerminalProgress(), Stop()
    try:
        with stop:
            curve = train(options, progress, stop, models)
        last = curve[-1]
        progress.say(
            f"{options.out / WEIGHTS}: {last.step} steps, word error rate "
            f"{last.word_error_rate:.3f} on held-out sentences"
        )
    except (*USERS_FAULTS, PretrainedError) as error:
        return told(error)
    except OSError as error:
        return told(f"{error.filename or options.out}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 143 if stop.asked() else 130
    return 0


def train(
    options: AdapterOptions, progress: Progress, stop: Stop, models: LlmModels | None = None
) -> list[Point]:
    """Train the adapter from where it stopped; its curve.

    Raises:
        CorpusError: no clip has both sound and a transcript.
        PretrainedError: a model cannot be loaded.
    """
    corpus = hold_back(open_corpus(options.corpus))
    settings = LlmSettings(options.speech, options.language_model)
    options.out.mkdir(parents=True, exist_ok=True)
    set_threads(options.threads)
    models = models or load_models(settings)
    identity = f"adapter/{options.speech}/last/2"
    store = FrameStore(options.out / "frames", identity, (models.speech.spec.dim,))
    read = partial(transcribed, corpus, models, progress, store, options.longest_s)
    course = _Course(
        options, settings, models, read("train"), read("valid", most=options.evaluate_clips)
    )
    with stop.within_training():
        _align(course, stop, progress)
        _teach(course, stop, progress)
    return course.curve


def _align(course: _Course, stop: Stop, progress: Progress) -> None:
    """The cheap steps that are left, without the language model."""
    options = course.options
    every = ALIGNED_POINTS * options.evaluate_every
    with progress.task("steps of the alignment", options.aligned_steps) as advance:
        for _ in range(course.aligned):
            advance()
        while course.aligned < options.aligned_steps and course.step == 0:
            course.one_aligned_step()
            advance()
            whole = course.aligned == options.aligned_steps
            _keep(course, whole or course.aligned % every == 0, stop, progress, whole)


def _teach(course: _Course, stop: Stop, progress: Progress) -> None:
    """The steps through the language model that are left."""
    options = course.options
    with progress.task("steps", options.steps) as advance:
        for _ in range(course.step):
            advance()
        while course.step < options.steps:
            course.one_step()
            advance()
            due = course.step % options.evaluate_every == 0 or course.step == options.steps
            _keep(course, due, stop, progress)


def _keep(
    course: _Course, due: bool, stop: Stop, progress: Progress, read: bool = True
) -> None:  # fmt: skip
    """Measure where it is due, save, and leave where that was asked for."""
    if due:
        point = course.measure(read)
        progress.say(
            f"step {point.aligned_steps} + {point.step}: loss {point.loss:.3f}, "
            f"valid {point.valid_loss:.3f}, word error rate {point.word_error_rate:.3f}, "
            f"spelled {point.spelled_error_rate:.3f} ({point.cpu_s:.0f} CPU s)"
        )
    if due or stop.asked():
        course.save()
    if stop.asked():
        raise KeyboardInterrupt


class _Course:
    """An adapter on its way."""

    def __init__(
        self,
        options: AdapterOptions,
        settings: LlmSettings,
        models: LlmModels,
        train: Sequence[Utterance],
        valid: Sequence[Utterance],
    ) -> None:
        self.options, self.settings = options, settings
        self.train, self.valid = train, valid
        self.tokenizer, self.model = models.tokenizer, models.language_model
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # What stands still needs no more than bfloat16, where that is computed faster.
        self.dtype = torch.bfloat16 if supports_bfloat16(self.device.type) else torch.float32
        self.model.to(self.device, self.dtype).eval().requires_grad_(False)
        self.embed: Any = self.model.get_input_embeddings()
        prompt = self.tokenizer(settings.prompt, return_tensors="pt").input_ids
        self.prompt: Tensor = self.embed(prompt.to(self.device))[0]
        torch.manual_seed(options.seed)
        self.adapter = FrameConcatenatingAdapter(
            models.speech.spec.dim,
            settings.adapter_dim,
            int(self.model.config.hidden_size),
            settings.concatenate,
        ).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.adapter.parameters(), options.learning_rate, weight_decay=0.0
        )
        self.step, self.aligned, self.heard_s, self.cpu_s = 0, 0, 0.0, 0.0
        # The last token ends a transcript: nobody says it.
        spoken = [one.tokens[:-1] for one in train]
        self.alignment = Alignment(self.embed.weight, spoken) if options.aligned_steps else None
        if self.alignment is not None:
            self.alignment.start(self.adapter)
        self.losses: list[float] = []
        self.curve: list[Point] = []
        self._load()

    def one_step(self) -> None:
        """One batch of the training split."""
        self._learn(self._batch(self.options.batch, self.step), self.step, self._loss)
        self.step += 1

    def one_aligned_step(self) -> None:
        """A larger batch, without the language model."""
        chosen = self._batch(ALIGNED_BATCH * self.options.batch, self.aligned, 1)
        self._learn(chosen, self.aligned, self._aligned_loss)
        self.aligned += 1

    def _learn(
        self,
        chosen: Sequence[Utterance],
        step: int,
        loss_of: Callable[[Sequence[Utterance]], Tensor],
    ) -> None:
        started, options = time.process_time(), self.options
        rate = min(1.0, (step + 1) / max(1, options.warmup_steps)) * options.learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(chosen)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
        self.optimiser.step()
        self.losses.append(float(loss.detach()))
        self.heard_s += sum(one.seconds for one in chosen)
        self.cpu_s += time.process_time() - started

    def measure(self, read: bool = True) -> Point:
        """Loss and word error rates on the held-out sentences; ``read`` by the language model."""
        held = self.valid[: self.options.evaluate_clips]
        loss, said = float("nan"), float("nan")
        with torch.inference_mode():
            if read:
                loss = float(np.mean([float(self._loss([one])) for one in held]))
                said = error_rate([(self._recognise(one), one.text) for one in held])
            spelled = self._spelled_error_rate()
        mean = float(np.mean(self.losses)) if self.losses else float("nan")
        self.losses.clear()
        point = Point(
            self.step, self.heard_s, mean, loss, said, self.cpu_s, self.aligned, spelled
        )  # fmt: skip
        self.curve.append(point)
        return point

    def _spelled_error_rate(self) -> float:
        """Over all held-out sentences: it costs next to nothing."""
        if self.alignment is None:
            return float("nan")
        pairs = []
        for one in self.valid:
            frames = torch.from_numpy(one.frames()).to(self.device)
            tokens = self.alignment.spelled(self.adapter(frames[None])[0])
            pairs.append((self.tokenizer.decode(tokens), one.text))
        return error_rate(pairs)

    def save(self) -> None:
        """The weights, the curve, and what continuing needs; atomically."""
        from safetensors.torch import save_file

        out = self.options.out
        partial = out / f"{WEIGHTS}.part"
        state = {name: value.detach().cpu() for name, value in self.adapter.state_dict().items()}
        save_file(state, partial)
        partial.replace(out / WEIGHTS)
        rest = {
            "adapter": state,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "aligned": self.aligned,
            "heard_s": self.heard_s,
            "cpu_s": self.cpu_s,
            "losses": self.losses,
            "curve": [asdict(point) for point in self.curve],
            "options": self._identity(),
        }
        partial = out / f"{STATE}.part"
        torch.save(rest, partial)
        partial.replace(out / STATE)
        with (out / CURVE).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Point.__dataclass_fields__)
            writer.writerows([f"{v:.6g}" for v in asdict(p).values()] for p in self.curve)
        (out / "adapter.json").write_text(json.dumps(asdict(self.options), default=str, indent=2))

    def _load(self) -> None:
        path = self.options.out / STATE
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise PretrainedError(f"{path}: cannot be read ({type(error).__name__})") from None
        if state["options"] != self._identity():
            raise PretrainedError(
                f"{path}: made with other models or settings; give another --out or remove the "
                "folder"
            )
        self.adapter.load_state_dict(state["adapter"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.heard_s, self.cpu_s = state["step"], state["heard_s"], state["cpu_s"]
        self.aligned = state["aligned"]
        self.losses = list(state["losses"])
        self.curve = [Point(**row) for row in state["curve"]]

    def _identity(self) -> str:
        """What continuing must not change."""
        free = ("steps", "evaluate_every", "evaluate_clips", "threads", "out")
        kept = {k: str(v) for k, v in asdict(self.options).items() if k not in free}
        return json.dumps(kept, sort_keys=True)

    def _batch(self, size: int, *step: int) -> list[Utterance]:
        """Like lengths together, drawn by the step's own generator."""
        generator = np.random.default_rng([self.options.seed, *step])
        count = min(len(self.train), 16 * size)
        drawn = generator.choice(len(self.train), count, replace=False)
        order = sorted(drawn, key=lambda index: self.train[index].seconds)
        first = int(generator.integers(0, max(1, count - size + 1)))
        return [self.train[index] for index in order[first : first + size]]

    def _aligned_loss(self, chosen: Sequence[Utterance]) -> Tensor:
        assert self.alignment is not None  # steps of it were asked for
        width = self.adapter.concatenate
        cut = []
        for one in chosen:
            frames = torch.from_numpy(one.frames())
            cut.append(frames[: len(frames) // width * width])
        joined = self.adapter(torch.cat(cut)[None].to(self.device))[0]
        outputs = joined.split([len(frames) // width for frames in cut])
        return self.alignment.loss(outputs, [one.tokens[:-1] for one in chosen])

    def _loss(self, chosen: Sequence[Utterance]) -> Tensor:
        """Cross-entropy per token of the transcripts, behind speech and prompt."""
        rows, labels = [], []
        for one in chosen:
            tokens = torch.tensor(one.tokens, device=self.device)
            rows.append(torch.cat([self._before(one), self.embed(tokens)]))
            labels.append(tokens)
        longest = max(len(row) for row in rows)
        width = rows[0].shape[1]
        embeddings = torch.zeros(len(rows), longest, width, device=self.device, dtype=self.dtype)
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=self.device)
        target = torch.full((len(rows), longest), IGNORED, device=self.device)
        for index, (row, tokens) in enumerate(zip(rows, labels, strict=True)):
            embeddings[index, : len(row)] = row
            mask[index, : len(row)] = 1
            target[index, len(row) - len(tokens) : len(row)] = tokens
        most = max(len(tokens) for tokens in labels)
        # Scores of the transcripts only: 50,000 for every frame would be most of the work.
        keep = longest - min(len(row) - len(t) for row, t in zip(rows, labels, strict=True)) + 1
        output = self.model(
            inputs_embeds=embeddings, attention_mask=mask, logits_to_keep=max(keep, most + 1)
        )
        scores = output.logits[:, :-1].float()
        wanted = target[:, -scores.shape[1] :]
        return F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)

    def _before(self, one: Utterance) -> Tensor:
        """Embeddings [S, D] of the speech and of the prompt."""
        frames = torch.from_numpy(one.frames()).to(self.device)
        return torch.cat([self.adapter(frames[None])[0].to(self.dtype), self.prompt])

    def _recognise(self, one: Utterance) -> str:
        before = self._before(one)[None]
        end = self.tokenizer.eos_token_id
        tokens = self.model.generate(
            inputs_embeds=before,
            attention_mask=torch.ones(before.shape[:2], dtype=torch.long, device=self.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=int(len(one.tokens) * 1.5) + 4,
            eos_token_id=end,
            pad_token_id=end,
        )
        text: str = self.tokenizer.decode(tokens[0], skip_special_tokens=True)
        return text
