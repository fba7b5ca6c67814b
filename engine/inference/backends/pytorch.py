"""PyTorch: runs a bundle's modules from its safetensors, on the CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.inference.backends.protocol import BackendError, Inputs, Outputs
from engine.inference.backends.warm import warm_up
from models.bundle import Bundle
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.export import FUSION_INPUTS, FUSION_OUTPUTS, FusionGraph
from models.network import SentimentNetwork
from models.spec import BundleConfig
from models.text_simulation.student import StudentTextSimulation


class PytorchBackend:
    """The modules of a bundle in eager mode.

    Args:
        bundle: an opened bundle with its weights.
        device: a torch device; None takes ``cuda:0`` where there is one.
        threads: intra-op threads of this process; 0 leaves torch's choice.

    Raises:
        BackendError: an encoder of a kind that is not built in, or weights that do not fit.
    """

    name = "pytorch"
    precision = "float32"

    def __init__(self, bundle: Bundle, device: str | None = None, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        self._device = torch.device(self.device)
        self._bundle = bundle
        if not bundle.weights_path.is_file():
            raise BackendError(f"{bundle.directory}: no {bundle.weights_path.name}")
        weights = load_file(bundle.weights_path)
        self._modules: dict[str, nn.Module] = {}
        for graph, module in _build(bundle.config).items():
            prefix = f"{graph}."
            own = {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
            try:
                module.load_state_dict(own)
            except RuntimeError as error:
                raise BackendError(f"{bundle.weights_path}: {graph}: {error}") from None
            if isinstance(module, SentimentNetwork):
                module = FusionGraph(module)
            self._modules[graph] = module.eval().to(self._device)

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        return frozenset(self._modules)

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph; see ``protocol.Backend``."""
        module = self._modules.get(graph)
        if module is None:
            raise BackendError(f"the bundle has no module {graph!r}, only {sorted(self._modules)}")
        names = FUSION_INPUTS if graph == "fusion" else ("input",)
        with torch.inference_mode():
            tensors = [
                torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device)
                for name in names
            ]
            values = module(*tensors)
        if isinstance(values, Tensor):
            return {"frames": values.cpu().numpy()}
        return {
            name: value.cpu().numpy() for name, value in zip(FUSION_OUTPUTS, values, strict=True)
        }

    def warm_up(self) -> None:
        """Run every module once at its smallest and its usual sizes."""
        warm_up(self, self._bundle.config)


def _build(config: BundleConfig) -> dict[str, nn.Module]:
    """Build the modules that ``config`` names, with weights yet to come."""
    modules: dict[str, nn.Module] = {"fusion": SentimentNetwork(config.network)}
    specs = (config.audio_encoder, config.text_simulation, config.video_encoder)
    for spec in specs:
        if spec is not None and spec.kind != "embedded":
            raise BackendError(
                f"the pytorch backend runs embedded encoders; the bundle has kind {spec.kind!r} "
                f"({spec.source})"
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
