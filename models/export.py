"""Export: modules to a bundle's ONNX graphs, safetensors and config."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bundle import CALIBRATION, CARD, CONFIG, WEIGHTS, BundleError, digest
from models.calibration import Calibration
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.fusion import FusionNetwork
from models.graphs import FUSION_INPUTS, FUSION_OUTPUTS, SequenceGraph
from models.network import SentimentNetwork
from models.precision import lowered
from models.preprocessing import N_MELS
from models.quantisation import quantise_images
from models.spec import (
    MODALITIES,
    PROJECTIONS,
    BundleConfig,
    GraphName,
    ImageEncoderSpec,
    RecogniserSpec,
    SequenceEncoderSpec,
    TextEncoderSpec,
)
from models.text_simulation.student import StudentTextSimulation
from models.umca import ProjectedFrames

OPSET = 18


@dataclass(frozen=True, eq=False)
class Parts:
    """The modules of a bundle; None where the frames come from elsewhere."""

    network: SentimentNetwork
    audio_encoder: VoiceEncoder | None = None
    text_simulation: StudentTextSimulation | None = None
    video_encoder: FaceEncoder | None = None
    text_encoder: TextEncoderSpec | None = None
    audio_spec: SequenceEncoderSpec | None = None
    """Of an encoder that is not embedded: only PyTorch runs it, from its own source."""
    text_simulation_spec: SequenceEncoderSpec | None = None
    video_spec: ImageEncoderSpec | None = None
    recogniser: RecogniserSpec | None = None
    made_graphs: Mapping[GraphName, Path] = field(default_factory=dict)
    """ONNX graphs that were made before (recogniser, text encoder): files that are taken along
    under their own names. Two graphs may be one file."""

    quantised: Mapping[GraphName, Path] = field(default_factory=dict)
    """Graphs in 8 bits that were made before, for a CPU, in addition to those of the modules."""

    @property
    def modules(self) -> Mapping[GraphName, nn.Module]:
        """The modules that have weights of their own, by graph name."""
        found: dict[GraphName, nn.Module] = {}
        if self.audio_encoder is not None:
            found["audio_encoder"] = self.audio_encoder
        if self.text_simulation is not None:
            found["text_simulation"] = self.text_simulation
        if self.video_encoder is not None:
            found["video_encoder"] = self.video_encoder
        found["fusion"] = self.network
        return found


@dataclass(frozen=True)
class Label:
    """What a bundle is called and says of itself."""

    name: str
    version: str
    trained: bool
    licence: str
    window_ms: int = 4_000


class ProjectionGraph(nn.Module):
    """One modality's frames, each by itself: what the fusion graph takes and the engine keeps."""

    def __init__(self, network: SentimentNetwork, modality: int) -> None:
        super().__init__()
        self.projection = network.projections[modality]
        self.inputs = network.spec.frame_dims[modality]

    def forward(self, frames: Tensor) -> Tensor:
        """[N, D] frames to [N, 2 d + 1] projected ones."""
        return torch.cat(self.projection(frames), dim=-1)


class FusionGraph(nn.Module):
    """The network behind its projections, with the fusion graph's flat inputs and outputs."""

    def __init__(self, fusion: FusionNetwork) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(
        self,
        audio: Tensor,
        audio_mask: Tensor,
        text: Tensor,
        text_mask: Tensor,
        video: Tensor,
        video_mask: Tensor,
        text_simulated: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Valence, low and high [B], weights [B, 3], fused [B, F] of projected frames [B, T, .].

        A network without an uncertainty head gives its valence as both ends of the interval;
        the calibration then makes the whole interval.
        """
        d = self.fusion.spec.hidden_dim
        frames = [
            ProjectedFrames(*torch.split(packed, [d, d, 1], dim=-1))
            for packed in (audio, text, video)
        ]
        output = self.fusion(frames, (audio_mask, text_mask, video_mask), text_simulated)
        low = output.valence if output.low is None else output.low
        high = output.valence if output.high is None else output.high
        return (
            output.valence.flatten(),
            low.flatten(),
            high.flatten(),
            output.weights,
            output.fused,
        )


def graph_modules(modules: Mapping[GraphName, nn.Module]) -> dict[GraphName, nn.Module]:
    """What each graph of a bundle runs: the network, under ``fusion``, makes four of them."""
    graphs = dict(modules)
    network = graphs.pop("fusion")
    if not isinstance(network, SentimentNetwork):
        raise TypeError(f"fusion: expected a SentimentNetwork, got {type(network).__name__}")
    for modality, name in enumerate(PROJECTIONS):
        graphs[name] = ProjectionGraph(network, modality)
    graphs["fusion"] = FusionGraph(network.fusion)
    return graphs


def write_bundle(
    directory: Path,
    parts: Parts,
    label: Label,
    calibration: Calibration,
    card: str,
    half: bool = False,
    extra_files: Mapping[str, Path] | None = None,
    crops: NDArray[np.float32] | None = None,
) -> BundleConfig:
    """Write a bundle, whole or not at all.

    Args:
        directory: created; an existing bundle there is replaced.
        parts: modules; put into eval mode.
        label: name, version, terms.
        calibration: margins.
        card: text of README.md.
        half: float16 arithmetic inside the ONNX graphs; inputs and outputs stay float32.
        extra_files: other files to take along, by name in the bundle.
        crops: [N, C, S, S] inputs of the face encoder, to make its graph in 8 bits from.

    Raises:
        BundleError: the directory holds something that is not a bundle.
    """
    if directory.is_dir() and any(directory.iterdir()) and not (directory / CONFIG).is_file():
        raise BundleError(f"{directory}: expected no directory or a bundle's, it holds other files")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".bundle-") as scratch:
        work = Path(scratch) / "bundle"
        work.mkdir()
        graphs = _write_graphs(parts, work, half)
        quantised = _write_quantised(parts, work, graphs, crops)
        _write_weights(parts, work / WEIGHTS)
        (work / CALIBRATION).write_text(calibration.model_dump_json(indent=2) + "\n")
        (work / CARD).write_text(card)
        for file_name, source in (extra_files or {}).items():
            shutil.copyfile(source, work / file_name)
        config = _config(parts, label, half, work, graphs, quantised)
        (work / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")
        if directory.is_dir():
            shutil.rmtree(directory)
        work.replace(directory)
    return config


def _config(
    parts: Parts,
    label: Label,
    half: bool,
    work: Path,
    graphs: dict[GraphName, str],
    quantised: dict[GraphName, str],
) -> BundleConfig:
    """What config.json says of the files that are in ``work``, which it names with their sha256."""
    return BundleConfig(
        name=label.name,
        version=label.version,
        trained=label.trained,
        licence=label.licence,
        window_ms=label.window_ms,
        network=parts.network.spec,
        audio_encoder=parts.audio_encoder.spec if parts.audio_encoder else parts.audio_spec,
        text_simulation=(
            parts.text_simulation.spec if parts.text_simulation else parts.text_simulation_spec
        ),
        video_encoder=parts.video_encoder.spec if parts.video_encoder else parts.video_spec,
        text_encoder=parts.text_encoder,
        recogniser=parts.recogniser,
        precision="float16" if half else "float32",
        graphs=graphs,
        quantised=quantised,
        files={file.name: digest(file) for file in sorted(work.iterdir())},
    )


def _write_graphs(parts: Parts, work: Path, half: bool) -> dict[GraphName, str]:
    """Export the modules and copy the graphs that are made already; return the files' names."""
    graphs: dict[GraphName, str] = {}
    for name, module in graph_modules(parts.modules).items():
        graphs[name] = f"{name}.onnx"
        export_graph(name, module, work / graphs[name], half)
    for name, made in parts.made_graphs.items():
        graphs[name] = made.name
        shutil.copyfile(made, work / made.name)
    return graphs


def _write_quantised(
    parts: Parts,
    work: Path,
    graphs: Mapping[GraphName, str],
    crops: NDArray[np.float32] | None,
) -> dict[GraphName, str]:
    """Copy the 8-bit graphs that there are, and make the face encoder's; return their names."""
    quantised: dict[GraphName, str] = {}
    for name, made in parts.quantised.items():
        quantised[name] = f"{name}_int8.onnx"
        shutil.copyfile(made, work / quantised[name])
    if crops is not None and "video_encoder" in graphs:
        quantised["video_encoder"] = "video_encoder_int8.onnx"
        quantise_images(work / graphs["video_encoder"], work / quantised["video_encoder"], crops)
    return quantised


def export_graph(name: GraphName, module: nn.Module, path: Path, half: bool = False) -> None:
    """Export one module with dynamic batch and lengths, inputs and outputs in float32."""
    signature = _signature(module)
    with warnings.catch_warnings():
        # The exporter and its own dependencies warn of what it is about to do anyway.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            signature.inputs,
            dynamo=True,
            dynamic_shapes=signature.dynamic,
            input_names=list(signature.input_names),
            output_names=list(signature.output_names),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise BundleError(f"{name}: the exporter returned nothing")
    program.save(path, external_data=False)
    if half:
        path.write_bytes(lowered(path.read_bytes(), "fp16"))


@dataclass(frozen=True, eq=False)
class _Signature:
    """Example inputs of a graph, which of their axes vary, and the names on both sides."""

    inputs: tuple[Tensor, ...]
    dynamic: tuple[Any, ...]
    input_names: tuple[str, ...] = SequenceGraph.inputs
    output_names: tuple[str, ...] = SequenceGraph.outputs


def _signature(module: nn.Module) -> _Signature:
    batch = torch.export.Dim("batch", min=1)
    if isinstance(module, FusionGraph):
        return _fusion_signature(module.fusion.spec.projected_dim, batch)
    if isinstance(module, ProjectionGraph):
        return _Signature((torch.randn(2, module.inputs),), ({0: batch},))
    if isinstance(module, FaceEncoder):
        crop = module.spec
        crops = torch.randn(2, crop.channels_in, crop.size_px, crop.size_px)
        return _Signature((crops,), ({0: batch},))
    if isinstance(module, VoiceEncoder):
        features = N_MELS
    elif isinstance(module, StudentTextSimulation):
        features = module.input.in_channels
    else:
        raise TypeError(f"no graph is defined for {type(module).__name__}")
    spec = module.spec
    example = torch.randn(2, spec.left_context + 7 * spec.stride, features)
    return _Signature((example,), ({0: batch, 1: torch.export.Dim.DYNAMIC},))


def _fusion_signature(size: int, batch: Any) -> _Signature:
    inputs: list[Tensor] = []
    dynamic: list[Any] = []
    for count, modality in enumerate(MODALITIES, 5):
        frames = torch.export.Dim(f"{modality}_frames", min=1)
        inputs += [torch.randn(2, count, size), torch.ones(2, count, dtype=torch.bool)]
        dynamic += [{0: batch, 1: frames}] * 2
    inputs.append(torch.tensor([True, False]))
    dynamic.append({0: batch})
    return _Signature(tuple(inputs), tuple(dynamic), FUSION_INPUTS, FUSION_OUTPUTS)


def _write_weights(parts: Parts, path: Path) -> None:
    from safetensors.torch import save

    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, module in parts.modules.items()
        for key, value in module.state_dict().items()
    }
    path.write_bytes(save(tensors))  # save_file's own files can be read by nobody else
