"""Checks untrusted maps by a struct's types: an error is one line without their text."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from models.errors import UserError

Shape = TypeVar("Shape", bound=Struct)

_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>\w+)`")
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+|\.\.\.)\]")


class WireError(UserError):
    """A message that breaks the protocol, or a socket that cannot be used; one line."""


def convert(values: object, kind: type[Shape], place: str) -> Shape:
    """Make a struct of decoded values; unknown keys are ignored.

    Raises:
        WireError: names the field, expected and actual.
    """
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise WireError(explain(error, values, kind, place)) from None


def explain(error: Exception, values: object, kind: Any, place: str) -> str:
    """Say in our words where and why ``values`` do not make a ``kind``.

    msgspec's own words may repeat a value, which can be what somebody said; of them only the
    place is taken, and that holds names of our own fields.
    """
    message = str(error)
    found = _PLACE.search(message)
    path = "" if found is None else found["path"]
    if found is not None and found["key"]:
        path += "[...]"
    if (missing := _MISSING.match(message)) is not None:
        path += f".{missing['name']}"
    steps = [m["name"] or m["index"] for m in _STEP.finditer(path)]
    wanted = type_at(kind, steps)
    expected = "another value" if wanted is None else expectation(wanted)
    if message.startswith("expected "):  # a rule of a struct of ours, which repeats nothing
        expected = message.removeprefix("expected ").partition(" - at ")[0]
    shown = "".join(f".{step}" if step.isidentifier() else f"[{step}]" for step in steps)
    return f"{place}{shown}: expected {expected}, got {describe(value_at(values, steps))}"


def type_at(kind: Any, steps: list[str]) -> Any:
    """Type of the field that ``steps`` lead to; None where they leave what is known."""
    for step in steps:
        kind, _ = bare(kind)
        if isinstance(kind, type) and issubclass(kind, Struct):
            if kind.__struct_config__.array_like and step.isdigit():
                step = kind.__struct_fields__[int(step)]
            names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
            kind = get_type_hints(kind, include_extras=True).get(names.get(step, step))
        else:
            inner = [arg for arg in get_args(kind) if arg is not ...]
            kind = inner[-1] if inner else None
        if kind is None:
            return None
    return kind


def value_at(values: Any, steps: list[str]) -> Any:
    """Value that ``steps`` lead to; None where there is none."""
    for step in steps:
        if isinstance(values, dict):
            values = values.get(step)
        elif isinstance(values, list) and step.isdigit() and int(step) < len(values):
            values = values[int(step)]
        else:
            return None
    return values


def bare(kind: Any) -> tuple[Any, Meta | None]:
    """A type without ``| None`` and ``Annotated``, and its bounds."""
    meta = None
    while True:
        if get_origin(kind) is Annotated:
            kind, *extra = get_args(kind)
            meta = next((item for item in extra if isinstance(item, Meta)), meta)
        elif get_origin(kind) in (Union, UnionType):
            kind = next(arg for arg in get_args(kind) if arg is not NoneType)
        else:
            return kind, meta


def optional(kind: Any) -> bool:
    """Whether a type allows None."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind)


def expectation(kind: Any) -> str:
    """A type and its range in words, for errors and for the protocol's page."""
    plain, meta = bare(kind)
    nil = " or nil" if optional(kind) else ""
    if get_origin(plain) is Literal:
        choices = ", ".join(str(choice) for choice in get_args(plain))
        return f"{'one of ' if len(get_args(plain)) > 1 else ''}{choices}{nil}"
    if plain is bool:
        return f"true or false{nil}"
    if plain in (int, float):
        low, high = (None, None) if meta is None else (meta.ge, meta.le)
        noun = "an integer" if plain is int else "a number"
        return f"{noun} in [{low:g}, {high:g}]{nil}" if plain is float else (
            f"{noun} in [{low}, {high}]{nil}"
        )  # fmt: skip
    if plain is str:
        if meta is not None and meta.pattern is not None:
            return f"a name of letters, digits and underscores{nil}"
        longest = None if meta is None else meta.max_length
        return f"a text of at most {longest} characters{nil}"
    if isinstance(plain, type) and issubclass(plain, Struct):
        if plain.__struct_config__.array_like:
            return f"a list of {', '.join(plain.__struct_fields__)}{nil}"
        return f"a map with text keys{nil}"
    most = "" if meta is None else f" of at most {meta.max_length}"
    return f"{'a map' if get_origin(plain) is dict else 'a list'}{most}{nil}"


def describe(value: object) -> str:
    """A value from outside in a few words: numbers whole, of all else the type and size alone."""
    if value is None:
        return "nil"
    if isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str | bytes | list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
