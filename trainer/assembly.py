"""Assembly: a recipe's model out of its encoders, and the parts of its bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models import bundle as bundles
from models import low_rank
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.encoders.specs import student_spec, voice_spec
from models.export import Parts
from models.network import SentimentNetwork
from models.spec import (
    GraphName,
    NetworkSpec,
    RecogniserSpec,
)
from models.text_encoders import TunableTextEncoder
from models.text_simulation.student import StudentTextSimulation
from trainer.data.samples import FrameShapes
from trainer.data.statistics import Modality
from trainer.encoders import Encoders, face_spec_of
from trainer.features.extractors import Name
from trainer.features.recogniser import TOKENS
from trainer.features.speech import SpokenTextExtractor
from trainer.model import SentimentModel
from trainer.recipe import AssemblyError, EncoderChoice

ADAPTER = "text_adapter.safetensors"


class Assembly(Encoders):
    """What a recipe makes of its encoders: the model, its start, and what goes into the bundle."""

    @property
    def shapes(self) -> FrameShapes:
        """Shape of one stored frame per modality."""
        known = {extractor.name: extractor.shape for extractor in self.extractors}
        simulated = (student_spec().dim,) if self.simulates else (1,)
        text = known.get("text", known.get("simulated_text", simulated))
        return FrameShapes(known.get("audio", (1,)), text, known.get("video", (1,)))

    @property
    def simulates(self) -> bool:
        """Audio becomes simulated text."""
        names = {extractor.name for extractor in self.extractors}
        return "simulated_text" in names or (
            self.recipe.encoders.text_simulation.kind == "student" and "audio" in names
        )

    @property
    def hears_words(self) -> bool:
        """Simulated text is what a recogniser understood, of some clips nothing."""
        return any(isinstance(extractor, SpokenTextExtractor) for extractor in self.extractors)

    @property
    def standardised(self) -> dict[Modality, str]:
        """Stored frames by modality, of the modalities that are brought to one scale."""
        stored = {extractor.name for extractor in self.extractors}
        names: dict[Modality, tuple[Name, ...]] = {
            "audio": ("audio",),
            "text": ("text", "simulated_text"),
            "video": ("video",),
        }
        found: dict[Modality, str] = {}
        for modality, candidates in names.items():
            choice: EncoderChoice = getattr(self.recipe.encoders, modality)
            there = [name for name in candidates if name in stored]
            if choice.standardised and there:
                found[modality] = there[0]
        return found

    def model(self) -> SentimentModel:
        """A fresh model, in the state of torch's generator."""
        encoders, shapes = self.recipe.encoders, self.shapes
        names = {extractor.name for extractor in self.extractors}
        voice = face = student = text = None
        if encoders.audio.kind == "embedded" and "audio" in names:
            voice = VoiceEncoder(self.audio_spec or voice_spec())
            voice.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoders.video.kind == "embedded" and "video" in names:
            face = FaceEncoder(self.video_spec or face_spec_of(encoders.video))
            face.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoders.text.rank and self.text_spec is not None:
            text = TunableTextEncoder(self.text_spec, encoders.text.rank)
        audio_dim = self.audio_spec.dim if self.audio_spec else shapes.audio[0]
        text_dim = self.text_spec.dim if self.text_spec else shapes.text[0]
        if encoders.text_simulation.kind == "student" and "audio" in names:
            student = StudentTextSimulation(student_spec(dim=text_dim), audio_dim)
        video_dim = self.video_spec.dim if self.video_spec else shapes.video[0]
        spec_of_network = NetworkSpec(
            audio_dim=audio_dim,
            text_dim=text_dim,
            video_dim=video_dim,
            standardised=tuple(self.standardised),
            **self.recipe.network.model_dump(),
        )
        return SentimentModel(
            SentimentNetwork(spec_of_network),
            voice,
            face,
            student,
            text,
            self.recipe.augmentation,
            self.recipe.training.mixed_precision,
            self.recipe.loss,
        )

    def start(self, model: SentimentModel) -> None:
        """Give the embedded encoders the weights that the recipe has them start from.

        Raises:
            AssemblyError: no such weights, or of another network.
        """
        modules: dict[GraphName, nn.Module | None] = {
            "audio_encoder": model.audio_encoder,
            "video_encoder": model.video_encoder,
        }
        for name, module in modules.items():
            choice: EncoderChoice = getattr(self.recipe.encoders, name.removesuffix("_encoder"))
            if module is not None and choice.start is not None:
                _start(name, module, Path(choice.start))

    def parts(self, model: SentimentModel, scratch: Path) -> tuple[Parts, dict[str, Path]]:
        """What goes into the bundle, and the other files that go with it.

        Args:
            model: with the chosen weights.
            scratch: where such files may be written.
        """
        extra: dict[str, Path] = {}
        for module in (model, self.voice, self.student, self.face):
            if module is not None:
                module.cpu()
        text_spec = self.text_spec
        if model.text_encoder is not None and text_spec is not None:
            from safetensors.torch import save_file

            save_file(low_rank.updates(model.text_encoder.model), scratch / ADAPTER)
            text_spec = text_spec.model_copy(update={"adapter": ADAPTER})
            extra[ADAPTER] = scratch / ADAPTER
        elif self.adapter is not None:
            extra[ADAPTER] = self.adapter
        parts = Parts(
            network=model.network,
            audio_encoder=model.audio_encoder or self.voice,
            text_simulation=model.text_simulation or self.student,
            video_encoder=model.video_encoder or self.face,
            text_encoder=text_spec,
            audio_spec=self.audio_spec,
            text_simulation_spec=self.simulation_spec,
            video_spec=self.video_spec,
            recogniser=RecogniserSpec(tokens=TOKENS) if "recogniser_lower" in self.made else None,
            made_graphs=self.made,
            quantised=self.quantised,
        )
        return parts, extra | self.taken


def _start(name: GraphName, module: nn.Module, source: Path) -> None:
    """Load one encoder's weights out of a bundle, or out of its file of weights."""
    path = source / bundles.WEIGHTS if source.is_dir() else source
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AssemblyError(f"{path}: expected a bundle's weights: {error}") from None
    prefix = f"{name}."
    own = {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}
    expected = {key: list(value.shape) for key, value in module.state_dict().items()}
    for key, shape in expected.items():
        found = list(own[key].shape) if key in own else "none"
        if found != shape:
            raise AssemblyError(f"{path}: {name}.{key}: expected {shape}, got {found}")
    module.load_state_dict({key: own[key] for key in expected})
