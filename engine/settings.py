"""Settings of the engine: one validated tree.

Defaults < TOML file < UNDERTONE_* environment < flags.
Unknown keys are refused at every level. The tree is frozen; workers receive it whole.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
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
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as SourceError

from models.errors import UserError

ENV_PREFIX, ENV_DELIMITER = "UNDERTONE_", "__"
STREAM_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""A stream's name is one level of a topic, so it holds no slash."""

DeviceKind = Literal["microphone", "camera", "source"]
"""What one capture worker owns; a source is a clip."""
FORMER_NAMES = {"max_age_ms": "absent_after_ms"}
"""Of ``inference``, valid for one release: ``max_age_ms`` is the age of a score elsewhere."""


class SettingsError(UserError):
    """Settings that cannot be used: one line with the key, expected and actual."""


class Section(BaseModel):
    """One frozen branch of the settings that refuses unknown keys."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False
    )


class StreamSettings(Section):
    """One person to watch: a clip (``source``), or a microphone and a camera.

    ``microphone`` and ``camera`` are a device's name or index, for the camera also a path
    or an RTSP/HTTP address; ``None`` means that the stream does without it.
    """

    name: str = Field("main", pattern=STREAM_NAME_PATTERN)
    source: str | None = None
    microphone: str | int | None = None
    camera: str | int | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> StreamSettings:
        if self.source is not None and (self.microphone is not None or self.camera is not None):
            raise ValueError(f"stream {self.name!r}: a source excludes a microphone and a camera")
        return self


class SpeechSettings(Section):
    """Voice activity detection: webrtcvad proposes, Silero's network confirms, with hang-over."""

    frame_ms: Literal[10, 20, 30] = 10
    aggressiveness: Literal[0, 1, 2, 3] = 2
    start_ms: int = Field(100, ge=0, le=2000)
    stop_ms: int = Field(200, ge=0, le=5000)
    floor_dbfs: float = Field(-80.0, ge=-120.0, le=0.0)
    """The quietest sound that may be speech; in a louder room the floor is the room's."""


class FaceSettings(Section):
    """Face detection, tracking and cropping."""

    detector: Literal["blazeface", "blazeface-near", "yunet", "haar"] = "blazeface"
    """BlazeFace's two networks, or only the cheaper one for faces within two metres; YuNet from
    a file of one's own; OpenCV's cascade, as long as OpenCV has it."""
    model: Path | None = None
    """YuNet's ONNX file; needed for, and only for, ``detector = "yunet"``."""
    detect_every: int = Field(10, ge=1, le=60)
    """Sampled pictures between two searches; in between, known faces are followed."""
    who: Literal["largest", "all"] = "largest"
    """Score the most prominent person, or each in a stream of their own: ``room/1``, ``room/2``."""
    max: int = Field(6, ge=1, le=30)
    """People scored at once with ``who = "all"``: the first to come of the most prominent."""
    min_face_px: int = Field(32, ge=16, le=1024)
    """Smaller faces do not begin to be scored, whichever the detector; BlazeFace follows one
    that did until it is a fifth smaller."""
    width_px: int = Field(480, ge=160, le=3840)
    """Width to which YuNet's and the cascade's pictures are shrunk; BlazeFace has its own."""

    @model_validator(mode="after")
    def _yunet_needs_its_model(self) -> FaceSettings:
        if (self.detector == "yunet") != (self.model is not None):
            raise ValueError("faces.model (a YuNet ONNX file) goes with faces.detector = 'yunet'")
        return self


class CaptureSettings(Section):
    """What capture workers send."""

    chunk_ms: int = Field(50, ge=10, le=200)
    """Of sound per message; where it divides the hop, no window waits for the rest of one."""
    video_rate_hz: float = Field(10.0, gt=0, le=60)
    crop_px: int | None = Field(None, ge=24, le=256)
    """Side of a face crop; None: what the bundle's face network takes, so that a face is resized
    once, from the picture."""
    crop_format: Literal["jpeg", "raw"] = "jpeg"
    """How crops travel; raw ones are four times as large and lose nothing."""
    jpeg_quality: int = Field(95, ge=80, le=100)
    loop: bool = True
    """Play a clip again when it ends."""
    open_timeout_ms: int = Field(5_000, ge=100)
    stall_timeout_ms: int = Field(3_000, ge=200)
    """No sample for this long: the device is taken as gone and is reopened."""


class InferenceSettings(Section):
    """Windows, micro-batches and the rolling filter."""

    hop_ms: int = Field(500, ge=50, le=10_000)
    skew_ms: int = Field(150, ge=0, le=2_000)
    """How long a window waits for a modality that lags behind."""
    min_coverage: float = Field(0.1, ge=0.0, le=1.0)
    """A modality covering less of its window counts as absent."""
    absent_after_ms: int = Field(2_000, ge=100)
    """A voice this long gone counts as absent, though the window still holds it; a face too,
    where no picture says so sooner."""
    face_gone_ms: int = Field(500, ge=0)
    """Pictures without the face for this long: it has gone, and is scored no more."""
    stream_timeout_s: float = Field(30.0, gt=0)
    """A stream silent for this long is forgotten."""
    max_streams: int = Field(1024, ge=1)
    threads: int = Field(0, ge=0)
    """Threads of the backend; 0 lets it choose."""
    explain: bool = True
    """Ask what each modality says by itself; costs up to 75 % of the fusion's time."""
    half_life_s: float = Field(2.0, gt=0)
    """Time in which the rolling filter halves the distance to a steady window score."""
    hold_s: float = Field(6.0, ge=0)
    """How long a valence is held, its interval growing, after voice and face are gone."""

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        """Read a setting by its former name; where both are given, the present one counts."""
        if isinstance(values, dict):
            former = {new: values[old] for old, new in FORMER_NAMES.items() if old in values}
            kept = {name: value for name, value in values.items() if name not in FORMER_NAMES}
            return former | kept
        return values


class WordsSettings(Section):
    """Words that are understood from speech, where the bundle has a recogniser."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: words where the bundle has a recogniser; on: fail where it has none; off: none."""
    delay_ms: int = Field(750, ge=300, le=5_000)
    """From the end of a word to the first window that may know it: the machine's time to read."""
    publish: bool = False
    """Let scores carry the words themselves. Off: they never leave the worker's memory."""


class TensorrtSettings(Section):
    """Plans of the TensorRT backend."""

    precision: Literal["fp16", "bf16", "fp32"] = "fp16"
    """Of matrix products and convolutions; the rest is float32."""
    max_batch: int = Field(64, ge=1, le=1024)
    """Largest batch of one run; buffers are allocated for it."""
    plans_dir: Path | None = None
    """Where plans are kept; None: undertone/plans in the user's cache directory."""
    cuda_graphs: bool = True
    """Record usual shapes into CUDA graphs; off to find out what they bring."""
    foreign_plans: bool = False
    """Load plans from plans_dir that another machine built; a plan is code."""


class SecuritySettings(Section):
    """CURVE encryption with an allow-list."""

    mode: Literal["off", "curve"] = "off"
    keys_dir: Path = Path("~/.config/undertone/keys")


class ClusterSettings(Section):
    """This process's part in a cluster; without a directory there is none."""

    directory: str | None = None
    """Endpoint of the directory: captures ask it for a worker, workers report to it."""
    name: str = Field("inference", pattern=STREAM_NAME_PATTERN)
    """Of an inference worker."""
    host: str = Field("local", pattern=STREAM_NAME_PATTERN)
    """Of the machine (or card) that it runs on: a lost one's streams go to another first."""
    address: str = "127.0.0.1"
    """Where this machine's workers listen and are reached by captures."""
    generation: int = Field(1, ge=1)
    """Raised by each rolling upgrade."""
    capacity: int = Field(64, ge=1)
    """Streams that a worker is meant to hold."""

    @field_validator("directory")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("tcp://", "ipc://")):
            raise ValueError(f"expected an endpoint tcp://HOST:PORT or ipc://PATH, got {value!r}")
        return value


class EngineSettings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    ingest: str = "tcp://127.0.0.1:5570"
    scores: str = "tcp://127.0.0.1:5571"
    control: str = "tcp://127.0.0.1:5572"
    bundle: str = "default"
    backend: Literal["auto", "onnx", "tensorrt", "pytorch"] = "auto"
    streams: tuple[StreamSettings, ...] = ()
    capture: CaptureSettings = CaptureSettings()
    speech: SpeechSettings = SpeechSettings()
    faces: FaceSettings = FaceSettings()
    inference: InferenceSettings = InferenceSettings()
    words: WordsSettings = WordsSettings()
    tensorrt: TensorrtSettings = TensorrtSettings()
    security: SecuritySettings = SecuritySettings()
    cluster: ClusterSettings = ClusterSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    config_file: ClassVar[Path | None] = None

    @field_validator("ingest", "scores", "control")
    @classmethod
    def _endpoint(cls, value: Annotated[str, "ZeroMQ endpoint"]) -> str:
        if not value.startswith(("tcp://", "ipc://")):
            raise ValueError(f"expected an endpoint tcp://HOST:PORT or ipc://PATH, got {value!r}")
        return value

    @field_validator("streams")
    @classmethod
    def _names_differ(cls, value: tuple[StreamSettings, ...]) -> tuple[StreamSettings, ...]:
        names = [stream.name for stream in value]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"stream names must differ, repeated: {', '.join(repeated)}")
        return value

    @model_validator(mode="after")
    def _chunks_are_whole_frames(self) -> EngineSettings:
        chunk_ms, frame_ms = self.capture.chunk_ms, self.speech.frame_ms
        if chunk_ms % frame_ms:
            near_ms = max(frame_ms, chunk_ms // frame_ms * frame_ms)
            raise ValueError(
                f"setting 'capture.chunk_ms': expected a multiple of speech.frame_ms = {frame_ms}, "
                f"such as {near_ms}, got {chunk_ms}"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags (init) over environment over the TOML file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.config_file)
        return (init_settings, env_settings, toml)


def load(config_file: Path | None = None, **flags: Any) -> EngineSettings:
    """Read the settings; ``flags`` are the values given on the command line.

    Raises:
        SettingsError: an unknown key or variable, a value out of range, no such file, not TOML.
    """
    if config_file is not None and not config_file.is_file():
        raise SettingsError(f"no settings file at {config_file}")
    _refuse_unknown_variables(os.environ)

    class FileSettings(EngineSettings):
        """The same tree, reading ``config_file`` too."""

        model_config = SettingsConfigDict(title="EngineSettings")

    FileSettings.config_file = config_file
    try:
        loaded = FileSettings(**flags)
    except ValidationError as error:
        raise SettingsError(explain(error)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config_file}: not TOML: {error}") from None
    except (SourceError, OSError) as error:
        raise SettingsError(" ".join(str(error).split())) from None
    return EngineSettings.model_construct(**dict(loaded))


def explain(error: ValidationError) -> str:
    """Put the first of pydantic's complaints into one line; an unknown key lists the valid ones."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(path[:-1])
        return f"unknown setting {key!r}; valid here: {', '.join(valid)}"
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"setting {key!r}: {message}, got {first['input']!r}"


def _valid_keys(path: Iterable[str]) -> list[str]:
    model: type[BaseModel] = EngineSettings
    for part in path:
        if part == "streams":
            model = StreamSettings
        elif part in model.model_fields:
            kind = model.model_fields[part].annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return list(model.model_fields)


def _refuse_unknown_variables(environment: Iterable[str]) -> None:
    # pydantic reads the variables it knows and passes over a misspelt one in silence.
    for variable in sorted(environment):
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        *branch, key = variable[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER)
        parent = EngineSettings.model_fields.get(branch[0]) if branch else None
        valid = _valid_keys(branch)
        if branch == ["inference"]:
            key = FORMER_NAMES.get(key, key)
        if (branch and parent is None) or (key not in valid and branch[:1] != ["streams"]):
            names = ", ".join(ENV_PREFIX + ENV_DELIMITER.join([*branch, k]).upper() for k in valid)
            if branch and parent is None:
                names = ", ".join(ENV_PREFIX + k.upper() for k in EngineSettings.model_fields)
            raise SettingsError(f"unknown variable {variable}; valid here: {names}")
