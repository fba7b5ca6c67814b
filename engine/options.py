"""Options that several commands share: declared once, in groups that give their settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from models.errors import UserError

if TYPE_CHECKING:
    from engine.settings import EngineSettings

SAMPLES = Path(__file__).parent / "samples"
NONE = "none"
NO_DEVICE = (
    "no microphone and no camera found; play a clip with --source CLIP "
    "(--source sample is packaged), or name a device: undertone devices"
)
ADDRESSES = ("rtsp://", "rtsps://", "http://", "https://")

BundleName = Annotated[str | None, typer.Option(help="Bundle: a name or a directory (default).")]
BackendOption = Annotated[
    str | None, typer.Option(help="auto (default), onnx, tensorrt or pytorch.")
]
Config = Annotated[Path | None, typer.Option(help="Settings file in TOML.")]
KeysDir = Annotated[Path | None, typer.Option(help="Directory of the CURVE keys.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning (default) or error.")]
HopMs = Annotated[int | None, typer.Option(help="Milliseconds between two scores (500).")]
Threads = Annotated[int | None, typer.Option(help="Threads of the backend; 0: it decides.")]
SecurityMode = Annotated[str | None, typer.Option(help="off (default) or curve.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ingest = Annotated[
    str | None, typer.Option(help="Endpoint that takes media (tcp://127.0.0.1:5570).")
]
Scores = Annotated[
    str | None, typer.Option(help="Endpoint that publishes scores (tcp://127.0.0.1:5571).")
]
Control = Annotated[
    str | None, typer.Option(help="Endpoint that answers requests (tcp://127.0.0.1:5572).")
]


class UsageError(UserError):
    """A mistake on the command line."""


@dataclass(frozen=True)
class Endpoints:
    """Where an inference worker is reached."""

    ingest: Ingest = None
    scores: Scores = None
    control: Control = None

    def flags(self) -> dict[str, Any]:
        """Settings that were given."""
        return given(ingest=self.ingest, scores=self.scores, control=self.control)


@dataclass(frozen=True)
class Model:
    """What scores, and how often."""

    bundle: BundleName = None
    backend: BackendOption = None
    hop_ms: HopMs = None
    threads: Threads = None

    def flags(self) -> dict[str, Any]:
        """Settings that were given."""
        inference = given(hop_ms=self.hop_ms, threads=self.threads)
        return given(bundle=self.bundle, backend=self.backend) | {"inference": inference}


@dataclass(frozen=True)
class Inputs:
    """What is captured."""

    microphone: Annotated[
        str | None,
        typer.Option(
            help="Microphone by name or index, or none (no source given: the default devices)."
        ),
    ] = None
    camera: Annotated[
        str | None, typer.Option(help="Camera by name, index, path or URL, or none.")
    ] = None
    source: Annotated[
        str | None, typer.Option(help="Clip to play as if live; sample: the packaged one.")
    ] = None
    stream: Annotated[
        list[str] | None, typer.Option(help="NAME=SOURCE: clip or camera URL; repeatable.")
    ] = None
    faces: Annotated[
        str | None,
        typer.Option(help="largest (default): one person; all: each as NAME/1, NAME/2."),
    ] = None
    once: Annotated[bool, typer.Option("--once", help="Play clips once and end with them.")] = False

    def flags(self) -> dict[str, Any]:
        """Settings that were given.

        Raises:
            UsageError: flags that exclude each other, a stream without a name, no such clip.
        """
        streams = streams_of(self.microphone, self.camera, self.source, self.stream)
        capture = {"loop": False} if self.once else {}
        return {"streams": streams, "faces": given(who=self.faces), "capture": capture}

    def with_devices(self, settings: EngineSettings) -> EngineSettings:
        """Take this machine's default microphone and camera where no stream is named.

        Raises:
            UsageError: there is no device either.
        """
        if settings.streams:
            return settings
        from engine.doctor import default_camera, default_microphone
        from engine.settings import StreamSettings

        stream = StreamSettings(
            name="main",
            microphone=None if self.microphone == NONE else default_microphone(),
            camera=None if self.camera == NONE else default_camera(),
        )
        if stream.microphone is None and stream.camera is None:
            raise UsageError(NO_DEVICE)
        return settings.model_copy(update={"streams": (stream,)})


@dataclass(frozen=True)
class Common:
    """What every command that runs processes takes."""

    config: Config = None
    security: SecurityMode = None
    keys_dir: KeysDir = None
    log_level: LogLevel = None

    def settings(self, **flags: Any) -> EngineSettings:
        """Read the settings with these flags.

        Raises:
            SettingsError: settings that cannot be used.
        """
        security = given(mode=self.security, keys_dir=self.keys_dir)
        return read_settings(self.config, security=security, log_level=self.log_level, **flags)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options, which typer sees as single ones.

    A parameter whose type is a dataclass stands for all of its fields.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind))
            continue
        groups[parameter.name] = kind
        kinds = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=kinds[field.name],
            )
            for field in fields(kind)
        ]

    def run(**values: Any) -> None:
        for name, kind in groups.items():
            names = [field.name for field in fields(kind) if field.name in values]
            values[name] = kind(**{own: values.pop(own) for own in names})
        command(**values)

    parameters.sort(key=lambda parameter: parameter.kind)
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def read_settings(config: Path | None, **flags: Any) -> EngineSettings:
    """Read the settings; flags that were not given are None or empty, and change nothing."""
    from engine.settings import load

    return load(
        config, **{key: value for key, value in flags.items() if value not in (None, {}, [])}
    )


def clip_path(clip: str) -> Path:
    """Resolve ``sample`` to the packaged clip.

    Raises:
        UsageError: there is no such file.
    """
    path = SAMPLES / "sample.mp4" if clip == "sample" else Path(clip).expanduser()
    if not path.is_file():
        raise UsageError(f"no clip at {path}")
    return path


def streams_of(
    microphone: str | None, camera: str | None, source: str | None, streams: list[str] | None
) -> list[dict[str, Any]]:
    """Turn the flags into streams; none given leaves the settings' own.

    Raises:
        UsageError: flags that exclude each other, a stream without a name, no such clip.
    """
    found: list[dict[str, Any]] = []
    named = [value for value in (microphone, camera) if value not in (None, NONE)]
    if source is not None and named:
        raise UsageError("--source plays a clip's own sound and picture: it excludes "
                         "--microphone and --camera")  # fmt: skip
    if source is not None:
        found.append({"name": "main", "source": str(clip_path(source))})
    elif named:
        found.append({"name": "main", "microphone": _device(microphone), "camera": _device(camera)})
    for value in streams or ():
        name, sign, origin = value.partition("=")
        if not (name and sign and origin):
            raise UsageError(f"--stream: expected NAME=SOURCE, got {value!r}")
        if origin.startswith(ADDRESSES):
            found.append({"name": name, "camera": origin})
        else:
            found.append({"name": name, "source": str(clip_path(origin))})
    return found


def _device(value: str | None) -> str | int | None:
    if value is None or value == NONE:
        return None
    return int(value) if value.isdigit() else value
