"""Bundles: a directory with everything the engine needs of a model. Torch-free.

``config.json`` names every other file with its sha256, so a missing or altered file is an error
before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from models.calibration import Calibration
from models.errors import UserError
from models.spec import SCHEMA, BundleConfig, GraphName

BUILT_IN = Path(__file__).parent / "bundles"
CONFIG, CALIBRATION, WEIGHTS, CARD = (
    "config.json",
    "calibration.json",
    "weights.safetensors",
    "README.md",
)


class BundleError(UserError):
    """A bundle that cannot be used; names the file or field, expected and actual."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files were checked."""

    directory: Path
    config: BundleConfig
    calibration: Calibration
    sha256: str
    """Of config.json, which holds the hashes of all other files: it identifies the bundle."""

    def path(self, graph: GraphName) -> Path:
        """ONNX file of a graph.

        Raises:
            BundleError: the bundle has no such graph.
        """
        try:
            return self.directory / self.config.graphs[graph]
        except KeyError:
            known = ", ".join(self.config.graphs) or "none"
            raise BundleError(
                f"{self.directory}: no ONNX graph {graph!r}, expected one of: {known}"
            ) from None

    def cpu_path(self, graph: GraphName) -> Path:
        """ONNX file of a graph for a CPU: the one in 8 bits where there is one.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if graph in self.config.quantised:
            return self.directory / self.config.quantised[graph]
        return self.path(graph)

    @property
    def weights_path(self) -> Path:
        """Weights of every module, for PyTorch."""
        return self.directory / WEIGHTS


def open(path_or_name: str | Path) -> Bundle:
    """Open a bundle: a directory, the name of a packaged one, or a Hugging Face Hub id.

    Raises:
        BundleError: no such bundle, a missing or altered file, another schema.
    """
    directory, config, raw = _read(path_or_name)
    _check_files(directory, config)
    try:
        calibration = Calibration.read(directory / CALIBRATION)
    except ValueError as error:
        raise BundleError(f"{directory}: {error}") from None
    return Bundle(directory, config, calibration, hashlib.sha256(raw).hexdigest())


def read_config(path_or_name: str | Path) -> BundleConfig:
    """What a bundle says of itself, without a look at its other files.

    Raises:
        BundleError: no such bundle, or another schema.
    """
    return _read(path_or_name)[1]


def _read(path_or_name: str | Path) -> tuple[Path, BundleConfig, bytes]:
    directory = _find(path_or_name)
    config_path = directory / CONFIG
    try:
        raw = config_path.read_bytes()
        tree = json.loads(raw)
    except OSError as error:
        raise BundleError(f"{config_path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BundleError(f"{config_path}: expected JSON: {error}") from None
    schema = tree.get("schema_version") if isinstance(tree, dict) else None
    if schema != SCHEMA:
        raise BundleError(
            f"{config_path}: schema_version: expected {SCHEMA}, got {schema!r}: another version of "
            f"Undertone made it"
        )
    try:
        config = BundleConfig.model_validate(tree)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise BundleError(f"{config_path}: " + "; ".join(faults)) from None
    return directory, config, raw


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(path_or_name: str | Path) -> Path:
    name = str(path_or_name)
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    if (BUILT_IN / name / CONFIG).is_file():
        return BUILT_IN / name
    if name.count("/") == 1 and not name.startswith((".", "~", "/")):
        return _download(name)
    known = ", ".join(sorted(p.parent.name for p in BUILT_IN.glob(f"*/{CONFIG}")))
    raise BundleError(
        f"no bundle {name!r}: expected a directory, a Hugging Face id (OWNER/NAME) or one of: "
        f"{known}"
    )


def _download(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise BundleError(
            f"bundle {repository!r} is not a directory; to fetch it from the Hugging Face Hub: "
            'pip install -e ".[hub]"'
        ) from None
    try:
        return Path(snapshot_download(repository))
    except Exception as error:  # the client's errors have no common base
        reason = str(error).strip().splitlines() or [""]
        raise BundleError(
            f"bundle {repository!r}: neither a directory nor available from the Hugging Face "
            f"Hub: {type(error).__name__}: {reason[0][:200]}"
        ) from None


def _check_files(directory: Path, config: BundleConfig) -> None:
    named = {*config.graphs.values(), *config.quantised.values(), CALIBRATION}
    unlisted = sorted(named - config.files.keys())
    if unlisted:
        raise BundleError(f"{directory / CONFIG}: files: no sha256 of {', '.join(unlisted)}")
    for name, expected in config.files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise BundleError(f"{directory / CONFIG}: files: {name!r} leads out of the bundle")
        path = directory / name
        if not path.is_file():
            raise BundleError(f"{path}: the file is missing")
        actual = digest(path)
        if actual != expected:
            raise BundleError(f"{path}: sha256: expected {expected}, got {actual}")
