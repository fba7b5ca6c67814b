"""Brings a published recogniser in: its weights, tokens and licence, checked by their sha256."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import digest
from models.pretrained import PretrainedError, load
from models.recogniser.network import Recogniser
from models.recogniser.ort_format import OrtFormatError, OrtModel
from models.recogniser.shape import RecogniserShape

ENCODER, DECODER, TOKENS = "encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"
PINNED: Mapping[str, str] = {
    ENCODER: "9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c",
    DECODER: "370e0c1f161d68dc1c2264c1a82024fb123380da3b73f47f05531d1e8d3308c3",
    TOKENS: "04670d78994d030185c3dd843c60591788fed0a56cc6750747bd326825f13ca9",
}
"""The base English model as the package moonshine-cpp 0.1.4 ships it (MIT)."""
BYTES_END = 3 + 256
"""Tokens before this one are the special ones, then one for each byte."""
RENAMED = {"dense": "o_proj", "up_proj": "fc1", "down_proj": "fc2"}
LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
WEIGHT = re.compile(r"^/(?:model/)?(?P<path>[\w./]+)/MatMul_output_0$")
STORED = re.compile(
    r"^(?:model\.)?(?P<path>[\w.]+\.(?:weight|bias))(?:_merged_0)?$",
)


@dataclass(frozen=True, eq=False)
class Imported:
    """A recogniser that was read in."""

    network: Recogniser
    tokens: tuple[str, ...]
    """Text of every token, a space as in sentencepiece; ``<0xNN>`` is a byte."""
    licence: str
    """Text of its licence."""
    source: str
    """Where it comes from, for the card."""


def read(source: str) -> Imported:
    """Read a recogniser: a folder of the package's files, or a model by name.

    Raises:
        PretrainedError: files missing or altered, or no Moonshine model; expected and actual.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise PretrainedError(f"{source}: expected a folder or a model's name, no such folder")
        return _from_transformers(source)
    if (folder / "config.json").is_file():
        return _from_transformers(str(folder))
    found = {name: sorted(folder.rglob(name)) for name in PINNED}
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        raise PretrainedError(
            f"{folder}: expected config.json (a transformers model) or the package's files, "
            f"missing: {', '.join(missing)}"
        )
    paths = {name: candidates[0] for name, candidates in found.items()}
    for name, expected in PINNED.items():
        if (actual := digest(paths[name])) != expected:
            raise PretrainedError(f"{paths[name]}: sha256: expected {expected}, got {actual}")
    return _from_package(paths, folder)


def _from_package(paths: Mapping[str, Path], folder: Path) -> Imported:
    network = Recogniser(RecogniserShape())
    state = {
        **_state("encoder.", OrtModel(paths[ENCODER])),
        **_state("", OrtModel(paths[DECODER])),
    }
    fill(network, state, str(folder))
    table = read_token_table(paths[TOKENS].read_bytes())
    tokens = tuple(
        f"<0x{piece[0]:02X}>" if len(piece) == 1 and index < BYTES_END else piece.decode()
        for index, piece in enumerate(table)
    )
    return Imported(
        network,
        tokens,
        _licence(folder),
        "Moonshine base (English), Useful Sensors, as shipped in moonshine-cpp 0.1.4; weights of 8 "
        "bits, expanded and quantised per channel",
    )


def _state(prefix: str, model: OrtModel) -> dict[str, Tensor]:
    """Weights by the names that the network gives them."""
    state: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        state[prefix + name] = torch.from_numpy(value.astype("float32"))

    for name, value in model.constants():
        if match := STORED.match(name):
            path = ".".join(RENAMED.get(part, part) for part in match["path"].split("."))
            keep(path, value)
    for node in model.nodes:
        output = node.outputs[0] if node.outputs else ""
        if node.kind == "Conv":
            keep(f"{output.split('/')[1]}.weight", _constant(model, node.inputs[1]))
        elif output in {"/groupnorm/Mul_output_0", "/groupnorm/Add_output_0"}:
            kind = "weight" if node.kind == "Mul" else "bias"
            values = [v for v in map(model.value, node.inputs) if v is not None and v.size > 1]
            keep(f"groupnorm.{kind}", values[0].reshape(-1))
        elif node.kind == "Gather" and output.endswith("embed_tokens/Gather_output_0"):
            keep("decoder.embed_tokens.weight", _constant(model, node.inputs[0]))
        elif node.kind == "MatMul" and (match := WEIGHT.match(output)):
            weight = model.value(node.inputs[1])
            if weight is not None and weight.ndim == 2:
                parts = [RENAMED.get(part, part) for part in match["path"].split("/")]
                keep(".".join(parts) + ".weight", weight.T)
    return state


def _constant(model: OrtModel, name: str) -> Any:
    value = model.value(name)
    if value is None:
        raise OrtFormatError(f"{name}: expected a constant weight")
    return value


def fill(network: Recogniser, state: Mapping[str, Tensor], source: str) -> None:
    """Load published weights.

    Raises:
        PretrainedError: some are missing or of another size; the first of them.
    """
    own = network.state_dict()
    wrong = [
        f"{name}: expected {list(value.shape)}, got "
        f"{list(state[name].shape) if name in state else 'nothing'}"
        for name, value in own.items()
        if name not in state or state[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PretrainedError(f"{source}: weights: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({name: state[name] for name in own})
    network.eval()


def read_token_table(data: bytes) -> list[bytes]:
    """Read the package's token table: each token's length (1 or 2 bytes), then its bytes.

    Raises:
        PretrainedError: the last token is cut off.
    """
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128 and at < len(data):
            length += 128 * (data[at] - 1)
            at += 1
        if at + length > len(data):
            raise PretrainedError(f"{TOKENS}: cut off in token {len(tokens)}")
        tokens.append(data[at : at + length])
        at += length
    return tokens


def _licence(folder: Path) -> str:
    for directory in (folder, *folder.parents[:3]):
        for name in LICENCE_NAMES:
            if (directory / name).is_file():
                return (directory / name).read_text(encoding="utf-8")
    found = sorted(path for name in LICENCE_NAMES for path in folder.rglob(name))
    if not found:
        raise PretrainedError(f"{folder}: expected the licence's text ({LICENCE_NAMES[0]}) with it")
    return found[0].read_text(encoding="utf-8")


def _from_transformers(source: str) -> Imported:
    (config,) = load(source, "AutoConfig")
    if config.model_type != "moonshine":
        raise PretrainedError(f"{source}: expected a Moonshine model, got {config.model_type}")
    tokenizer, model = load(source, "AutoTokenizer", "AutoModelForSpeechSeq2Seq")
    network = Recogniser(shape_of(config, source))
    state = {name.removeprefix("model."): value for name, value in model.state_dict().items()}
    fill(network, state, source)
    tokens = tuple(tokenizer.convert_ids_to_tokens(range(network.shape.vocabulary)))
    folder = Path(source)
    licence = _licence(folder) if folder.is_dir() else f"See https://huggingface.co/{source}\n"
    return Imported(network, tokens, licence, source)


def shape_of(config: Any, source: str) -> RecogniserShape:
    """Sizes of a transformers Moonshine model.

    Raises:
        PretrainedError: it shares keys between heads, or turns half a pair of values.
    """
    heads = config.encoder_num_attention_heads
    others = (
        config.decoder_num_attention_heads,
        config.encoder_num_key_value_heads,
        config.decoder_num_key_value_heads,
    )
    if any(other != heads for other in others):
        raise PretrainedError(f"{source}: expected {heads} heads everywhere, got {list(others)}")
    head_dim = config.hidden_size // heads
    factor = (config.rope_parameters or {}).get("partial_rotary_factor", 0.9)
    rotary_dim = int(head_dim * factor)
    if rotary_dim % 2:
        raise PretrainedError(f"{source}: rotary width: expected an even one, got {rotary_dim}")
    return RecogniserShape(
        dim=config.hidden_size,
        heads=heads,
        encoder_layers=config.encoder_num_hidden_layers,
        decoder_layers=config.decoder_num_hidden_layers,
        feed_forward=config.intermediate_size,
        rotary_dim=rotary_dim,
        vocabulary=config.vocab_size,
    )
