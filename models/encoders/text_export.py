"""Makes a text encoder's ONNX graph: the transformers model with its tuned updates merged."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.pretrained import PretrainedError, hidden_state
from models.quantisation import quantise_products, store_table
from models.spec import TextEncoderSpec
from models.text_encoders import TextEncoder

GRAPH, TOKENIZER = "text_encoder.onnx", "tokenizer.json"
OPSET = 18


class TextEncoderGraph(nn.Module):
    """Token ids and mask [B, T] to the states [B, T, D] of one layer."""

    def __init__(self, model: nn.Module, spec: TextEncoderSpec) -> None:
        super().__init__()
        self.model = model
        self.spec = spec

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode."""
        output = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        states: Tensor = hidden_state(output.hidden_states, self.spec.layer, self.spec.source)
        return states


def write_text_encoder(encoder: TextEncoder, folder: Path) -> TextEncoderSpec:
    """Write the graph and the tokenizer into ``folder``; return the spec that names them.

    Raises:
        PretrainedError: the tokenizer is not one of the ``tokenizers`` library.
    """
    tokenizer = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise PretrainedError(
            f"{encoder.spec.source}: expected a tokenizer of the tokenizers library, got "
            f"{type(encoder.tokenizer).__name__}"
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".text-") as scratch:
        whole = Path(scratch) / GRAPH
        _export(TextEncoderGraph(encoder.model, encoder.spec), whole)
        quantise_products(whole, folder / GRAPH)
    _finish(folder / GRAPH, tokenizer.get_vocab_size())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER))
    return encoder.spec.model_copy(update={"tokenizer": TOKENIZER, "adapter": None})


def _export(module: nn.Module, path: Path) -> None:
    ids = torch.randint(0, 10, (2, 9))
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of what it is about to do anyway
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            (ids, mask),
            dynamo=True,
            dynamic_shapes=(axes, axes),
            input_names=["ids", "mask"],
            output_names=["frames"],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"{path.name}: the exporter returned nothing")
    program.save(path, external_data=False)


def _finish(path: Path, vocabulary: int) -> None:
    """Store the table of words in 8 bits, and note how many words the tokenizer must have."""
    import onnx

    model = onnx.load(path)
    tables = {
        item.name
        for item in model.graph.initializer
        if len(item.dims) == 2 and item.name.endswith("word_embeddings.weight")
    }
    for name in tables:
        store_table(model.graph, name)
    model.metadata_props.add(key="vocabulary", value=str(vocabulary))
    onnx.save(model, path)
