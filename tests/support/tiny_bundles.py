"""Tiny bundles with random weights in other shapes than the default's."""

from __future__ import annotations

from pathlib import Path

import torch

from models import bundle as bundles
from models.calibration import Calibration
from models.encoders.embedded import FaceEncoder
from models.encoders.specs import face_spec
from models.export import Label, Parts, write_bundle
from models.network import SentimentNetwork
from models.spec import NetworkSpec


def paper_like(directory: Path) -> bundles.Bundle:
    """The published options (raw weights, MIA on the text only, no quantiles), no audio encoder.

    Its text and audio frames come from models that have no graph, as the paper's do.
    """
    torch.manual_seed(7)
    face = face_spec(dim=20, channels=8, size_px=64).model_copy(update={"channels_in": 3})
    network = NetworkSpec(
        audio_dim=24, text_dim=40, video_dim=20, hidden_dim=32, fused_dim=32, weights="raw",
        mia="text", mia_residual="text", bounded=False, quantiles=None,
    )  # fmt: skip
    parts = Parts(SentimentNetwork(network), video_encoder=FaceEncoder(face))
    label = Label("paper-like", "0", trained=False, licence="Apache-2.0")
    write_bundle(directory, parts, label, Calibration(), "# tiny\n")
    return bundles.open(directory)
