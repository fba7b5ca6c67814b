"""A bundle's torch modules with their weights: for the PyTorch backend, and to train on."""

from __future__ import annotations

from safetensors.torch import load_file
from torch import nn

from models.bundle import Bundle, BundleError
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.network import SentimentNetwork
from models.spec import BundleConfig, GraphName
from models.text_simulation.student import StudentTextSimulation


def load_modules(bundle: Bundle, skip_others: bool = False) -> dict[GraphName, nn.Module]:
    """The modules by graph name, in eval mode.

    Args:
        bundle: an opened bundle with its weights.
        skip_others: leave encoders out that are not embedded; else they are refused.

    Raises:
        BundleError: weights missing or misshapen, or an encoder that is not embedded.
    """
    if not bundle.weights_path.is_file():
        raise BundleError(f"{bundle.directory}: no {bundle.weights_path.name}")
    weights = load_file(bundle.weights_path)
    modules = build_modules(bundle.config, skip_others)
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


def build_modules(config: BundleConfig, skip_others: bool = False) -> dict[GraphName, nn.Module]:
    """Build the modules that ``config`` names, with weights yet to come.

    Raises:
        BundleError: an encoder that is not embedded, unless those are skipped.
    """
    modules: dict[GraphName, nn.Module] = {"fusion": SentimentNetwork(config.network)}
    audio, text, video = config.audio_encoder, config.text_simulation, config.video_encoder
    for spec in (audio, text, video):
        if spec is not None and spec.kind != "embedded" and not skip_others:
            raise BundleError(
                f"expected embedded encoders, the bundle has kind {spec.kind!r} ({spec.source})"
            )
    if audio is not None and audio.kind == "embedded":
        modules["audio_encoder"] = VoiceEncoder(audio)
    if audio is not None and text is not None and text.kind == "embedded":
        modules["text_simulation"] = StudentTextSimulation(text, audio.dim)
    if video is not None and video.kind == "embedded":
        modules["video_encoder"] = FaceEncoder(video)
    return modules
