"""Specifications: what a bundle's ``config.json`` says about its network and encoders.

Torch-free, read by the engine and the trainer alike. Every class is frozen and refuses
unknown keys, so that a bundle from another schema is an error and not a guess.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.graphs import MODALITIES as MODALITIES
from models.graphs import PROJECTIONS as PROJECTIONS
from models.graphs import RECOGNISER as RECOGNISER
from models.graphs import TOKENS_PER_S
from models.graphs import WORDS as WORDS
from models.graphs import GraphName as GraphName

SCHEMA = 2
SAMPLE_RATE_HZ = 16_000
MEL_RATE_HZ = 100

SequenceInput = Literal["log_mel", "samples", "audio_frames"]


class Spec(BaseModel):
    """Base of all specifications: frozen, unknown keys refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class NetworkSpec(Spec):
    """Options of the one network (paper, section 2); the defaults are the product's live ones."""

    audio_dim: int = Field(gt=0)
    text_dim: int = Field(gt=0)
    video_dim: int = Field(gt=0)
    hidden_dim: int = Field(256, gt=0)
    fused_dim: int = Field(128, gt=0)
    rnc_dim: int = Field(64, gt=0)
    weights: Literal["raw", "normalised"] = "normalised"
    """Modality weights: the published raw linear output, or a softmax over the present ones."""
    fusion: Literal["umca", "concat"] = "umca"
    """Unified cross-attention, or the utterance vectors side by side (an ablation)."""
    mia: Literal["off", "text", "any"] = "any"
    """Imagination: switched off, in the missing-text flow, or for any missing modality."""
    mia_residual: Literal["text", "transition"] = "transition"
    bounded: bool = True
    """Keep the valence within [-3, 3]."""
    quantiles: tuple[float, float] | None = (0.05, 0.95)
    """Uncertainty head: lower and upper quantile; None for the published network."""
    standardised: tuple[Literal["audio", "text", "video"], ...] = ()
    """Modalities whose columns are brought to one scale, by statistics among the weights."""
    dropout: float = Field(0.3, ge=0, lt=1)
    input_dropout: float = Field(0.5, ge=0, lt=1)

    @property
    def frame_dims(self) -> tuple[int, int, int]:
        """Widths of the encoders' frames, in the order of MODALITIES."""
        return self.audio_dim, self.text_dim, self.video_dim

    @property
    def projected_dim(self) -> int:
        """Width of a projected frame: values [d], keys [d] and relevance [1], side by side."""
        return 2 * self.hidden_dim + 1


class SequenceEncoderSpec(Spec):
    """A plug that turns a sequence of inputs into a sequence of frames.

    ``stride`` inputs make one frame. A graph fed N inputs gives frames of which the last k
    belong to the last k * stride inputs, exact as soon as ``left_context`` more inputs precede
    them; the engine therefore encodes only new inputs behind that much context.
    """

    kind: Literal["embedded", "transformers", "llm", "recogniser"]
    input: SequenceInput
    dim: int = Field(gt=0)
    stride: int = Field(gt=0)
    left_context: int = Field(ge=0)
    """Inputs before the first new one that its frame depends on."""
    causal: bool
    block: int = Field(1, gt=0)
    """Strides that are encoded together, counted from where a stretch of sound begins. More than
    1 makes the frames of an encoder that looks at all of its input depend on the sound alone, and
    not on when it was asked; a block without any voice is left out and has no frames."""
    source: str | None = None
    """Hugging Face name or path, for ``transformers`` and ``llm``."""
    layer: int | None = None
    """Index into ``hidden_states``."""
    channels: int | None = None
    """Width of the embedded network."""

    @property
    def input_rate_hz(self) -> float:
        """Inputs per second where they come straight from the signal."""
        if self.input == "audio_frames":
            raise ValueError("the rate of audio frames is that of the audio encoder")
        return float(MEL_RATE_HZ if self.input == "log_mel" else SAMPLE_RATE_HZ)


class ImageEncoderSpec(Spec):
    """A plug that turns each face crop into one frame."""

    kind: Literal["embedded", "transformers"]
    dim: int = Field(gt=0)
    size_px: int = Field(gt=0)
    channels_in: Literal[1, 3]
    rate_hz: float = Field(10.0, gt=0)
    """Crops per second that the network was trained on."""
    colour: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Mean and deviation per RGB channel of a pretrained model; None: each crop by itself."""
    source: str | None = None
    layer: int | None = None
    channels: int | None = None


class TextEncoderSpec(Spec):
    """A plug that turns a real transcript into frames, one per token (transformers, by extra)."""

    source: str
    layer: int = -1
    dim: int = Field(gt=0)
    model: Literal["encoder", "causal"] = "encoder"
    adapter: str | None = None
    """File of the bundle with low-rank updates of the model's weights (``models.low_rank``)."""
    tokenizer: str | None = None
    """File of the bundle with the tokenizer of its graph ``text_encoder`` (``tokenizers``)."""
    max_tokens: int = Field(256, gt=0)
    """Tokens of a text that the graph reads; the rest is cut off."""


class BeliefSpec(Spec):
    """When the words of a piece of speech are believed; measured, in docs/words.md."""

    min_logprob: float = Field(-0.5, le=0)
    """Mean log-probability of the tokens."""
    max_tokens_per_s: float = Field(10.0, gt=0)
    min_tokens_per_s: float = Field(0.4, ge=0)
    """Of voiced sound: a long piece with hardly a word in it is no speech, or not understood."""
    max_repetition: float = Field(0.6, gt=0, le=1)
    """Share of the tokens that repeat what was written just before."""


class RecogniserSpec(Spec):
    """Text simulation that writes down what is said, and has the text encoder read it.

    Its graphs are the four in RECOGNISER; with a ``source``, PyTorch runs that model instead.
    """

    source: str | None = None
    """transformers encoder-decoder speech model by name or path; None: the bundle's own graphs."""
    tokens: str | None = None
    """File of the bundle with the texts of the decoder's tokens; None with a source."""
    text_span_ms: int = Field(10_000, gt=0)
    """How far back the words that are read together reach, utterance by utterance."""
    max_piece_ms: int = Field(4_000, ge=500)
    """Longest piece of speech that is recognised at once."""
    belief: BeliefSpec = BeliefSpec()


class BundleConfig(Spec):
    """``config.json``: everything needed to rebuild and run a bundle."""

    schema_version: int = SCHEMA
    name: str
    version: str
    trained: bool
    licence: str
    window_ms: int = Field(4_000, gt=0)
    network: NetworkSpec
    audio_encoder: SequenceEncoderSpec | None
    text_simulation: SequenceEncoderSpec | None
    """A student or a language model; a bundle with a recogniser has none."""
    video_encoder: ImageEncoderSpec | None
    text_encoder: TextEncoderSpec | None
    recogniser: RecogniserSpec | None = None
    precision: Literal["float32", "float16"] = "float32"
    """Arithmetic inside the ONNX graphs; their inputs and outputs are float32."""
    graphs: dict[GraphName, str]
    """Graph name to ONNX file; a graph may be missing where only PyTorch can run it."""
    quantised: dict[GraphName, str] = {}
    """The same graphs in 8 bits, which ONNX Runtime takes on a CPU: graph name to file."""
    files: dict[str, str]
    """Every other file of the bundle to its sha256."""

    @model_validator(mode="after")
    def _one_text_simulation(self) -> BundleConfig:
        recogniser = self.recogniser
        if recogniser is None:
            return self
        if self.text_simulation is not None:
            raise ValueError("recogniser: expected no text_simulation with it")
        if self.text_encoder is None:
            raise ValueError("recogniser: expected a text_encoder to read its words")
        if recogniser.source is None:
            missing = [name for name in RECOGNISER if name not in self.graphs]
            if missing:
                raise ValueError(f"recogniser: expected a source or graphs {', '.join(missing)}")
            if recogniser.tokens not in self.files:
                raise ValueError(
                    f"recogniser.tokens: expected one of files, got {recogniser.tokens!r}"
                )
        return self

    @property
    def frame_rates_hz(self) -> tuple[float, float, float]:
        """Frames per second of a running stream, in the order of MODALITIES.

        Where the bundle has no encoder, 10 stands for it; a language model's tokens come at
        about a fifth of the sound's frames.
        """
        audio, text, video = self.audio_encoder, self.text_simulation, self.video_encoder
        video_hz = video.rate_hz if video is not None else 10.0
        if audio is None:
            return 10.0, 10.0, video_hz
        audio_hz = audio.input_rate_hz / audio.stride
        if self.recogniser is not None:
            return audio_hz, TOKENS_PER_S, video_hz
        return audio_hz, audio_hz / (text.stride if text is not None else 5), video_hz

    @property
    def full_lengths(self) -> tuple[int, int, int]:
        """Frames in a full window of a running stream, in the order of MODALITIES."""
        span_ms = self.window_ms if self.recogniser is None else self.recogniser.text_span_ms
        audio, text, video = (
            max(1, round(length_ms / 1000.0 * rate))
            for length_ms, rate in zip(
                (self.window_ms, span_ms, self.window_ms), self.frame_rates_hz, strict=True
            )
        )
        return audio, text, video
