"""The published checkpoint file as a bundle of its fusion network."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from models.calibration import Calibration
from models.export import Label, Parts, write_bundle
from models.published import PublishedWeightsError, Variant, load
from models.spec import BundleConfig

CARD = """# {name}

Fusion network of arXiv 2410.15029 (variant `{variant}`), imported from its published checkpoint.
It takes frames of the paper's encoders, which are not part of this bundle. Its output is not
bounded and has no uncertainty head; without a calibration its interval is the whole scale.
"""


class CheckpointFileError(Exception):
    """A checkpoint file that cannot be imported."""


def import_published(
    checkpoint: Path, out: Path, variant: Variant = "released", half: bool = False
) -> BundleConfig:
    """Write the bundle of a published checkpoint (key ``state_dict``, or bare).

    Raises:
        CheckpointFileError: the file is missing or holds more than tensors.
        models.published.PublishedWeightsError: keys unknown, missing or misshapen.
    """
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointFileError(f"{checkpoint}: cannot be read: {error.strerror}") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        # torch's own text advises to load it unsafely: never, it would run code from the file.
        raise CheckpointFileError(
            f"{checkpoint}: expected a PyTorch checkpoint that holds nothing but tensors"
        ) from None
    if isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise PublishedWeightsError(f"expected a state dict, got {type(found).__name__}")
    name = f"published-{variant}"
    card = CARD.format(name=name, variant=variant)
    label = Label(name, "1", trained=True, licence="see the published checkpoint")
    return write_bundle(out, Parts(load(found, variant)), label, Calibration(), card, half=half)
