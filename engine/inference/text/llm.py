"""The bundle's ``llm`` text simulation, loaded where its extra and its models are."""

from __future__ import annotations

from engine.backends.protocol import BackendError
from engine.inference.text.spoken import ThreadedSimulator
from models.bundle import Bundle
from models.text_simulation.protocol import TextSimulation

ADAPTER = "adapter.safetensors"
HEARING = ("recogniser_lower", "recogniser_upper")
"""Graphs of a recogniser's encoder, which may hear for the language model."""


def speech_simulator(bundle: Bundle, wait: bool) -> ThreadedSimulator | None:
    """Make the simulator of a bundle whose text simulation is a language model; else None.

    Args:
        bundle: names the language model (``text_simulation.source``), the speech encoder
            (``audio_encoder.source``) unless it has a recogniser's, and holds the adapter.
        wait: see ``ThreadedSimulator``.

    Raises:
        BackendError: one of the three is not named or not there.
    """
    text, audio = bundle.config.text_simulation, bundle.config.audio_encoder
    if text is None or text.kind != "llm":
        return None
    if text.source is None:
        raise BackendError(f"{bundle.directory}: text_simulation.source: expected a model's name")
    own = all((bundle.directory / f"{name}.onnx").is_file() for name in HEARING)
    named = audio is not None and audio.kind == "transformers" and audio.source is not None
    if not (own or named):
        raise BackendError(
            f"{bundle.directory}: text simulation by a language model needs an audio encoder of "
            f"kind transformers with a source, or the graphs {' and '.join(HEARING)}"
        )
    adapter = bundle.directory / ADAPTER
    if not adapter.is_file():
        raise BackendError(f"{adapter}: the adapter to the language model is missing")
    speech = str(bundle.directory) if own or audio is None else str(audio.source)
    language_model = text.source
    layer = -4 if text.layer is None else text.layer
    dim = text.dim

    def load() -> TextSimulation:
        from models.text_simulation.llm import LlmSettings, LlmTextSimulation

        simulation = LlmTextSimulation(
            LlmSettings(speech, language_model, adapter=adapter, layer=layer)
        )
        if simulation.dim != dim:
            raise BackendError(f"{language_model}: width: expected {dim}, got {simulation.dim}")
        return simulation

    return ThreadedSimulator(load, wait)
