"""The published checkpoint in this network: same weights, same numbers.

Key names are those of the network published with arXiv 2410.15029.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from models.errors import UserError
from models.network import SentimentNetwork
from models.spec import NetworkSpec

Variant = Literal["released", "imagination"]
Weights = Mapping[str, Any]

# Their index of a modality (0 audio, 1 text, 2 video) is ours.
_NAMES = ("audio", "text", "video")
_QUERIES = ("fused", "at", "tv", "av", "audio", "text", "video")

# Layers that the published class declares and never calls, or uses for other tasks.
_UNUSED = re.compile(r"^(fc_out_e|fc_out_ev|prelu|normali|layer_normali)\.")


class PublishedWeightsError(UserError, ValueError):
    """Weights that are not the published network's; lists every key at fault."""


def _pairs(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def _mlp(ours: str, theirs: str, first: int = 0) -> dict[str, str]:
    """Two linear layers with ReLU and dropout between: indices 0 and 3 in both."""
    layers = (0, 3)
    found: dict[str, str] = {}
    for layer in layers:
        found |= _pairs(f"{ours}.{first + layer}", f"{theirs}.{layer}")
    return found


def _imagination(ours: str, theirs: str) -> dict[str, str]:
    return (
        _pairs(f"{ours}.transition.0", f"{theirs}.transition.0")
        | _pairs(f"{ours}.transition.2", f"{theirs}.transition.2")
        | _pairs(f"{ours}.encoder", f"{theirs}.encoder_0.0")
        | _pairs(f"{ours}.decoder", f"{theirs}.decoder_0.0")
    )


def _names() -> dict[str, str]:
    """Our parameter names to theirs, but for what is stacked differently (``_convert``)."""
    names: dict[str, str] = {}
    for index, modality in enumerate(_NAMES):
        names |= _pairs(f"projections.{index}.value", f"frame_dim_reshape_{index}")
        names |= _pairs(f"projections.{index}.relevance", f"fra2utt_{index}.input_proj")
        names |= _pairs(f"projections.{index}.key", f"cross_att_fra2utt_{index}.input_proj")
        names |= _mlp(f"fusion.utterance.{index}", f"{modality}_mlp")
        names |= _pairs(f"fusion.cross.{index}.query", f"cross_att_fra2utt_{index}.query_proj")
        names |= _mlp(f"fusion.cross.{index}.output", f"cross_{modality}_mlp")
    names |= _mlp("fusion.weighting", "attention_mlp") | _pairs("fusion.weighting.6", "fc_att")
    names |= _mlp("fusion.query_weighting", "cross_attention_mlp")
    names |= _pairs("fusion.query_weighting.6", "cross_fc_att")
    names |= _pairs("fusion.valence", "fc_out_v")
    for layer in (0, 2):
        names |= _pairs(f"fusion.rnc.{layer}", f"orgin_linear_change.{layer}")
    names |= _imagination("fusion.query_imagination.0", "missing_text_imagination_mlp")
    names |= _imagination("fusion.cross_imagination", "missing_cross_text_query_imagination_mlp")
    return names


def _needed() -> set[str]:
    context = {f"fra2utt_{index}.attention_context_vector" for index in range(3)}
    queries = {f"cross_{q}_query_mlp.0.{part}" for q in _QUERIES for part in ("weight", "bias")}
    return set(_names().values()) | context | queries


def load(weights: Weights, variant: Variant) -> SentimentNetwork:
    """Build the published network from a state dict.

    Args:
        weights: published key to array or tensor; computed in float32.
        variant: ``released`` (imagination switched off) or ``imagination``.

    Returns:
        The network in eval mode; input sizes are those of the weights.

    Raises:
        PublishedWeightsError: unknown, missing or misshapen keys, all of them listed.
    """
    if variant not in ("released", "imagination"):
        raise ValueError(f"variant: expected 'released' or 'imagination', got {variant!r}")
    tensors = {key: _tensor(key, value) for key, value in weights.items()}
    needed = _needed()
    faults = [f"missing {key}" for key in sorted(needed - tensors.keys())]
    unknown = [key for key in sorted(tensors.keys() - needed) if not _UNUSED.match(key)]
    faults += [f"unknown {key}" for key in unknown]
    if faults:
        raise PublishedWeightsError(_message(faults))
    network = SentimentNetwork(_spec(tensors, variant))
    state = _convert(tensors)
    if variant == "released":
        state = {key: value for key, value in state.items() if "imagination" not in key}
    own = network.state_dict()
    faults = [
        f"{_published_name(key)}: expected {list(own[key].shape)}, got {list(value.shape)}"
        for key, value in state.items()
        if own[key].shape != value.shape
    ]
    if faults:
        raise PublishedWeightsError(_message(faults))
    network.load_state_dict(state)
    return network.eval()


def _tensor(key: str, value: Any) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except TypeError:
        raise PublishedWeightsError(
            f"{key}: expected numbers, got {type(value).__name__}"
        ) from None
    return tensor.detach().float()


def _spec(tensors: dict[str, Tensor], variant: Variant) -> NetworkSpec:
    shapes = {key: value.shape for key, value in tensors.items()}
    inputs = [shapes[f"frame_dim_reshape_{index}.weight"] for index in range(3)]
    two_dimensional = {
        "fc_out_v.weight": shapes["fc_out_v.weight"],
        "orgin_linear_change.0.weight": shapes["orgin_linear_change.0.weight"],
        **{f"frame_dim_reshape_{index}.weight": shape for index, shape in enumerate(inputs)},
    }
    faults = [
        f"{key}: expected 2 dimensions, got {list(shape)}"
        for key, shape in two_dimensional.items()
        if len(shape) != 2
    ]
    if faults:
        raise PublishedWeightsError(_message(faults))
    return NetworkSpec(
        audio_dim=inputs[0][1],
        text_dim=inputs[1][1],
        video_dim=inputs[2][1],
        hidden_dim=inputs[0][0],
        fused_dim=shapes["fc_out_v.weight"][1],
        rnc_dim=shapes["orgin_linear_change.0.weight"][0],
        weights="raw",
        mia="off" if variant == "released" else "text",
        mia_residual="transition",
        bounded=False,
        quantiles=None,
    )


def _convert(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {ours: tensors[theirs] for ours, theirs in _names().items()}
    for index in range(3):
        context = tensors[f"fra2utt_{index}.attention_context_vector"]
        state[f"projections.{index}.context"] = context.flatten()
    layers = [f"cross_{query}_query_mlp.0" for query in _QUERIES]
    shapes = {tuple(tensors[f"{layer}.{part}"].shape) for layer in layers for part in ("weight",)}
    if len(shapes) != 1:
        found = ", ".join(f"{layer} {list(tensors[f'{layer}.weight'].shape)}" for layer in layers)
        raise PublishedWeightsError(f"query layers differ in shape: {found}")
    state["fusion.queries.weight"] = torch.stack([tensors[f"{layer}.weight"].T for layer in layers])
    state["fusion.queries.bias"] = torch.stack([tensors[f"{layer}.bias"][None] for layer in layers])
    return state


def _published_name(ours: str) -> str:
    return _names().get(ours, ours)


def _message(faults: list[str]) -> str:
    return f"not the published network's weights, {len(faults)} fault(s): " + "; ".join(faults)
