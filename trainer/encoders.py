"""Encoders: what a recipe says of them, looked up: extractors, frozen modules, ready graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from models import bundle as bundles
from models.bundle import Bundle
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.encoders.specs import face_spec, voice_spec
from models.encoders.text import OnnxTextEncoder
from models.encoders.text_export import GRAPH, TOKENIZER, write_text_encoder
from models.encoders.transformers_speech import SpeechEncoder, speech_spec
from models.encoders.transformers_vision import VisionEncoder, vision_spec
from models.modules import load_modules
from models.pretrained import load
from models.spec import (
    GraphName,
    ImageEncoderSpec,
    SequenceEncoderSpec,
    TextEncoderSpec,
)
from models.text_encoders import TextEncoder
from models.text_simulation.llm import LlmSettings, LlmTextSimulation
from models.text_simulation.student import StudentTextSimulation
from trainer.corpus import Corpus
from trainer.features.extraction import existing_store
from trainer.features.extractors import Extractor
from trainer.features.given import given_features
from trainer.features.media import MediaReader
from trainer.features.pictures import CropExtractor, ImageFrameExtractor
from trainer.features.recogniser import Recogniser
from trainer.features.sound import (
    LlmExtractor,
    MelExtractor,
    MelSource,
    SpeechFrameExtractor,
    StudentExtractor,
    VoiceFrameExtractor,
)
from trainer.features.speech import Ear, SpokenTextExtractor, ToneExtractor
from trainer.features.transcripts import TextFrameExtractor, TokenExtractor
from trainer.model import weights_digest
from trainer.recipe import STAGE, AssemblyError, EncoderChoice, Recipe, TextSimulationChoice

CPU = torch.device("cpu")
SEGMENTS_AT_ONCE = 8
"""Clips that a language model recognises together on a GPU; on a CPU that saves nothing."""


@dataclass(eq=False)
class Encoders:
    """Everything that a recipe says of encoders, looked up once.

    Args:
        recipe: resolved.
        corpus: read for the width of its own features.
        stages: bundle of each stage by name.
        features: root of the feature stores, where an earlier run may have left log-mel.
        reader: of recordings and pictures; None: as they are.
        device: where frozen encoders run.
    """

    recipe: Recipe
    corpus: Corpus
    stages: Mapping[str, Path]
    features: Path
    reader: MediaReader | None = None
    device: torch.device = CPU
    extractors: list[Extractor] = field(default_factory=list)
    audio_spec: SequenceEncoderSpec | None = None
    simulation_spec: SequenceEncoderSpec | None = None
    video_spec: ImageEncoderSpec | None = None
    text_spec: TextEncoderSpec | None = None
    voice: VoiceEncoder | None = None
    """Frozen modules out of other bundles, to go into this one."""
    student: StudentTextSimulation | None = None
    face: FaceEncoder | None = None
    quantised: dict[GraphName, Path] = field(default_factory=dict)
    """Graphs in 8 bits out of other bundles."""
    adapter: Path | None = None
    hears: Recogniser | None = None
    made: dict[GraphName, Path] = field(default_factory=dict)
    """Graphs that were made before, and other files, to go into the bundle."""
    taken: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reader = self.reader or MediaReader()
        self._ear = Ear(self._reader)
        self._opened: dict[str, Bundle] = {}
        mel = MelExtractor(self._reader)
        self._mel = MelSource(mel, existing_store(self.features, mel))
        encoders = self.recipe.encoders
        for modality, add in (
            ("audio", self._add_audio),
            ("text", self._add_text),
            ("video", self._add_video),
        ):
            choice: EncoderChoice = getattr(encoders, modality)
            if choice.kind != "none" and modality in self.corpus.modalities:
                add(choice)
        if encoders.audio.kind != "none" or encoders.text_simulation.kind == "features":
            self._add_simulation()
        if not self.extractors:
            raise AssemblyError(
                f"{self.corpus.name}: has {', '.join(self.corpus.modalities)}; the recipe "
                f"{self.recipe.name!r} uses {', '.join(encoders.used) or 'nothing'}"
            )

    def _add_audio(self, choice: EncoderChoice) -> None:
        if choice.kind == "features":
            self.extractors.append(given_features(self.corpus, "audio"))
            return
        if choice.kind == "embedded":
            self.audio_spec = voice_spec()
            self.extractors.append(MelExtractor(self._reader))
            return
        if choice.kind == "recogniser":
            self._add_tone(Path(_source(choice)))
            return
        if choice.kind == "transformers":
            self.audio_spec = spec = speech_spec(_source(choice), choice.layer)
            identity = f"speech/{spec.source}/{spec.layer}/1"
            encoder = SpeechEncoder(spec)
            self.extractors.append(
                SpeechFrameExtractor(self._reader, encoder, spec, identity, self.device)
            )
            return
        bundle = self._open(choice.source)
        if bundle.config.recogniser is not None:
            self._add_tone(bundle.directory)
            return
        module = load_modules(bundle, skip_others=True).get("audio_encoder")
        spec_there = bundle.config.audio_encoder
        if not isinstance(module, VoiceEncoder) or spec_there is None:
            raise AssemblyError(f"{bundle.directory}: has no voice encoder")
        self.audio_spec, self.voice = spec_there, module
        identity = f"voice/{bundle.config.name}/{weights_digest(module)}"
        self.extractors.append(VoiceFrameExtractor(self._mel, module, spec_there, identity))

    def _add_tone(self, folder: Path) -> None:
        """The tone of a voice, out of a recogniser's middle layers."""
        hears = self._recogniser(folder)
        self.audio_spec = hears.tone_spec
        self.made["audio_encoder"] = hears.graphs["recogniser_lower"]
        self.extractors.append(
            ToneExtractor(self._ear, hears.tone, hears.tone_spec, hears.identity)
        )

    def _add_text(self, choice: EncoderChoice) -> None:
        if choice.kind == "features":
            self.extractors.append(given_features(self.corpus, "text"))
            return
        if choice.kind == "transformers":
            source = _source(choice)
            dim = TextEncoder.width(source)
            (config,) = load(source, "AutoConfig")
            causal = any("CausalLM" in name for name in config.architectures or ())
            self.text_spec = spec = TextEncoderSpec(
                source=source,
                layer=choice.layer,
                dim=dim,
                model="causal" if causal else "encoder",
            )
            if choice.rank:
                (tokenizer,) = load(source, "AutoTokenizer")
                self.extractors.append(TokenExtractor(tokenizer, source))
                return
            encoder = TextEncoder(spec, self.device)
            identity = f"text/{source}/{choice.layer}/1"
        else:
            self.extractors.append(self._text_of(self._open(choice.source)))
            return
        self.extractors.append(TextFrameExtractor(encoder, spec.dim, identity))

    def _text_of(self, bundle: Bundle) -> TextFrameExtractor:
        """The text encoder of a bundle: its graph, where it has one or a recogniser needs one."""
        spec = bundle.config.text_encoder
        if spec is None:
            raise AssemblyError(f"{bundle.directory}: has no text encoder")
        self.text_spec = spec
        identity = f"text/{spec.source}/{spec.layer}/1"
        if spec.adapter is not None:
            self.adapter = bundle.directory / spec.adapter
            identity = f"tuned-text/{bundles.digest(self.adapter)}/{spec.source}/{spec.layer}"
        has_graph = spec.tokenizer is not None and "text_encoder" in bundle.config.graphs
        if has_graph or self.recipe.encoders.text_simulation.kind == "recogniser":
            return self._graph_of_text(bundle, spec, identity)
        encoder = TextEncoder(spec, self.device, bundle.directory)
        return TextFrameExtractor(encoder, spec.dim, identity)

    def _graph_of_text(
        self, bundle: Bundle, spec: TextEncoderSpec, identity: str
    ) -> TextFrameExtractor:
        """Read transcripts as the engine does: by an 8-bit graph, made here where there is none."""
        if spec.tokenizer is not None and "text_encoder" in bundle.config.graphs:
            graph, tokenizer = bundle.path("text_encoder"), bundle.directory / spec.tokenizer
        else:
            folder = (
                self.features / f"text-encoder-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
            )
            graph, tokenizer = folder / GRAPH, folder / TOKENIZER
            if not tokenizer.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                write_text_encoder(TextEncoder(spec, folder=bundle.directory), folder)
        self.adapter = None
        self.text_spec = spec.model_copy(update={"tokenizer": TOKENIZER, "adapter": None})
        self.made["text_encoder"] = graph
        self.taken[TOKENIZER] = tokenizer
        encoder = OnnxTextEncoder(graph, tokenizer, spec.dim, spec.max_tokens)
        return TextFrameExtractor(encoder, spec.dim, f"text-graph/{bundles.digest(graph)}")

    def _add_video(self, choice: EncoderChoice) -> None:
        if choice.kind == "features":
            self.extractors.append(given_features(self.corpus, "video"))
            return
        if choice.kind == "embedded":
            self.video_spec = face_spec_of(choice)
            self.extractors.append(CropExtractor(self._reader, self.video_spec))
            return
        if choice.kind == "transformers":
            layer = None if choice.layer == -1 else choice.layer
            self.video_spec = spec = vision_spec(_source(choice), layer)
            encoder: nn.Module = VisionEncoder(spec)
            identity = f"vision/{spec.source}/{spec.layer}/1"
        else:
            bundle = self._open(choice.source)
            module = load_modules(bundle, skip_others=True).get("video_encoder")
            spec_there = bundle.config.video_encoder
            if not isinstance(module, FaceEncoder) or spec_there is None:
                raise AssemblyError(f"{bundle.directory}: has no face encoder")
            self.video_spec = spec = spec_there
            self.face, encoder = module, module
            if "video_encoder" in bundle.config.quantised:
                self.quantised["video_encoder"] = bundle.cpu_path("video_encoder")
            identity = f"face/{bundle.config.name}/{weights_digest(module)}"
        crops = CropExtractor(self._reader, spec)
        self.extractors.append(ImageFrameExtractor(crops, encoder, spec.dim, identity, self.device))

    def _add_simulation(self) -> None:
        choice = self.recipe.encoders.text_simulation
        if choice.kind == "features":
            self.extractors.append(given_features(self.corpus, "simulated_text"))
        elif "audio" not in self.corpus.modalities:
            return
        elif choice.kind == "bundle":
            bundle = self._open(choice.source)
            if bundle.config.recogniser is not None:
                self._add_spoken(bundle.directory, bundle)
            else:
                self._add_student(bundle)
        elif choice.kind == "recogniser":
            self._add_spoken(Path(str(choice.source)), None)
        elif choice.kind == "llm":
            self._add_llm(choice)

    def _add_student(self, bundle: Bundle) -> None:
        """Text that a bundle's student network makes of its voice network's frames."""
        modules, config = load_modules(bundle), bundle.config
        voice, student = modules.get("audio_encoder"), modules.get("text_simulation")
        if not isinstance(student, StudentTextSimulation) or voice is None:
            raise AssemblyError(f"{bundle.directory}: has no student text simulation")
        assert config.audio_encoder is not None
        assert config.text_simulation is not None
        self.student, self.simulation_spec = student, config.text_simulation
        identity = f"student/{config.name}/{weights_digest(voice)}/{weights_digest(student)}"
        behind = VoiceFrameExtractor(self._mel, voice, config.audio_encoder, "behind it")
        for extractor in self.extractors:
            if isinstance(extractor, VoiceFrameExtractor) and self._is_of(extractor, voice):
                behind = extractor  # its frames of the clip in hand are at hand
        self.extractors.append(StudentExtractor(behind, student, config.text_simulation, identity))

    def _add_llm(self, choice: TextSimulationChoice) -> None:
        """Text that a language model makes of speech, through a trained adapter."""
        settings = LlmSettings(
            speech=str(choice.speech),
            language_model=str(choice.source),
            adapter=None if choice.adapter is None else Path(choice.adapter),
            layer=choice.layer,
        )
        if settings.adapter is None:
            raise AssemblyError(
                "encoders.text_simulation.adapter: expected the adapter's weights (.pt or "
                ".safetensors); without them the language model hears noise"
            )
        identity = (
            f"llm/{settings.speech}/{settings.language_model}/{settings.layer}/"
            f"{settings.tokens_per_s:g}/"
            f"{bundles.digest(settings.adapter)}"
        )
        simulation = LlmTextSimulation(settings, self.device)
        together = SEGMENTS_AT_ONCE if self.device.type == "cuda" else 1
        self.extractors.append(LlmExtractor(self._reader, simulation, identity, together))
        self.simulation_spec = SequenceEncoderSpec(
            kind="llm",
            input="samples",
            dim=simulation.dim,
            stride=settings.concatenate,
            left_context=0,
            causal=False,
            source=settings.language_model,
            layer=settings.layer,
        )
        # The live side finds both where it looks for them: in the bundle.
        self.taken |= simulation.files(self.features)

    def _add_spoken(self, folder: Path, bundle: Bundle | None) -> None:
        """Words that a recogniser hears, read by the corpus's text encoder or the bundle's."""
        hears = self._recogniser(folder)
        texts = [one for one in self.extractors if isinstance(one, TextFrameExtractor)]
        if not texts and bundle is not None:
            texts = [self._text_of(bundle)]  # no clip has a transcript: it reads spoken words only
        if not texts:
            raise AssemblyError(
                "encoders.text_simulation: a recogniser's words need a text encoder out of a "
                "bundle, frozen, and clips with transcripts: set encoders.text, or take the "
                "words from a bundle, too"
            )
        (text,) = texts
        self.made |= hears.graphs
        self.taken |= hears.files
        self.extractors.append(
            SpokenTextExtractor(
                self._ear,
                hears.write,
                text.read,
                text.shape[0],
                f"spoken/{hears.identity}/{text.identity}",
                frozenset(self.recipe.transcripts),
            )
        )

    def _recogniser(self, folder: Path) -> Recogniser:
        if self.hears is None:
            self.hears = Recogniser.open(folder)
        elif self.hears.folder != folder:
            raise AssemblyError(f"two recognisers: {self.hears.folder} and {folder}: expected one")
        return self.hears

    @staticmethod
    def _is_of(extractor: VoiceFrameExtractor, voice: nn.Module) -> bool:
        """Whether an extractor's encoder has the weights of ``voice``."""
        return extractor.identity.endswith(weights_digest(voice))

    def _open(self, source: str | None) -> Bundle:
        name = str(source)
        if name not in self._opened:
            path: str | Path = name
            if name.startswith(STAGE):
                stage = name.removeprefix(STAGE)
                if stage not in self.stages:
                    known = ", ".join(self.stages) or "none"
                    raise AssemblyError(
                        f"{name!r}: expected a trained stage ({known}); this recipe is a stage "
                        "of another one: train that, or set the encoder's source to a bundle"
                    )
                path = self.stages[stage]
            self._opened[name] = bundles.open(path)
        return self._opened[name]


def face_spec_of(choice: EncoderChoice) -> ImageEncoderSpec:
    """Of the embedded face network, as wide as the recipe has it."""
    return face_spec() if choice.channels is None else face_spec(channels=choice.channels)


def _source(choice: EncoderChoice) -> str:
    assert choice.source is not None  # the recipe's own check
    return choice.source
