"""PyTorch: runs a bundle's modules, eager in float32 on a CPU, compiled in bfloat16 on a GPU."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from engine.backends.protocol import BackendError, Inputs, Outputs
from engine.backends.warm import warm_up
from models.bundle import Bundle, BundleError
from models.export import graph_modules
from models.graphs import FUSION_INPUTS, FUSION_OUTPUTS, RowGraph
from models.modules import load_modules
from models.pretrained import PretrainedError
from models.spec import BundleConfig

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]


class PytorchBackend:
    """The modules of a bundle.

    Args:
        bundle: an opened bundle with its weights.
        device: a torch device; None takes ``cuda:0`` where there is one.
        threads: intra-op threads of this process; 0 leaves torch's choice.
        precision: of products and convolutions (autocast keeps the rest in float32); None takes
            bfloat16 on a GPU.
        compiler: a backend of ``torch.compile``, ``none`` for eager mode; None takes ``inductor``
            on a GPU.

    Raises:
        BackendError: an encoder that is unavailable, or weights that do not fit.
    """

    name = "pytorch"
    at_once = 1

    def __init__(
        self,
        bundle: Bundle,
        device: str | None = None,
        threads: int = 0,
        precision: Precision | None = None,
        compiler: str | None = None,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        self._device = torch.device(self.device)
        on_gpu = self._device.type == "cuda"
        self.precision: str = precision or ("bfloat16" if on_gpu else "float32")
        self._compiler = compiler or ("inductor" if on_gpu else "none")
        self._bundle = bundle
        try:
            modules = load_modules(bundle, skip_others=True)
        except BundleError as error:
            raise BackendError(str(error)) from None
        self._modules = {str(graph): module for graph, module in graph_modules(modules).items()}
        for module in self._modules.values():
            module.eval().to(self._device)
        self._runs: dict[str, Any] = {**self._modules}
        if self._compiler != "none":
            self._runs |= {
                graph: torch.compile(module, backend=self._compiler, dynamic=True, fullgraph=True)
                for graph, module in self._modules.items()
            }
        # Models of other people are run as they are: what they hold may not compile in one piece.
        for graph, encoder in _pretrained(bundle.config).items():
            self._modules[graph] = self._runs[graph] = encoder.eval().to(self._device)

    @property
    def graphs(self) -> frozenset[str]:
        """Names of the graphs that can be run."""
        return frozenset(self._modules)

    def run(self, graph: str, inputs: Inputs) -> Outputs:
        """Run a graph; see ``protocol.Backend``."""
        module = self._runs.get(graph)
        if module is None:
            raise BackendError(f"the bundle has no module {graph!r}, only {sorted(self._modules)}")
        names = FUSION_INPUTS if graph == "fusion" else RowGraph.inputs
        with torch.inference_mode(), self._autocast():
            tensors = [
                torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device)
                for name in names
            ]
            values = module(*tensors)
        if isinstance(values, Tensor):
            return {RowGraph.outputs[0]: values.float().cpu().numpy()}
        return {
            name: value.float().cpu().numpy()
            for name, value in zip(FUSION_OUTPUTS, values, strict=True)
        }

    def parameters(self, graph: str) -> int:
        """Number of parameters of a module."""
        return sum(parameter.numel() for parameter in self._modules[graph].parameters())

    def warm_up(self) -> None:
        """Run every module once at its smallest and its usual sizes; compile them where asked to.

        Where that fails (no compiler on this machine, for one), the modules run eager.
        """
        try:
            warm_up(self, self._bundle.config)
        except Exception as error:  # a compiler's errors have no common base
            if self._compiler == "none":
                raise
            log.warning("not compiled, running eager: %s", str(error).strip().partition("\n")[0])
            self._compiler, self._runs = "none", {**self._modules}
            warm_up(self, self._bundle.config)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)


def _pretrained(config: BundleConfig) -> dict[str, nn.Module]:
    """Load the encoders that the bundle only names; a language model is not run here."""
    modules: dict[str, nn.Module] = {}
    audio, video = config.audio_encoder, config.video_encoder
    try:
        if audio is not None and audio.kind == "transformers":
            from models.encoders.transformers_speech import SpeechEncoder

            modules["audio_encoder"] = SpeechEncoder(audio)
        if video is not None and video.kind == "transformers":
            from models.encoders.transformers_vision import VisionEncoder

            modules["video_encoder"] = VisionEncoder(video)
    except PretrainedError as error:
        raise BackendError(str(error)) from None
    return modules
