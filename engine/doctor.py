"""What this machine has and lacks for Undertone, and the command that gets what is missing."""

from __future__ import annotations

import json
import platform
import re
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from engine.capture import CaptureError
from engine.capture.listing import NamedDevice, list_cameras, list_microphones, portaudio
from engine.settings import EngineSettings
from models.bundle import Bundle

DISTRIBUTION = "undertone-sentiment"
"""The product's name on the package index."""
EXTRAS = {
    "microphone": "sounddevice",
    "train": "torch",
    "text": "transformers",
    "hub": "huggingface_hub",
    "tensorrt": "tensorrt",
    "rtx": "tensorrt-rtx",
    "lsl": "pylsl",
    "parquet": "pyarrow",
    "dashboard": "starlette",
    "plot": "matplotlib",
    "metrics": "prometheus-client",
    "cluster": "ray",
}
"""Each optional extra, and the package that shows whether it is installed."""
INDEXES = {"tensorrt": " --extra-index-url https://pypi.nvidia.com (data-centre cards)"}
"""Extras whose packages are in their vendor's own index."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What was found; a problem is one line that says what to install."""

    microphones: tuple[NamedDevice, ...]
    cameras: tuple[NamedDevice, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    topic: str
    ok: bool
    finding: str
    remedy: str | None = None


def find_devices() -> Devices:
    """Look for microphones through PortAudio and for cameras through the kernel."""
    cameras = tuple(list_cameras())
    try:
        return Devices(tuple(list_microphones()), cameras)
    except CaptureError as error:
        return Devices((), cameras, str(error))


def default_microphone() -> int | None:
    """Return PortAudio's default microphone, or the first, or None."""
    found = find_devices().microphones
    if not found:
        return None
    default = int(portaudio().default.device[0])
    return default if default >= 0 else found[0].index


def default_camera() -> int | None:
    """Return the first camera's index, or None."""
    found = find_devices().cameras
    return found[0].index if found else None


def devices_report(as_json: bool) -> str:
    """List the devices, for people or as JSON."""
    found = find_devices()
    if as_json:
        return json.dumps(asdict(found), indent=2)
    lines = ["microphones"]
    lines += [f"  {device.index:>3}  {device.name}" for device in found.microphones] or ["  none"]
    lines += ["cameras"]
    lines += [f"  {device.index:>3}  {device.name}" for device in found.cameras] or ["  none"]
    if found.problem is not None:
        lines.append(found.problem)
    return "\n".join(lines)


def checks(settings: EngineSettings) -> list[Check]:
    """Look at everything, one check after the other."""
    found = [
        Check("python", sys.version_info >= (3, 11), f"{platform.python_version()}"),
        *_packages(),
        *_model(settings),
        *_gpu(),
    ]
    devices = find_devices()
    for topic, listed in (("microphones", devices.microphones), ("cameras", devices.cameras)):
        names = ", ".join(device.name for device in listed) or "none"
        remedy = devices.problem if topic == "microphones" else None
        found.append(Check(topic, bool(listed), names, remedy))
    return found


def report(settings: EngineSettings, as_json: bool) -> str:
    """Return the report, for people or as JSON."""
    found = checks(settings)
    if as_json:
        return json.dumps([asdict(check) for check in found], indent=2)
    lines = []
    for check in found:
        lines.append(f"{'ok' if check.ok else '--':<3} {check.topic:<24} {check.finding}")
        if check.remedy is not None:
            lines.append(f"{'':<28} {check.remedy}")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _packages() -> list[Check]:
    found = []
    for requirement in requires(DISTRIBUTION) or () if _version(DISTRIBUTION) else ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        installed = _version(name)
        remedy = None if installed else f'pip install "{requirement}"'
        found.append(Check(name, installed is not None, installed or "missing", remedy))
    for extra, package in EXTRAS.items():
        installed = _version(package)
        finding = f"{package} {installed}" if installed else f"{package} is not installed"
        remedy = None if installed else f'pip install -e ".[{extra}]"{INDEXES.get(extra, "")}'
        found.append(Check(f"extra {extra}", installed is not None, finding, remedy))
    return found


def _model(settings: EngineSettings) -> list[Check]:
    from engine.backends import select
    from engine.backends.protocol import BackendError
    from models import bundle as bundles

    try:
        bundle = bundles.open(settings.bundle)
    except bundles.BundleError as error:
        return [Check("bundle", False, str(error))]
    config = bundle.config
    state = "trained" if config.trained else "UNTRAINED: random weights, scores mean nothing"
    remedy = None if config.trained else "train one: python -m trainer --help"
    found = [Check("bundle", config.trained, f"{config.name} {config.version}, {state}", remedy)]
    try:
        choice = select.choose(
            settings.backend, bundle, settings.inference.threads, settings.tensorrt
        )
    except BackendError as error:
        return [*found, Check("backend", False, str(error))]
    chosen = f"{choice.backend.name} on {choice.backend.device} ({'; '.join(choice.reasons)})"
    return [*found, Check("backend", True, chosen), _words(settings, bundle)]


def _words(settings: EngineSettings, bundle: Bundle) -> Check:
    from engine.inference.text.cost import words_cost

    try:
        found = words_cost(bundle, settings.words)
    except Exception as error:  # a model's own errors have no common base
        return Check("words", False, str(error))
    remedy = "words.mode = off does without" if not isinstance(found, str) else None
    return Check("words", True, str(found), remedy)


def _gpu() -> list[Check]:
    from engine.backends.onnx import cuda_available
    from engine.backends.tensorrt import cuda, loading

    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        found = [Check("gpu", True, driver.read_text().splitlines()[0])]
    else:
        found = [Check("gpu", False, "no NVIDIA driver; the engine runs on the CPU")]
    missing = loading.available()
    if missing is None:
        gpu = cuda.CudaDevice()
        found.append(Check("tensorrt", True, f"can run on {gpu.name} ({gpu.capability})"))
        gpu.close()
    else:
        found.append(Check("tensorrt", False, missing))
    reason = cuda_available()
    found.append(Check("onnx on cuda", reason is None, reason or "built in"))
    return found
