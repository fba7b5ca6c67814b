"""Loading pretrained transformers models by name or path; every failure is one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PretrainedError(Exception):
    """A pretrained model that cannot be had or used; expected and actual."""


def load(source: str, *factories: str, **options: Any) -> list[Any]:
    """Load ``source`` with each of transformers' factories (``AutoModel`` and the like).

    Raises:
        PretrainedError: the extra is missing, there is no such model, or it is of another kind.
    """
    try:
        import transformers
    except ImportError:
        raise PretrainedError(
            f'{source}: needs transformers and torch: pip install "undertone[text]"'
        ) from None
    found = []
    for factory in factories:
        extra = options if "Model" in factory else {}
        try:
            found.append(getattr(transformers, factory).from_pretrained(source, **extra))
        except Exception as error:  # transformers raises a type of its own per cause
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise PretrainedError(
                f"{source}: cannot be loaded as {factory}: {reason[0][:200]}"
            ) from None
    return found


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
