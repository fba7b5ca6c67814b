"""The untrained bundle: the embedded default's exact sizes with random weights.

``python -m models.untrained OUT`` makes it. It stands in until a trained default lands, so that
the whole engine runs; every score of it says that it means nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.calibration import Calibration
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.encoders.specs import face_spec, student_spec, voice_spec
from models.export import Label, Parts, write_bundle
from models.network import SentimentNetwork
from models.spec import BundleConfig, NetworkSpec, TextEncoderSpec
from models.text_simulation.student import StudentTextSimulation

SEED = 20241029
CARD = """# untrained

Random weights in the sizes of Undertone's embedded default. **Its scores mean nothing**: it is
here so that the engine runs before a model is trained, and every score is marked `UNTRAINED`.
Its interval spans the whole scale, [-3, 3].

Made by `python -m models.untrained`, from no data at all. Apache-2.0.
"""


def embedded_network(audio_dim: int, text_dim: int, video_dim: int) -> NetworkSpec:
    """Sizes of the embedded default's fusion network."""
    return NetworkSpec(
        audio_dim=audio_dim, text_dim=text_dim, video_dim=video_dim, hidden_dim=128, fused_dim=64
    )


def write_untrained(directory: Path, seed: int = SEED) -> BundleConfig:
    """Write the bundle; its calibration knows no pattern, so every interval is the whole scale."""
    torch.manual_seed(seed)
    voice, face, student = voice_spec(), face_spec(), student_spec()
    parts = Parts(
        network=SentimentNetwork(embedded_network(voice.dim, student.dim, face.dim)),
        audio_encoder=VoiceEncoder(voice),
        text_simulation=StudentTextSimulation(student, voice.dim),
        video_encoder=FaceEncoder(face),
        text_encoder=TextEncoderSpec(
            source="sentence-transformers/all-MiniLM-L6-v2", layer=-1, dim=student.dim
        ),
    )
    label = Label("untrained", "0", trained=False, licence="Apache-2.0")
    return write_bundle(directory, parts, label, Calibration(), CARD)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="write a bundle of random weights")
    parser.add_argument("out", type=Path)
    write_untrained(parser.parse_args().out)
