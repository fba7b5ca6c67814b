"""A recogniser's four ONNX graphs, with weights of 8 bits.

Matrix products are quantised as they run (weights per column, activations per call), the
convolutions' weights only stored in 8 bits. The decoder's token table and its output head are
one matrix, held once.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.quantisation import look_up_whole, quantise_products, store
from models.recogniser.network import (
    CrossStates,
    DecoderStep,
    LowerEncoder,
    Recogniser,
    UpperEncoder,
)
from models.recogniser.shape import FIELD_SAMPLES, FRAME_SAMPLES

OPSET = 18
LOWER, UPPER, CROSS, DECODER = (
    "recogniser_lower.onnx",
    "recogniser_upper.onnx",
    "recogniser_cross.onnx",
    "recogniser_decoder.onnx",
)
TOKENS = "recogniser_tokens.json"
HEAD = "head"
"""Name of the decoder's shared matrix [dim, vocabulary]."""


def write_graphs(
    network: Recogniser,
    tokens: Sequence[str],
    folder: Path,
    layers: int,
    quantised: bool = True,
) -> None:
    """Write the graphs and the token table into ``folder``.

    Args:
        network: with its weights.
        tokens: text of each token.
        folder: exists.
        layers: of the encoder that the lower graph holds.
        quantised: 8 bits; float32 otherwise, to compare with.
    """
    shape = network.shape
    samples = torch.randn(2, FIELD_SAMPLES + 20 * FRAME_SAMPLES) * 0.1
    states = torch.randn(2, 21, shape.dim)
    cache = (2 * shape.decoder_layers, 2, shape.heads)
    past = torch.randn(*cache, 3, shape.head_dim)
    sound = torch.randn(*cache, 21, shape.head_dim)
    batch, some = torch.export.Dim("batch", min=1), torch.export.Dim.DYNAMIC
    network.eval()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".graphs-") as scratch:
        work = Path(scratch)
        sequence: dict[int, Any] = {0: batch, 1: some}
        _export(LowerEncoder(network, layers), (samples,), (sequence,), work / LOWER)
        _export(UpperEncoder(network, layers), (states,), (sequence,), work / UPPER)
        _export(CrossStates(network), (states,), (sequence,), work / CROSS)
        longer = {1: batch, 3: some}
        _export(
            DecoderStep(network),
            (torch.tensor([1, 2]), past, sound),
            ({0: batch}, longer, longer),
            work / DECODER,
        )
        for name in (LOWER, UPPER, CROSS, DECODER):
            if quantised:
                quantise(work / name, folder / name)
            else:
                (work / name).replace(folder / name)
    (folder / TOKENS).write_text(json.dumps(list(tokens), ensure_ascii=False) + "\n")


NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    LOWER: (("input",), ("frames",)),  # as every audio encoder
    UPPER: (("frames",), ("final",)),
    CROSS: (("final",), ("sound",)),
    DECODER: (("tokens", "past", "sound"), ("logits", "cache")),
}
"""Inputs and outputs of each graph."""


def _export(
    module: nn.Module, inputs: tuple[Any, ...], dynamic: tuple[Any, ...], path: Path
) -> None:
    input_names, output_names = NAMES[path.name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of what it is about to do anyway
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{path.name}: the exporter returned nothing")
    program.save(path, external_data=False)


def quantise(source: Path, target: Path) -> None:
    """Quantise a graph's matrix products, store its convolutions in 8 bits, share its head."""
    import onnx

    quantise_products(source, target)
    model = onnx.load(target)
    _share_head(model.graph)
    store(model.graph, {n.input[1] for n in model.graph.node if n.op_type == "Conv"}, axis=0)
    onnx.save(model, target)


def _share_head(graph: Any) -> None:
    """Look tokens up in the quantised head: drops the float copy that the table would keep."""
    if look_up_whole(graph, HEAD):
        (table,) = [item for item in graph.initializer if item.name == HEAD]
        graph.initializer.remove(table)
