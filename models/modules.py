"""A bundle's torch modules with their weights: for the PyTorch backend, and to train on."""

from __future__ import annotations

from safetensors.torch import load_file
from torch import nn

from models.bundle import Bundle, BundleError
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.network import SentimentNetwork
from models.spec import BundleConfig
from models.text_simulation.student import StudentTextSimulation


def load_modules(bundle: Bundle) -> dict[str, nn.Module]:
    """The modules by graph name, in eval mode.

    Raises:
        BundleError: weights missing or misshapen, or an encoder that is not embedded.
    """
    if not bundle.weights_path.is_file():
        raise BundleError(f"{bundle.directory}: no {bundle.weights_path.name}")
    weights = load_file(bundle.weights_path)
    modules = build_modules(bundle.config)
    for graph, module in modules.items():
        prefix = f"{graph}."
        own = {
            key.removeprefix(prefix): value
            for key, value in weights.items()
            if key.startswith(prefix)
        }
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise BundleError(f"{bundle.weights_path}: {graph}: {error}") from None
        module.eval()
    return modules


def build_modules(config: BundleConfig) -> dict[str, nn.Module]:
    """Build the modules that ``config`` names, with weights yet to come.

    Raises:
        BundleError: an encoder that is not embedded.
    """
    modules: dict[str, nn.Module] = {"fusion": SentimentNetwork(config.network)}
    specs = (config.audio_encoder, config.text_simulation, config.video_encoder)
    for spec in specs:
        if spec is not None and spec.kind != "embedded":
            raise BundleError(
                f"expected embedded encoders, the bundle has kind {spec.kind!r} ({spec.source})"
            )
    if config.audio_encoder is not None:
        modules["audio_encoder"] = VoiceEncoder(config.audio_encoder)
        if config.text_simulation is not None:
            modules["text_simulation"] = StudentTextSimulation(
                config.text_simulation, config.audio_encoder.dim
            )
    if config.video_encoder is not None:
        modules["video_encoder"] = FaceEncoder(config.video_encoder)
    return modules
