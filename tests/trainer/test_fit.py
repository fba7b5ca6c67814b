"""The training loop on samples whose valence can be learnt."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from models.network import SentimentNetwork
from models.spec import NetworkSpec
from trainer.checkpoint import CheckpointError, Epoch
from trainer.data.batches import Batches
from trainer.data.samples import FrameShapes, Sample, SampleList
from trainer.distributed import Team
from trainer.evaluation.calibrate import calibrate, conformal_margin
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.prediction import Predictions, View, predict
from trainer.fit import (
    FitError,
    Fitted,
    Hooks,
    StoppedError,
    batch_loss,
    choose_device,
    fit,
    learning_rate,
)
from trainer.losses import LossTerms
from trainer.model import SentimentModel
from trainer.recipe import Augmentation, Optimiser, Recipe

pytestmark = pytest.mark.slow

SHAPES = FrameShapes((6,), (5,), (4,))
SPEC = NetworkSpec(audio_dim=6, text_dim=5, video_dim=4, hidden_dim=16, fused_dim=8, rnc_dim=8)


def make_samples(n: int, seed: int) -> SampleList:
    """Every modality shows the valence in its first feature, under noise."""
    generator = np.random.default_rng(seed)
    items = []
    for index in range(n):
        valence = float(np.round(generator.uniform(-3, 3) * 3) / 3)
        arrays = {}
        for name, dim in (("audio", 6), ("text", 5), ("simulated_text", 5), ("video", 4)):
            values = generator.normal(size=(int(generator.integers(2, 12)), dim)) * 0.5
            values[:, 0] += valence
            arrays[name] = values.astype(np.float32)
        items.append(Sample(f"{seed}-{index}", valence, 4.0, **arrays))
    return SampleList(tuple(items))


TRAIN, VALID, TEST = make_samples(192, 1), make_samples(256, 2), make_samples(256, 3)


def recipe(average: float = 0.0, **training: object) -> Recipe:
    tree = {
        "optimiser": {"learning_rate": 5e-3, "warmup_epochs": 1, "average": average},
        "training": {"batch": 32, "epochs": 4, "device": "cpu", **training},
        "network": {"input_dropout": 0.1, "dropout": 0.1},
    }
    return Recipe.model_validate(tree)


def train(folder: Path, settings: Recipe, seed: int = 0, **options: object) -> Fitted:
    torch.manual_seed(seed)
    model = SentimentModel(SentimentNetwork(SPEC), augmentation=settings.augmentation)
    batches = Batches(TRAIN, SHAPES, 32, seed, settings.augmentation, window_s=2.0)
    return fit(model, batches, Batches(VALID, SHAPES, 32), settings, folder, seed, **options)


def trained(folder: Path, epochs: int = 8) -> SentimentModel:
    model = SentimentModel(SentimentNetwork(SPEC))
    model.load_state_dict(train(folder, recipe(epochs=epochs)).model)
    return model


def test_training_beats_the_constant_in_every_subset_and_is_calibrated(tmp_path: Path) -> None:
    model = trained(tmp_path)
    margins = calibrate(model, VALID, SHAPES, simulates=True, window_s=4.0)
    labels = {"": np.array([s.valence for s in TRAIN.items])}
    by_pattern = {margin.pattern: margin.margin for margin in margins}
    found = evaluate(
        model, TEST, SHAPES, labels, "test", 0, simulates=True, window_s=4.0, margins=by_pattern
    )
    whole = [result for result in found.results if result.span == "utterance"]
    assert {result.pattern for result in whole} == {
        "audio", "text", "video", "audio+text", "audio+video", "text+video", "audio+text+video",
        "audio+simulated_text", "audio+simulated_text+video",
    }  # fmt: skip
    for result in whole:
        assert result.metrics.mae < 0.6 * result.constant.mae
        assert 0.8 < result.coverage < 0.98  # of 256 clips, 90 % asked for
    errors = [point.mae for point in found.robustness if point.flow == "complete"]
    assert len(errors) == 10


def test_a_voice_without_words_counts_for_voices_alone(tmp_path: Path) -> None:
    """Its interval is not that of a voice whose words were understood: the words narrow it."""
    model = trained(tmp_path)
    deaf = tuple(
        replace(s, valence=-s.valence, simulated_text=None, corpus="other") for s in VALID.items
    )
    understood = tuple(replace(s, corpus="own") for s in VALID.items)
    both = SampleList(understood + deaf)

    def margins(samples: SampleList, spoken: bool) -> dict[str, float]:
        found = calibrate(model, samples, SHAPES, simulates=True, window_s=4.0, spoken=spoken)
        return {margin.pattern: margin.margin for margin in found}

    alone = margins(SampleList(understood), spoken=True)["audio+simulated_text"]
    assert margins(both, spoken=True)["audio+simulated_text"] == alone
    assert margins(both, spoken=False)["audio+simulated_text"] > alone
    assert margins(both, spoken=True)["audio"] > alone
    labels = {"own": np.zeros(1), "other": np.zeros(1)}
    found = evaluate(
        model, both, SHAPES, labels, "test", 0, True, 4.0, robustness=False, spoken=True
    )
    assert {r.corpus for r in found.results if r.pattern == "audio+simulated_text"} == {"own"}


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_killed_half_way_ends_with_the_same_weights(tmp_path: Path, average: float) -> None:
    settings = recipe(average)
    whole = train(tmp_path / "whole", settings)
    batches_seen = 0

    def interrupt() -> None:
        nonlocal batches_seen
        batches_seen += 1
        if batches_seen == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", settings, hooks=Hooks(on_batch=interrupt))
    epochs: list[Epoch] = []
    resumed = train(tmp_path / "killed", settings, hooks=Hooks(on_epoch=epochs.append))
    assert [epoch.epoch for epoch in epochs] == [2, 3]
    assert resumed.history.best_epoch == whole.history.best_epoch
    for name, value in whole.model.items():
        assert torch.equal(value, resumed.model[name]), name


def test_what_is_kept_is_the_mean_of_the_weights_on_the_way(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", recipe(epochs=1)).model
    averaged = train(tmp_path / "averaged", recipe(0.5, epochs=1)).model
    saved = torch.load(tmp_path / "averaged" / "checkpoint.pt", weights_only=True)
    for name, value in plain.items():
        assert torch.equal(saved["model"][name], value), name
    moved = [name for name, value in plain.items() if not torch.equal(averaged[name], value)]
    assert any(name.endswith("weight") for name in moved)
    for name in moved:
        assert torch.allclose(averaged[name], plain[name], atol=0.1), name


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tmp_path, recipe(epochs=1))
    other = recipe(epochs=1).model_copy(update={"window_ms": 5000})
    with pytest.raises(CheckpointError, match="window_ms: made with 4000, now 5000"):
        train(tmp_path, other)
    with pytest.raises(CheckpointError, match="made with another data"):
        train(tmp_path, recipe(epochs=1), data="other clips")


def test_more_epochs_go_on_from_a_finished_run_and_fewer_are_refused(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", recipe(epochs=3))
    train(tmp_path / "parts", recipe(epochs=1))
    longer = train(tmp_path / "parts", recipe(epochs=3))
    assert longer.history.best_epoch == whole.history.best_epoch
    for name, value in whole.model.items():
        assert torch.equal(value, longer.model[name]), name
    with pytest.raises(CheckpointError, match=r"trained for 3 epochs, training.epochs asks for 2"):
        train(tmp_path / "parts", recipe(epochs=2))


def test_a_run_that_is_stopped_within_an_epoch_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", recipe(epochs=2))
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked == 9  # the third of the second epoch's six batches

    with pytest.raises(StoppedError, match="continues from there"):
        train(tmp_path / "stopped", recipe(epochs=2), hooks=Hooks(stopping=stopping))
    batches = 0

    def count() -> None:
        nonlocal batches
        batches += 1

    resumed = train(tmp_path / "stopped", recipe(epochs=2), hooks=Hooks(on_batch=count))
    assert batches == 3
    assert resumed.history.epochs[1].terms == whole.history.epochs[1].terms
    for name, value in whole.model.items():
        assert torch.equal(value, resumed.model[name]), name


def test_the_mean_of_an_epochs_terms_is_over_the_batches_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Weighted(SampleList):
        @property
        def weights(self) -> np.ndarray:
            return np.full(len(self.items), 0.5)

    def ones(*given: object) -> LossTerms:
        return LossTerms(batch_loss(*given).total * 0 + 1)  # type: ignore[arg-type]

    monkeypatch.setattr("trainer.fit.batch_loss", ones)
    settings = recipe(epochs=1)
    few = Weighted(TRAIN.items[:9])
    drawn = (Batches(few, SHAPES, 1, seed, settings.augmentation) for seed in range(20))
    batches = next(b for b in drawn if len(b.order(0)) != len(b))  # not the average number
    model = SentimentModel(SentimentNetwork(SPEC))
    fitted = fit(model, batches, Batches(VALID, SHAPES, 32), settings, tmp_path, 0)
    assert fitted.history.epochs[0].terms["total"] == 1


def test_a_full_disk_within_a_checkpoint_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(state: object, file: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(CheckpointError, match=r"written to its end \(it takes 0 MB, .* MB free\)"):
        train(tmp_path, recipe(epochs=1))
    assert not (tmp_path / "checkpoint.part").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 the first bytes of an archive"])
def test_a_checkpoint_that_was_cut_off_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    wanted = rf"expected a checkpoint, got {len(content)} bytes .* remove it to train the seed"
    with pytest.raises(CheckpointError, match=wanted):
        train(tmp_path, recipe(epochs=1))


def test_a_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(FitError, match=r"got 'cuda': torch finds 0 GPUs"):
        choose_device("cuda")
    with pytest.raises(FitError, match="expected auto, cpu or cuda"):
        choose_device("gpu")


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    settings = recipe()
    model = SentimentModel(SentimentNetwork(SPEC))
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("inf"))
    train_batches = Batches(TRAIN, SHAPES, 32, 0, settings.augmentation)
    valid_batches = Batches(VALID, SHAPES, 32)
    with pytest.raises(FitError, match="epoch 0: the loss is"):
        fit(model, train_batches, valid_batches, settings, tmp_path, 0)


def test_without_clips_the_error_says_how_many_there_are(tmp_path: Path) -> None:
    model = SentimentModel(SentimentNetwork(SPEC))
    empty = Batches(SampleList(()), SHAPES, 4)
    with pytest.raises(FitError, match="got 0 train and 256 valid"):
        fit(model, empty, Batches(VALID, SHAPES, 4), recipe(), tmp_path, 0)


def test_a_prediction_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    model = trained(tmp_path, epochs=1)
    device = torch.device("cpu")
    alone = predict(model, TEST, SHAPES, View(), device, batch=1)
    together = predict(model, TEST, SHAPES, View(), device, batch=64)
    assert alone.ids == together.ids
    np.testing.assert_allclose(alone.valence, together.valence, atol=1e-5)


def test_the_schedule_warms_up_then_steps_down() -> None:
    settings = Optimiser()
    rates = [learning_rate(settings, epoch, 30) for epoch in range(30)]
    assert rates[:5] == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5, 1e-4])
    assert rates[13] == pytest.approx(1e-4)  # ten epochs at the full rate: 4 to 13
    assert rates[14] == pytest.approx(9e-5)
    assert rates[24] == pytest.approx(8.1e-5)


def test_a_cosine_goes_from_the_full_rate_to_nothing() -> None:
    settings = Optimiser(schedule="cosine", learning_rate=1e-3, warmup_epochs=2)
    rates = [learning_rate(settings, epoch, 12) for epoch in range(12)]
    assert rates[:2] == pytest.approx([5e-4, 1e-3])
    assert all(later < earlier for earlier, later in pairwise(rates[1:]))
    assert rates[6] + rates[7] == pytest.approx(1e-3)
    assert 0 < rates[-1] < 1e-5


def test_a_conformal_margin_covers_what_it_promises() -> None:
    generator = np.random.default_rng(0)

    def draw(n: int) -> Predictions:
        labels = generator.normal(size=n)
        zeros = np.zeros(n)
        return Predictions(
            tuple(map(str, range(n))), ("",) * n, labels, zeros, zeros - 0.5, zeros + 0.5
        )

    margin = conformal_margin([draw(5000)])
    found = draw(20_000)
    inside = (found.labels >= found.low - margin) & (found.labels <= found.high + margin)
    assert inside.mean() == pytest.approx(0.9, abs=0.015)
    assert conformal_margin([draw(5)]) == 6.0


def test_both_flows_at_once_are_each_flow_by_itself() -> None:
    torch.manual_seed(0)
    model = SentimentModel(SentimentNetwork(SPEC)).eval()
    (batch, *_) = Batches(TEST, SHAPES, 16).epoch(0)
    with torch.inference_mode():
        frames = model.encode(batch)
        together = model.flows(frames, batch.has_complete, batch.has_missing)
        for one, other in zip(
            together, (model.complete(frames), model.missing_text(frames)), strict=True
        ):
            torch.testing.assert_close(one.valence, other.valence, atol=1e-6, rtol=0)
            torch.testing.assert_close(one.text_cross, other.text_cross, atol=1e-6, rtol=0)


def test_rows_that_lack_something_run_apart_and_alike() -> None:
    torch.manual_seed(0)
    model = SentimentModel(SentimentNetwork(SPEC)).eval()
    lacking = [
        replace(s, **{name: None for bit, name in enumerate(names) if index >> bit & 1})
        for index, s in enumerate(TEST.items[:31])
        if (names := ("audio", "text", "video", "simulated_text", "emotions"))
    ]
    (batch,) = Batches(SampleList(tuple(lacking)), SHAPES, 31).epoch(0)
    with torch.inference_mode():
        frames = model.encode(batch)
        found = model.flows(frames, batch.has_complete, batch.has_missing)
        whole = (model.complete(frames), model.missing_text(frames))
    wanted = (batch.has_complete, batch.has_missing)
    assert 0 < int(batch.has_complete.sum()) < 31
    for one, other, rows in zip(found, whole, wanted, strict=True):
        torch.testing.assert_close(one.valence[rows], other.valence[rows])
        torch.testing.assert_close(one.fused[rows], other.fused[rows])
        assert not one.valence[~rows].any()


def test_projecting_once_has_the_gradients_of_projecting_per_flow() -> None:
    spec = SPEC.model_copy(update={"dropout": 0.0, "input_dropout": 0.0})
    gradients = []
    for one_draw in (True, False):
        torch.manual_seed(0)
        settings = Augmentation(frame_drop=0, one_draw=one_draw)
        model = SentimentModel(SentimentNetwork(spec), augmentation=settings)
        (batch, *_) = Batches(TEST, SHAPES, 16).epoch(0)
        batch_loss(model, batch, Recipe().loss, Team()).total.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("one_draw", [True, False])
def test_a_draw_per_flow_hides_other_frames_from_each(one_draw: bool) -> None:
    torch.manual_seed(0)
    (batch, *_) = Batches(TEST, SHAPES, 16).epoch(0)
    settings = Augmentation(frame_drop=0, one_draw=one_draw)
    model = SentimentModel(SentimentNetwork(SPEC), augmentation=settings)
    seen: list[torch.Tensor] = []
    model.network.projections[0].register_forward_hook(lambda _, __, out: seen.append(out[0]))
    model.flows(model.encode(batch), batch.has_complete, batch.has_missing)
    assert len(seen) == (1 if one_draw else 2)
    assert one_draw or not torch.equal(seen[0], seen[1])


def test_under_torchrun_each_process_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device("cpu") == torch.device("cpu")


def test_frames_that_do_not_count_are_not_projected_and_change_no_gradient() -> None:
    spec = SPEC.model_copy(update={"dropout": 0.0, "input_dropout": 0.0})
    (batch, *_) = Batches(TEST, SHAPES, 16).epoch(0)
    torch.manual_seed(0)
    hidden = batch.audio_mask & (torch.rand(batch.audio_mask.shape) < 0.7)
    hidden[3] = False  # a clip without a voice
    batch = replace(batch, audio_mask=hidden)
    gradients: list[list[torch.Tensor]] = []
    projected = {True: 0, False: 0}
    for training in projected:
        torch.manual_seed(0)
        model = SentimentModel(SentimentNetwork(spec), augmentation=Augmentation(frame_drop=0))
        model.train(training)

        def count(_: object, given: tuple[torch.Tensor], __: object, now: bool = training) -> None:
            projected[now] += given[0].shape[:-1].numel()

        model.network.projections[0].register_forward_hook(count)
        batch_loss(model, batch, Recipe().loss, Team()).total.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert projected[True] == int(hidden.sum())
    assert projected[False] > 1.2 * projected[True]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("one_draw", [True, False])
def test_a_few_rows_at_a_time_have_the_loss_and_gradients_of_all(
    one_draw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"dropout": 0.0, "input_dropout": 0.0})
    (batch, *_) = Batches(TEST, SHAPES, 37).epoch(0)
    settings = Augmentation(frame_drop=0, one_draw=one_draw)
    found = []
    for rows in (5, 37):
        monkeypatch.setattr("trainer.model.ROWS_AT_ONCE", rows)
        torch.manual_seed(0)
        model = SentimentModel(SentimentNetwork(spec), augmentation=settings)
        total = batch_loss(model, batch, Recipe().loss, Team()).total
        total.backward()
        found.append([total.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
