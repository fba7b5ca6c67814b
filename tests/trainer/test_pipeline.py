"""The whole run on small real media: sounds and pictures that show their valence."""

import json
import shutil
import signal
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models import bundle
from models.spec import PROJECTIONS
from trainer.command import carry_out
from trainer.corpus import open as open_corpus
from trainer.data.clips import pair
from trainer.features.extraction import extract
from trainer.features.media import MediaReader
from trainer.features.pictures import CropExtractor
from trainer.features.sound import MelExtractor
from trainer.features.store import FeatureError
from trainer.progress import TerminalProgress

# Training, and each bundle is exported twice over: more than the usual minute on a busy machine.
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

SPLITS = ("train",) * 16 + ("valid",) * 6 + ("test",) * 6
FUSED = """
name = "small"
licence = "test"
[[stages]]
name = "voice"
recipe = "{voice}"
corpora = ["sounds"]
[encoders]
audio = {{ kind = "bundle", source = "stage:voice" }}
text = {{ kind = "none" }}
video = {{ kind = "embedded" }}
text_simulation = {{ kind = "bundle", source = "stage:voice" }}
[pairing]
share = 0.5
tolerance = 1.0
[network]
hidden_dim = 16
fused_dim = 8
[training]
batch = 8
epochs = 2
seeds = 2
device = "cpu"
"""
VOICE = """
name = "small-voice"
licence = "test"
[encoders]
audio = { kind = "embedded" }
text = { kind = "none" }
video = { kind = "none" }
text_simulation = { kind = "student" }
[network]
hidden_dim = 16
fused_dim = 8
[loss]
emotion = 0.5
encoder = 0.5
[augmentation]
sound = 0.5
speaker = 0.5
[training]
batch = 8
epochs = 2
device = "cpu"
"""


def write_sound(path: Path, valence: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    time_s = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * (300 + 80 * valence) * time_s) * 8_000
    samples = (tone + generator.normal(0, 200, len(time_s))).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


def write_corpora(folder: Path) -> list[Path]:
    """Two manifests: sounds, one of them no sound at all; and pictures."""
    generator = np.random.default_rng(0)
    found = []
    for name, column, suffix in (("sounds", "audio", "wav"), ("faces", "image", "png")):
        place = folder / name
        place.mkdir(parents=True)
        rows = [f"id,split,valence,{column},emotion"]
        for index, split in enumerate(SPLITS):
            valence = round(float(generator.uniform(-3, 3)), 2)
            path = place / f"{index}.{suffix}"
            if suffix == "wav":
                write_sound(path, valence, index)
            else:
                picture = generator.integers(0, 60, (48, 48, 3)).astype(np.uint8)
                picture[:, : 24 + round(7 * valence)] += 120
                cv2.imwrite(str(path), picture)
            emotion = "happy" if valence > 0 else "sad"
            rows.append(f"{name[0]}{index},{split},{valence},{path.name},{emotion}")
        (place / "manifest.csv").write_text("\n".join(rows) + "\n")
        found.append(place)
    (folder / "sounds" / "3.wav").write_bytes(b"this is not a sound")
    return found


def write_recipe(folder: Path) -> Path:
    (folder / "voice.toml").write_text(VOICE)
    path = folder / "small.toml"
    path.write_text(FUSED.format(voice=folder / "voice.toml"))
    return path


def do(step: str, corpora: list[Path], out: Path, recipe: Path) -> int:
    run = out.with_name(f"{out.name}.run")
    return carry_out(step, corpora, out, run, run / "features", str(recipe), None, ())


def figures(out: Path) -> list[dict[str, object]]:
    run = out.with_name(f"{out.name}.run")
    return [
        json.loads((run / f"seed-{seed}" / "evaluation.json").read_text())["evaluation"]
        for seed in range(2)
    ]


def assert_alike(found: object, expected: object) -> None:
    """Equal but for the last bits, in which two processes' sums may differ."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=5e-3)
    elif isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == expected


def share_stages(finished: Path, other: Path) -> None:
    """Another run of the same recipe finds its stages trained."""
    shutil.copytree(
        finished.with_name(f"{finished.name}.run") / "stages",
        other.with_name(f"{other.name}.run") / "stages",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path, Path]:
    """A whole run: corpora, recipe, bundle."""
    folder = tmp_path_factory.mktemp("run")
    corpora, recipe = write_corpora(folder), write_recipe(folder)
    out = folder / "whole"
    assert do("run", corpora, out, recipe) == 0
    return corpora, recipe, out


def test_a_run_leaves_a_bundle_with_card_recipe_and_report(
    finished: tuple[list[Path], Path, Path],
) -> None:
    _, _, out = finished
    opened = bundle.open(out)
    assert opened.config.trained
    assert set(opened.config.graphs) == {
        "audio_encoder", "text_simulation", "video_encoder", *PROJECTIONS, "fusion",
    }  # fmt: skip
    assert "audio+simulated_text+video" in opened.calibration.patterns
    assert "| pairs | audio+simulated_text+video |" in (out / "README.md").read_text()
    page = out.with_name("whole-report.html").read_text()
    assert "unreadable in some modality: 2" in page
    assert json.loads((out / "recipe.json").read_text())["name"] == "small"


def test_the_parts_of_a_run_can_be_asked_for_one_by_one_and_agree_with_the_whole(
    finished: tuple[list[Path], Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpora, recipe, out = finished
    steps = out.with_name("steps")
    share_stages(out, steps)
    assert do("evaluate", corpora, steps, recipe) == 2
    assert "seed 0 is not trained yet: run `fit` first" in capsys.readouterr().err
    assert do("features", corpora, steps, recipe) == 0
    assert do("fit", corpora, steps, recipe) == 0
    assert do("evaluate", corpora, steps, recipe) == 2
    assert "run `calibrate` first" in capsys.readouterr().err
    for step in ("calibrate", "evaluate", "report"):
        assert do(step, corpora, steps, recipe) == 0
    assert_alike(figures(steps), figures(out))
    assert steps.with_name("steps-report.html").is_file()


def test_a_killed_run_goes_on_to_the_same_figures(
    finished: tuple[list[Path], Path, Path],
) -> None:
    corpora, recipe, out = finished
    killed = out.with_name("killed")
    share_stages(out, killed)
    named = [option for path in corpora for option in ("--corpus", str(path))]
    command = [sys.executable, "-m", "trainer", "fit", *named, "--out", str(killed)]
    command += ["--recipe", str(recipe)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "seed 0 epoch 0" in line and "small seed" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    for step in ("fit", "calibrate", "evaluate"):
        assert do(step, corpora, killed, recipe) == 0
    assert_alike(figures(killed), figures(out))


def test_ctrl_c_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(self: TerminalProgress, line: str) -> None:
        if "epoch 0" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(TerminalProgress, "say", say)
    corpora, recipe = write_corpora(tmp_path), write_recipe(tmp_path)
    assert do("run", corpora, tmp_path / "out", recipe) == 130
    assert capsys.readouterr().err.endswith(
        "interrupted; the same command continues where it stopped\n"
    )
    assert (tmp_path / "out.run/stages/voice.run/seed-0/checkpoint.pt").is_file()


def test_training_starts_from_the_weights_of_a_bundle(
    finished: tuple[list[Path], Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpora, recipe, out = finished
    kept = load_file(out / "weights.safetensors")
    begun = out.with_name("begun")
    share_stages(out, begun)
    run = begun.with_name("begun.run")

    def fit(*overrides: str) -> int:
        told = ("training.epochs=1", "training.seeds=1", "optimiser.learning_rate=1e-12")
        features = run / "features"
        return carry_out(
            "fit", corpora, begun, run, features, str(recipe), None, (*told, *overrides)
        )

    assert fit(f"encoders.video.start={out}", "encoders.video.channels=8") == 2
    shapes = "video_encoder.stem.0.weight: expected [8, 1, 3, 3], got [24, 1, 3, 3]"
    assert shapes in capsys.readouterr().err
    assert fit(f"encoders.video.start={recipe}") == 2
    assert "expected a bundle's weights" in capsys.readouterr().err
    assert fit(f"encoders.video.start={out}") == 0
    model = torch.load(run / "seed-0" / "checkpoint.pt", weights_only=True)["best_model"]
    for name in ("stem.0.weight", "stages.2.second.weight", "output.weight"):
        expected = kept[f"video_encoder.{name}"]
        assert torch.allclose(model[f"video_encoder.{name}"], expected, atol=1e-6), name


def test_extraction_resumes_and_names_what_cannot_be_read(tmp_path: Path) -> None:
    sounds, _ = write_corpora(tmp_path)
    corpus = open_corpus(sounds)
    store = tmp_path / "features"
    seen = 0

    def interrupt() -> None:
        nonlocal seen
        seen += 1
        if seen == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(corpus, [MelExtractor(MediaReader())], store, interrupt)
    found = extract(corpus, [MelExtractor(MediaReader())], store)
    assert len(found.clips) == len(SPLITS) - 1
    (line,) = found.unreadable
    assert line.startswith("s3: ")
    assert found.bare == 1
    assert found.stores["audio"].entry(found.clips[0].keys["audio"]).seconds == 1.0
    again = extract(corpus, [MelExtractor(MediaReader())], store)
    assert [clip.keys for clip in again.clips] == [clip.keys for clip in found.clips]


def test_an_extractor_that_fits_no_clip_says_what_to_set(tmp_path: Path) -> None:
    from trainer.features.extractors import FeatureExtractor

    sounds, _ = write_corpora(tmp_path)
    with pytest.raises(FeatureError, match=r"which have media: set encoders.audio.kind"):
        extract(open_corpus(sounds), [FeatureExtractor("audio", 4)], tmp_path / "features")


def test_pairs_are_of_like_valence_and_of_one_split(tmp_path: Path) -> None:
    from trainer.corpus import merge

    corpus = merge([open_corpus(path) for path in write_corpora(tmp_path)])
    reader = MediaReader()
    found = extract(corpus, [MelExtractor(reader), CropExtractor(reader)], tmp_path / "features")
    train = [clip for clip in found.clips if clip.split == "train"]
    pairs = pair(train, share=2.0, tolerance=0.8, seed=0)
    assert pairs == pair(train, share=2.0, tolerance=0.8, seed=0)
    by_key = {key: clip.valence for clip in train for key in clip.keys.values()}
    assert pairs
    for one in pairs:
        voice, face = by_key[one.keys["audio"]], by_key[one.keys["video"]]
        assert abs(voice - face) <= 0.8
        assert one.valence == pytest.approx((voice + face) / 2)
    assert pair(train, share=0.0, tolerance=0.8, seed=0) == ()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("encoders.audio.source=stage:face",), "expected one of the stages"),
        (("encoders.text.kind=embedded",), "text.kind"),
        (("voice:training.epoch=1",), "training.epoch: Extra inputs"),
    ],
)
def test_a_wrong_setting_ends_with_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
) -> None:
    corpora, recipe = write_corpora(tmp_path), write_recipe(tmp_path)
    out = tmp_path / "out"
    code = carry_out(
        "run", corpora, out, tmp_path / "run", tmp_path / "f", str(recipe), None, overrides
    )
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
