"""Assembly: a recipe's extractors, its model, and the parts of its bundle."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models import bundle as bundles
from models import low_rank
from models.bundle import Bundle
from models.encoders.embedded import FaceEncoder, VoiceEncoder
from models.encoders.specs import face_spec, student_spec, voice_spec
from models.encoders.text import OnnxTextEncoder
from models.encoders.text_export import GRAPH, TOKENIZER, write_text_encoder
from models.encoders.transformers_speech import SpeechEncoder, speech_spec
from models.encoders.transformers_vision import VisionEncoder, vision_spec
from models.export import Parts
from models.modules import load_modules
from models.network import SentimentNetwork
from models.pretrained import load
from models.spec import (
    GraphName,
    ImageEncoderSpec,
    NetworkSpec,
    RecogniserSpec,
    SequenceEncoderSpec,
    TextEncoderSpec,
)
from models.text_encoders import TextEncoder, TunableTextEncoder
from models.text_simulation.llm import LlmSettings, LlmTextSimulation
from models.text_simulation.student import StudentTextSimulation
from trainer.corpus import SPLITS, Clip, Corpus, CorpusError
from trainer.data.samples import FrameShapes
from trainer.data.statistics import Modality
from trainer.features.extraction import existing_store
from trainer.features.extractors import Extractor, FeatureExtractor, Name, fits_half
from trainer.features.media import MediaReader
from trainer.features.pictures import CropExtractor, ImageFrameExtractor
from trainer.features.recogniser import TOKENS, Recogniser
from trainer.features.sound import (
    LlmExtractor,
    MelExtractor,
    MelSource,
    SpeechFrameExtractor,
    StudentExtractor,
    VoiceFrameExtractor,
)
from trainer.features.speech import Ear, SpokenTextExtractor, ToneExtractor
from trainer.features.store import FeatureError
from trainer.features.transcripts import TextFrameExtractor, TokenExtractor
from trainer.model import SentimentModel, weights_digest
from trainer.recipe import STAGE, EncoderChoice, Recipe

CPU = torch.device("cpu")
ADAPTER = "text_adapter.safetensors"
SEGMENTS_AT_ONCE = 8
"""Clips that a language model recognises together on a GPU; on a CPU that saves nothing."""


class AssemblyError(Exception):
    """A recipe whose parts cannot be put together; one line."""


@dataclass(eq=False)
class Assembly:
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
            face = FaceEncoder(self.video_spec or _face_spec(encoders.video))
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

    def _add_audio(self, choice: EncoderChoice) -> None:
        if choice.kind == "features":
            self.extractors.append(self._features("audio"))
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
            self.extractors.append(self._features("text"))
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
            self.extractors.append(self._features("video"))
            return
        if choice.kind == "embedded":
            self.video_spec = _face_spec(choice)
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
            self.extractors.append(self._features("simulated_text"))
        elif "audio" not in self.corpus.modalities:
            return
        elif choice.kind == "bundle":
            bundle = self._open(choice.source)
            if bundle.config.recogniser is not None:
                self._add_spoken(bundle.directory, bundle)
                return
            modules, config = load_modules(bundle), bundle.config
            voice, student = modules.get("audio_encoder"), modules.get("text_simulation")
            specs = (config.audio_encoder, config.text_simulation)
            if not isinstance(student, StudentTextSimulation) or voice is None:
                raise AssemblyError(f"{bundle.directory}: has no student text simulation")
            assert specs[0] is not None
            assert specs[1] is not None
            self.student, self.simulation_spec = student, specs[1]
            identity = f"student/{config.name}/{weights_digest(voice)}/{weights_digest(student)}"
            behind = VoiceFrameExtractor(self._mel, voice, specs[0], "behind it")
            for extractor in self.extractors:
                if isinstance(extractor, VoiceFrameExtractor) and self._is_of(extractor, voice):
                    behind = extractor  # its frames of the clip in hand are at hand
            self.extractors.append(StudentExtractor(behind, student, specs[1], identity))
        elif choice.kind == "recogniser":
            self._add_spoken(Path(str(choice.source)), None)
        elif choice.kind == "llm":
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
                f"{bundles.digest(settings.adapter)}"
            )
            simulation = LlmTextSimulation(settings, self.device)
            together = SEGMENTS_AT_ONCE if self.device.type == "cuda" else 1
            self.extractors.append(LlmExtractor(self._reader, simulation, identity, together))

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

    def _features(self, name: Name) -> FeatureExtractor:
        """The corpus's own features of a modality, as wide as its clips' are.

        Raises:
            FeatureError: it brings none, or of different widths.
        """
        having = [clip for clip in self.corpus.clips if clip.features(name) is not None]
        if not having:
            raise FeatureError(
                f"{self.corpus.name}: {name}: encoders.{name}.kind is 'features', but the "
                f"corpus brings none: expected 'embedded', 'bundle', 'transformers' or 'none'"
            )
        firsts = {(clip.corpus, clip.split): clip for clip in reversed(having)}
        widths: dict[int, str] = {}
        for (corpus, split), clip in firsts.items():
            rows = _rows(clip, name)
            if rows is not None:
                widths.setdefault(rows.shape[1], f"{corpus} ({split})")
        if len(widths) != 1:
            listed = ", ".join(f"{width} in {where}" for width, where in widths.items())
            raise FeatureError(
                f"{self.corpus.name}: {name}: expected features of one width, got "
                f"{listed or 'none that can be read'}"
            )
        sampled = (_rows(clip, name) for clip in having[:: max(1, len(having) // 32)])
        alike = [rows for rows in sampled if rows is not None and rows.shape[1] in widths]
        dtype = "float16" if alike and fits_half(alike) else "float32"
        return FeatureExtractor(name, next(iter(widths)), dtype)


def _face_spec(choice: EncoderChoice) -> ImageEncoderSpec:
    return face_spec() if choice.channels is None else face_spec(channels=choice.channels)


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


def _rows(clip: Clip, name: Name) -> NDArray[np.float32] | None:
    """A clip's own features, None where they cannot be read."""
    source = clip.features(name)
    try:
        return None if source is None else source.read()[0]
    except CorpusError:
        return None


def usable(corpus: Corpus, recipe: Recipe, only: Sequence[str] = ()) -> Corpus:
    """The corpus reduced to what a recipe can use.

    Args:
        corpus: one, or several merged.
        recipe: whose encoders say which modalities count.
        only: names of corpora to keep; all if empty.

    Raises:
        AssemblyError: no such corpus, or nothing is left.
    """
    names = tuple(dict.fromkeys(clip.corpus for clip in corpus.clips))
    missing = [name for name in only if name not in names]
    if missing:
        raise AssemblyError(
            f"recipe {recipe.name!r}: expected the corpora {', '.join(only)}, got "
            f"{', '.join(names)}: give --corpus for {', '.join(missing)}"
        )
    unknown = sorted(set(recipe.weights) - set(names))
    if unknown and not recipe.stages:
        raise AssemblyError(
            f"recipe {recipe.name!r}: weights: no corpus {', '.join(unknown)}, only "
            f"{', '.join(names)}"
        )
    used = set(recipe.encoders.used)
    if recipe.encoders.text_simulation.kind != "none":
        used.add("audio")
    clips = tuple(
        replace(clip, weight=clip.weight * recipe.weights.get(clip.corpus, 1.0))
        for clip in _fewer(map(partial(_withheld, recipe), corpus.clips), recipe)
        if (not only or clip.corpus in only) and used & set(clip.modalities)
    )
    if not clips:
        raise AssemblyError(
            f"{corpus.name}: no clip has any of {', '.join(sorted(used)) or 'nothing'}, which "
            f"recipe {recipe.name!r} uses"
        )
    return replace(corpus, clips=clips)


def _withheld(recipe: Recipe, clip: Clip) -> Clip:
    """The clip without its words, for those whose words the recipe does not use."""
    share = recipe.transcripts.get(clip.corpus, 1.0)
    if clip.transcript is None or _chance(clip, "words") < share:
        return clip
    return replace(clip, transcript=None)


def _fewer(clips: Iterable[Clip], recipe: Recipe) -> list[Clip]:
    """All clips but those that are more than the recipe wants of their corpus and split."""
    everything = list(clips)
    over: set[tuple[str, str]] = set()
    for corpus, most in recipe.clips.items():
        for split, count in zip(SPLITS, most, strict=True):
            own = [clip for clip in everything if (clip.corpus, clip.split) == (corpus, split)]
            own.sort(key=lambda clip: _chance(clip, "clips"))
            over.update((clip.corpus, clip.id) for clip in own[count:])
    return [clip for clip in everything if (clip.corpus, clip.id) not in over]


def _chance(clip: Clip, what: str) -> float:
    """A number in [0, 1) that is the clip's own, whatever other corpora it is trained with."""
    own = clip.id.removeprefix(f"{clip.corpus}/")
    return zlib.crc32(f"{what}/{own}".encode()) / 2**32


def _source(choice: EncoderChoice) -> str:
    assert choice.source is not None  # the recipe's own check
    return choice.source
