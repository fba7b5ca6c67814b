"""What is trained for the tables: the full model and what is taken away from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.recipe import RecipeError

Table = Literal["main", "ablation", "missing", "noise"]
TABLES: tuple[Table, ...] = ("main", "ablation", "missing", "noise")
FULL = "full"


@dataclass(frozen=True)
class Variant:
    """A recipe that differs from the full model's by a few settings."""

    name: str
    title: str
    overrides: tuple[str, ...] = ()


ABLATIONS = (
    Variant("no-mia", "without MIA", ("network.mia=off",)),
    Variant(
        "no-distillation",
        "without distillation",
        ("loss.text_query=0.0", "loss.text_cross=0.0", "loss.fused=0.0"),
    ),
    Variant("no-rnc", "without RnC", ("loss.rnc=0.0",)),
    Variant("no-umca", "without UMCA (concatenation)", ("network.fusion=concat",)),
)
FULL_VARIANT = Variant(FULL, "full model")


def parse_variant(text: str) -> Variant:
    """``NAME:KEY=VALUE;KEY=VALUE`` of the command line.

    Raises:
        RecipeError: of another form.
    """
    name, separator, settings = text.partition(":")
    overrides = tuple(part.strip() for part in settings.split(";") if part.strip())
    if not separator or not name.strip() or not overrides or any("=" not in o for o in overrides):
        raise RecipeError(f"--variant: expected NAME:KEY=VALUE;KEY=VALUE, got {text!r}")
    return Variant(name.strip(), name.strip(), overrides)


def variants(table: Table, extra: tuple[Variant, ...] = ()) -> tuple[Variant, ...]:
    """What a table needs trained, the full model first."""
    return (FULL_VARIANT, *ABLATIONS, *extra) if table == "ablation" else (FULL_VARIANT,)
