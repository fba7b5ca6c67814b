"""What an adapter between a speech encoder and a language model learns from how much speech.

Speaks short sentences of a corpus with flite, then runs ``python -m trainer adapter`` on them:
its ``curve.csv`` has the word error rate on held-out sentences by seconds of speech heard. The
sentences keep their labels, so that ``OUT/speech`` is a corpus for ``python -m trainer`` as well.

    python benchmarks/adapter.py --corpus label.csv --speech RECOGNISER --language-model MODEL \
        --out adapter [--steps 300]

No text is in two splits, and the voice of valid and test is another than that of train.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import wave
from pathlib import Path

from trainer.adapter import AdapterOptions, run
from trainer.corpus import Clip
from trainer.corpus import open as open_corpus
from trainer.word_errors import normalised

VOICES = {"train": "rms", "valid": "awb", "test": "awb"}


def sentences(clips: tuple[Clip, ...], words: tuple[int, int], known: set[str]) -> list[Clip]:
    """Clips of so many words, each text once, none that is known already."""
    found = []
    for clip in clips:
        said = normalised(clip.transcript or "")
        text = " ".join(said)
        if words[0] <= len(said) <= words[1] and text not in known:
            known.add(text)
            found.append(clip)
    return found


def speak(clips: dict[str, list[Clip]], folder: Path) -> None:
    """Write a manifest and a WAV file per sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, own in clips.items():
        for number, clip in enumerate(own):
            path = folder / f"{split}-{number:05d}.wav"
            if not path.is_file():
                partial = path.with_suffix(".part")
                text = (clip.transcript or "").replace('"', " ")
                command = ["flite", "-voice", VOICES[split], "-t", text, "-o", str(partial)]
                subprocess.run(command, check=True)
                partial.replace(path)
            with wave.open(str(path)) as file:
                seconds = file.getnframes() / file.getframerate()
            rows.append(
                (path.stem, split, clip.valence, path.name, clip.transcript, f"{seconds:.2f}")
            )
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "split", "valence", "audio", "text", "seconds"))
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="with transcripts")
    parser.add_argument("--speech", required=True)
    parser.add_argument("--language-model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--words", type=int, nargs=2, default=(3, 8), help="of a sentence")
    parser.add_argument("--most", type=int, default=3_000, help="training sentences")
    parser.add_argument("--held-out", type=int, default=60, help="sentences of valid")
    parser.add_argument("--test", type=int, default=150, help="sentences of test")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--evaluate-every", type=int, default=50)
    parser.add_argument("--aligned-steps", type=int, default=0, help="cheap ones, before these")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    corpus, known = open_corpus(arguments.corpus), set[str]()
    words = (arguments.words[0], arguments.words[1])
    test = sentences(corpus.split("test"), words, known)[: arguments.test]
    train = sentences(corpus.split("train"), words, known)[: arguments.most]
    held = sentences(corpus.split("valid"), words, known)[: arguments.held_out]
    speak({"train": train, "valid": held, "test": test}, arguments.out / "speech")
    options = AdapterOptions(
        arguments.out / "speech",
        arguments.out,
        arguments.speech,
        arguments.language_model,
        steps=arguments.steps,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        warmup_steps=20,
        evaluate_every=arguments.evaluate_every,
        evaluate_clips=arguments.held_out,
        aligned_steps=arguments.aligned_steps,
        threads=arguments.threads,
    )
    sys.exit(run(options))


if __name__ == "__main__":
    main()
