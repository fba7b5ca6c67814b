"""Makes a published speech recogniser's graphs, tokens and licence ready for a bundle."""

from __future__ import annotations

from pathlib import Path

from models.pretrained import PretrainedError
from models.recogniser import export, importing

LICENCE, ORIGIN = "LICENSE.recogniser", "recogniser.md"


def import_recogniser(
    source: str, out: Path, layers: int = 4, quantised: bool = True
) -> dict[str, int]:
    """Write the files; return each one's bytes.

    Raises:
        PretrainedError: the source is no Moonshine model, incomplete or altered, or has fewer
            layers.
    """
    imported = importing.read(source)
    most = imported.network.shape.encoder_layers
    if layers >= most:
        raise PretrainedError(f"layers: expected 1 to {most - 1}, got {layers}")
    out.mkdir(parents=True, exist_ok=True)
    export.write_graphs(imported.network, imported.tokens, out, layers, quantised)
    (out / LICENCE).write_text(imported.licence, encoding="utf-8")
    precision = "8-bit" if quantised else "float32"
    (out / ORIGIN).write_text(
        f"# Recogniser\n\n{imported.source}.\n\nSplit after layer {layers} of {most}, {precision} "
        f"weights. Its licence is in {LICENCE}.\n",
        encoding="utf-8",
    )
    names = (*export.NAMES, export.TOKENS, LICENCE, ORIGIN)
    return {name: (out / name).stat().st_size for name in names}
