"""Recipes: one validated TOML file says everything about a training run.

Precedence: defaults < recipe file < flags (``--set training.epochs=3``). The resolved recipe is
saved with the run, so that a run can be repeated from its folder alone.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from models.spec import MODALITIES
from trainer.corpus import Corpus

BUILT_IN = Path(__file__).parent / "recipes"
STAGE = "stage:"
PACKAGED = "default"
"""The bundle that comes with the product."""


class AssemblyError(Exception):
    """A recipe whose parts cannot be put together; one line."""


class RecipeError(Exception):
    """A recipe that cannot be used; one line per fault."""


def _is_unset(value: object) -> bool:
    """Settings that came later are written only where they are set: older runs stay the same."""
    return not value


def _is_one(value: object) -> bool:
    """The same, where 1 is what older runs had."""
    return value == 1


class Section(BaseModel):
    """One frozen table of the recipe that refuses unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class EncoderChoice(Section):
    """Encoder of one modality.

    ``features`` takes the corpus's own features as frames; ``embedded`` trains the product's
    small network with the rest; ``transformers`` runs the pretrained model ``source``, frozen,
    or for text tuned by low-rank updates of ``rank``; ``bundle`` takes the frozen encoder out of
    the bundle ``source``, or out of an earlier stage (``stage:NAME``); ``none`` leaves the
    modality out; ``recogniser`` takes the tone of a voice from the middle layers of the recogniser
    in the folder ``source`` (``import-recogniser``). What is frozen runs once and its frames are
    stored.
    """

    kind: Literal["none", "features", "embedded", "transformers", "bundle", "recogniser"] = (
        "features"
    )
    source: str | None = None
    layer: int = -1
    rank: int = Field(0, ge=0)
    standardise: bool | None = None
    """Bring each column of the frames to one scale, by the training split; None: the corpus's
    own features only, whose columns are in units of their own."""
    channels: int | None = Field(None, gt=0, exclude_if=_is_unset)
    """Width of an embedded face network's first layer; None: the usual one."""
    start: str | None = Field(None, exclude_if=_is_unset)
    """Weights that an embedded encoder starts from: a bundle, or its file of weights; None: it
    starts from chance. That it fits is seen when training begins."""

    @property
    def standardised(self) -> bool:
        """Whether the frames' columns are brought to one scale."""
        return self.kind == "features" if self.standardise is None else self.standardise

    @model_validator(mode="after")
    def _source_where_needed(self) -> EncoderChoice:
        if (self.kind in ("transformers", "bundle", "recogniser")) != (self.source is not None):
            raise ValueError(
                "source goes with kind = 'transformers' (a model's name or path), 'bundle' or "
                "'recogniser'"
            )
        if self.standardise and self.kind in ("none", "embedded"):
            raise ValueError("standardise goes with frames that are stored, not 'embedded'")
        if self.rank and self.kind != "transformers":
            raise ValueError("rank goes with kind = 'transformers'")
        if (self.channels or self.start) and self.kind != "embedded":
            raise ValueError("channels and start go with kind = 'embedded'")
        return self


class TextSimulationChoice(Section):
    """How text is simulated from the voice.

    ``student`` trains the small network along; ``bundle`` takes a trained one; ``features`` takes
    states that the corpus brings; ``llm`` has the language model ``source`` recognise what the
    speech model ``speech`` hears, through an ``adapter`` (the paper's way); ``recogniser`` has the
    recogniser in the folder ``source`` write down what is said, and the text encoder read it.
    """

    kind: Literal["none", "student", "bundle", "features", "llm", "recogniser"] = "none"
    source: str | None = None
    speech: str | None = None
    adapter: str | None = None
    layer: int = -4

    @model_validator(mode="after")
    def _source_where_needed(self) -> TextSimulationChoice:
        if (self.kind in ("llm", "bundle", "recogniser")) != (self.source is not None):
            raise ValueError(
                "source goes with kind = 'llm' (a language model), 'bundle' or 'recogniser'"
            )
        if (self.kind == "llm") != (self.speech is not None):
            raise ValueError("speech (a speech model) goes with kind = 'llm'")
        return self


class Encoders(Section):
    """Encoders per modality, and how text is simulated where there is no transcript."""

    audio: EncoderChoice = EncoderChoice()
    text: EncoderChoice = EncoderChoice()
    video: EncoderChoice = EncoderChoice()
    text_simulation: TextSimulationChoice = TextSimulationChoice()

    @model_validator(mode="after")
    def _fits(self) -> Encoders:
        if self.audio.kind == "none" and self.text_simulation.kind not in ("none", "features"):
            raise ValueError("text_simulation: text is simulated from audio, whose kind is 'none'")
        if self.text.kind in ("embedded", "recogniser"):
            raise ValueError("text.kind: expected 'features', 'transformers' or 'bundle'")
        if self.video.kind == "recogniser":
            raise ValueError("video.kind: a recogniser hears only")
        if self.text_simulation.kind == "recogniser" and self.text.kind != "bundle":
            raise ValueError("text_simulation: a recogniser's words need text.kind = 'bundle'")
        if self.audio.channels:
            raise ValueError("channels: only the face network comes in several widths")
        if self.audio.rank or self.video.rank:
            raise ValueError("rank: only a text encoder can be tuned")
        if self.text_simulation.kind == "student" and self.audio.kind not in ("embedded", "bundle"):
            raise ValueError("text_simulation: a student goes with an embedded voice encoder")
        if self.text_simulation.kind == "student" and self.text.rank:
            raise ValueError("text_simulation: a student needs a text encoder that stands still")
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The modalities that have an encoder."""
        return tuple(m for m in MODALITIES if getattr(self, m).kind != "none")


class Stage(Section):
    """A recipe that is trained first, and whose encoders later ones take as ``stage:NAME``."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    recipe: str
    corpora: tuple[str, ...] = ()
    """Only these corpora, by name; all if empty."""


class Pairing(Section):
    """Clips made by pairing one clip's voice with another's face, and a third's words.

    For corpora that have either but not both; the pair's label is the mean. Within a split
    only, and said so in the report.
    """

    share: float = Field(0.0, ge=0)
    """Pairs per clip with a voice."""
    tolerance: float = Field(0.3, gt=0)
    """Largest difference of the labels of the voice and the face."""
    words_tolerance: float | None = None
    """Largest difference of the voice's label and that of words somebody else said; None: none
    are added. A wide one has the network weigh what does not quite agree."""
    words_weight: float = Field(1.0, gt=0, exclude_if=_is_one)
    """How many times as much those words count in the label as the voice or the face: of people
    who talk, most of what others rate is what they say."""


class Network(Section):
    """Options of the network; its input sizes come from the encoders."""

    hidden_dim: int = Field(256, gt=0)
    fused_dim: int = Field(128, gt=0)
    rnc_dim: int = Field(64, gt=0)
    weights: Literal["raw", "normalised"] = "normalised"
    fusion: Literal["umca", "concat"] = "umca"
    """Unified cross-attention, or the utterance vectors side by side (an ablation)."""
    mia: Literal["off", "text", "any"] = "any"
    mia_residual: Literal["text", "transition"] = "transition"
    bounded: bool = True
    quantiles: tuple[float, float] | None = (0.05, 0.95)
    """Of the uncertainty head; "off": none, the interval is the calibration's alone."""
    dropout: float = Field(0.3, ge=0, lt=1)
    input_dropout: float = Field(0.5, ge=0, lt=1)

    @field_validator("quantiles", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """TOML has no null."""
        return None if value in ("off", "none", False) else value


class Loss(Section):
    """Weights of the loss terms (facts: paper, Training)."""

    complete: float = Field(0.5, ge=0)
    missing: float = Field(0.5, ge=0)
    text_query: float = Field(0.1, ge=0)
    text_cross: float = Field(0.7, ge=0)
    fused: float = Field(0.13, ge=0)
    rnc: float = Field(0.5, ge=0)
    quantile: float = Field(0.25, ge=0)
    rnc_temperature: float = Field(2.0, gt=0)
    student: float = Field(1.0, ge=0)
    """Distillation of the student text simulation to the text encoder's states."""
    emotion: float = Field(0.0, ge=0)
    """Naming the emotions of the corpora that name them: a richer teacher than one number."""
    encoder: float = Field(0.0, ge=0)
    """Valence and emotions from an embedded encoder's frames alone: a short way to its weights."""


class Optimiser(Section):
    """Adam and its schedule: linear warm-up, then a step decay, or half a cosine down to 0."""

    schedule: Literal["step", "cosine"] = "step"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-5, ge=0)
    warmup_epochs: int = Field(5, ge=0)
    decay: float = Field(0.9, gt=0, le=1)
    decay_every_epochs: int = Field(10, gt=0)
    clip_norm: float = Field(1.0, gt=0)
    average: float = Field(0.0, ge=0, lt=1, exclude_if=_is_unset)
    """What is validated and kept is a running mean of the weights, which keeps this share of
    itself at each step; 0: the weights as they are."""


class Augmentation(Section):
    """What is hidden from the network during training."""

    frame_drop: float = Field(0.2, ge=0, lt=1)
    """Probability with which each audio and video frame is dropped."""
    one_draw: bool = True
    """Both flows share one draw of the dropout on audio and video frames, which are then projected
    once instead of twice. Off: a draw per flow, as published."""
    modality_dropout: float = Field(0.3, ge=0, lt=1)
    """Probability of training a sample on a random non-empty subset of what it has."""
    sub_window: float = Field(0.5, ge=0, le=1)
    """Probability of training a sample on a random stretch of the live window's length."""
    shortest_window: float = Field(1.0, gt=0, le=1)
    """Shortest such stretch, as a share of the window: a live one is not full of speech."""
    text_span_s: float = Field(0.0, ge=0)
    """The words of such a stretch reach so far back, where that is more than the stretch."""
    audio_frames: int = Field(0, ge=0)
    """Most voice frames of a sample, drawn by chance: neighbours say nearly the same. 0: all."""
    sound: float = Field(0.0, ge=0, le=1)
    """Probability of another room, noise, microphone and level each (embedded voice encoder)."""
    speaker: float = Field(0.0, ge=0, le=1)
    """Probability of another vocal tract and tempo, and of hidden stretches (the same)."""
    picture: float = Field(0.0, ge=0, le=1)
    """Probability of another cut, rotation, light, blur (embedded face encoder)."""


class Training(Section):
    """The loop."""

    threads: int = Field(0, ge=0)
    """Of the CPU for arithmetic; 0: half of the cores that the process may use, at least one."""
    workers: int = Field(0, ge=0)
    """Processes that read and pad batches; 0: a thread does."""
    checkpoint_minutes: float = Field(10.0, gt=0)
    """A checkpoint within an epoch, too, this often; SIGTERM makes one at once."""

    batch: int = Field(128, ge=1)
    epochs: int = Field(25, ge=1)
    patience: int = Field(8, ge=1)
    """Epochs without a better validation score before a run stops."""
    seeds: int = Field(1, ge=1)
    device: str = "auto"
    tracking: Literal["none", "mlflow", "wandb"] = "none"
    """Epochs go there, too, through its own library."""
    robustness: bool = True
    """Measure the error over rates of lost frames, too: twenty more passes over the test split."""
    mixed_precision: bool = True
    """bfloat16 autocast: everything on a GPU, the encoders on a CPU that computes in it."""

    @model_validator(mode="before")
    @classmethod
    def _without_compile(cls, given: Any) -> Any:
        """Recipes of finished runs name ``compile``, which never did anything."""
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if key != "compile"}
        return given


class Recipe(Section):
    """The whole recipe."""

    name: str = "custom"
    licence: str = "research only: inherits the terms of its corpora"
    window_ms: int = Field(4_000, gt=0)
    stages: tuple[Stage, ...] = ()
    weights: dict[str, float] = {}
    """How often an epoch sees a clip of a corpus, by the corpus's name; 1 where unnamed."""
    clips: dict[str, tuple[int, int, int]] = {}
    """Most clips of a corpus's train, valid and test, by the corpus's name; drawn by chance."""
    transcripts: dict[str, float] = {}
    """Share of a corpus's clips whose words are used; all where unnamed. What actors say is neutral
    whatever they feel: from all of it the network would learn that words mean nothing. No text is
    simulated for these corpora, they are a few sentences said by everybody: it is the real one."""
    balance: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({}, exclude_if=_is_unset)
    """Corpora, and ``pairs``, of which an epoch sees good and bad moods so often that the labels
    are 0 on average, at 1, or so far on the way: what tells little is drawn towards the mean of
    what was trained on."""
    stretch: dict[str, Annotated[float, Field(ge=1, le=6)]] = {}
    """By pattern of modalities: how many times as wide live intervals are as the validation split
    asks for, because another camera is another world; measured by leaving a corpus out."""
    pairing: Pairing = Pairing()
    encoders: Encoders = Encoders()
    network: Network = Network()
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()

    @model_validator(mode="after")
    def _stages_exist(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        choices = (
            self.encoders.audio,
            self.encoders.text,
            self.encoders.video,
            self.encoders.text_simulation,
        )
        for choice in choices:
            source = choice.source or ""
            known = not source.startswith(STAGE) or source.removeprefix(STAGE) in names
            if self.stages and not known:
                raise ValueError(f"source {source!r}: expected one of the stages {names}")
        if any(weight < 0 for weight in self.weights.values()):
            raise ValueError("weights: expected numbers of at least 0")
        if any(count < 0 for counts in self.clips.values() for count in counts):
            raise ValueError("clips: expected numbers of at least 0")
        if any(not 0 <= share <= 1 for share in self.transcripts.values()):
            raise ValueError("transcripts: expected shares from 0 to 1")
        return self

    def save(self, path: Path) -> None:
        """Write the resolved recipe as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n")


def load(recipe: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by built-in name, TOML path, or a run's resolved JSON.

    Args:
        recipe: ``paper``, ``embedded`` or a path.
        overrides: ``dotted.key=value`` with a TOML value (a bare word counts as a string).

    Raises:
        RecipeError: no such recipe, not TOML, unknown key or value out of range.
    """
    path = BUILT_IN / f"{recipe}.toml"
    if not path.is_file():
        path = Path(recipe)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in BUILT_IN.glob("*.toml")))
        raise RecipeError(f"no recipe {str(recipe)!r}: expected one of {known}, or a file")
    try:
        text = path.read_text()
        tree: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: expected a recipe's sections, got a {type(tree).__name__}")
    return _resolve(tree, overrides, path.name)


def _resolve(tree: dict[str, Any], overrides: tuple[str, ...], where: str) -> Recipe:
    for override in sorted(overrides, key=_kinds_first):
        _apply(tree, override)
    _drop_simulation(tree, overrides)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (got {fault['input']!r})"
            for fault in error.errors()
        ]
        raise RecipeError(f"{where}: " + "; ".join(faults)) from None


def choose(corpus: Corpus, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe that fits what a corpus brings: its features as they are, the rest encoded.

    Sound, pictures and transcripts without features go through the encoders of the packaged
    bundle, frozen: nothing is downloaded.

    Raises:
        RecipeError: an override that does not fit.
    """
    kinds = {modality: _kind(corpus, modality) for modality in MODALITIES}
    encoded = [modality for modality, kind in kinds.items() if kind == "bundle"]
    simulated: dict[str, str] = {"kind": "none"}
    if any(clip.simulated_text is not None for clip in corpus.clips):
        simulated = {"kind": "features"}
    elif kinds["audio"] == "bundle" and kinds["text"] != "features":
        simulated = {"kind": "bundle", "source": PACKAGED}
    tree: dict[str, Any] = tomllib.loads((BUILT_IN / "features.toml").read_text())
    tree["name"] = (
        "features" if not encoded else "media" if len(set(kinds.values())) < 3 else "mixed"
    )
    tree["encoders"] = {
        modality: {"kind": kind, **({"source": PACKAGED} if kind == "bundle" else {})}
        for modality, kind in kinds.items()
    }
    tree["encoders"]["text_simulation"] = simulated
    if encoded:
        tree["augmentation"]["sub_window"] = 0.5
    return _resolve(tree, overrides, "the chosen recipe")


def _kind(corpus: Corpus, modality: str) -> str:
    if any(clip.features(modality) is not None for clip in corpus.clips):
        return "features"
    return "bundle" if modality in corpus.modalities else "none"


def with_overrides(recipe: Recipe, overrides: tuple[str, ...]) -> Recipe:
    """The recipe with other values, as ``--set`` gives them.

    Raises:
        RecipeError: an unknown key, or a value out of range.
    """
    return _resolve(recipe.model_dump(mode="json"), overrides, recipe.name)


def with_seeds(recipe: Recipe, seeds: int | None) -> Recipe:
    """The recipe with another number of seeds."""
    if seeds is None:
        return recipe
    return recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"seeds": seeds})}
    )


def _kinds_first(override: str) -> bool:
    """Another kind drops the options of the one before, so it goes first."""
    return not override.partition("=")[0].strip().endswith(".kind")


def _drop_simulation(tree: dict[str, Any], overrides: tuple[str, ...]) -> None:
    """Without a voice, no text can be simulated from it: leaving audio out leaves that out."""
    encoders = tree.get("encoders")
    if any(o.startswith("encoders.text_simulation") for o in overrides):
        return
    if any(o.replace(" ", "").startswith("encoders.audio.kind=none") for o in overrides):
        assert isinstance(encoders, dict)  # the override has made it
        if encoders.get("text_simulation", {}).get("kind") != "features":
            encoders["text_simulation"] = {"kind": "none"}


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"expected KEY=VALUE, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *branches, leaf = key.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{override!r}: {branch!r} is a value, not a table")
    if branches[:1] == ["encoders"] and leaf == "kind" and value != tree.get("kind"):
        tree.clear()  # the source and the options were the other kind's
    tree[leaf] = value
