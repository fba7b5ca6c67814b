"""The bundle's ``llm`` text simulation, loaded where its extra and its models are."""

from __future__ import annotations

from engine.backends.protocol import BackendError
from engine.inference.text.spoken import ThreadedSimulator
from models.bundle import Bundle
from models.text_simulation.protocol import TextSimulation

ADAPTER = "adapter.safetensors"


def speech_simulator(bundle: Bundle, wait: bool) -> ThreadedSimulator | None:
    """Make the simulator of a bundle whose text simulation is a language model; else None.

    Args:
        bundle: names the language model (``text_simulation.source``), the speech encoder
            (``audio_encoder.source``), and holds the adapter between them.
        wait: see ``ThreadedSimulator``.

    Raises:
        BackendError: one of the three is not named or not there.
    """
    text, audio = bundle.config.text_simulation, bundle.config.audio_encoder
    if text is None or text.kind != "llm":
        return None
    if text.source is None:
        raise BackendError(f"{bundle.directory}: text_simulation.source: expected a model's name")
    if audio is None or audio.kind != "transformers" or audio.source is None:
        raise BackendError(
            f"{bundle.directory}: text simulation by a language model needs an audio encoder of "
            "kind transformers with a source"
        )
    adapter = bundle.directory / ADAPTER
    if not adapter.is_file():
        raise BackendError(f"{adapter}: the adapter to the language model is missing")
    speech, language_model = audio.source, text.source
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
