"""Reading a stranger's map: every field with its type and range checked, or one clear error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=str)

INT64_MAX = 2**63 - 1
MAX_ENTRIES = 256
PLAIN_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


class WireError(Exception):
    """A message that is not by the protocol, or a socket that cannot be had; one line."""


class Fields:
    """Typed reading of a decoded msgpack map; ``place`` names it in errors."""

    __slots__ = ("_map", "_place")

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self._map = values
        self._place = place

    @staticmethod
    def of(values: object, place: str) -> Fields:
        """Take a value that has to be a map with text keys."""
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise WireError(f"{place}: expected a map with text keys, got {_kind(values)}")
        return Fields(values, place)

    def has(self, name: str) -> bool:
        """Whether a field is there and not nil."""
        return self._map.get(name) is not None

    def integer(self, name: str, low: int = 0, high: int = INT64_MAX) -> int:
        """An integer in [low, high]."""
        value = self._map.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self._error(name, f"an integer in [{low}, {high}]", value)
        return value

    def number(self, name: str, low: float = -1e12, high: float = 1e12) -> float:
        """A finite number in [low, high]."""
        value: Any = self._map.get(name)
        is_number = isinstance(value, float | int) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and low <= value <= high:
            return float(value)
        raise self._error(name, f"a number in [{low:g}, {high:g}]", value)

    def optional_number(self, name: str, low: float = -1e12, high: float = 1e12) -> float | None:
        """A finite number in [low, high], or nil."""
        return self.number(name, low, high) if self.has(name) else None

    def optional_integer(self, name: str, low: int = 0, high: int = INT64_MAX) -> int | None:
        """An integer in [low, high], or nil."""
        return self.integer(name, low, high) if self.has(name) else None

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._map.get(name)
        if type(value) is not bool:
            raise self._error(name, "true or false", value)
        return value

    def text(self, name: str, longest: int = 256) -> str:
        """A text of at most ``longest`` characters."""
        value = self._map.get(name)
        if type(value) is not str or len(value) > longest:
            raise self._error(name, f"a text of at most {longest} characters", value)
        return value

    def optional_text(self, name: str, longest: int = 256) -> str | None:
        """A text, or nil."""
        return self.text(name, longest) if self.has(name) else None

    def choice(self, name: str, choices: tuple[Choice, ...]) -> Choice:
        """One of a few texts."""
        value = self._map.get(name)
        for known in choices:
            if value == known:
                return known
        raise self._error(name, f"one of {', '.join(choices)}", value)

    def map(self, name: str) -> Fields:
        """A map within the map."""
        return Fields.of(self._map.get(name), f"{self._place}.{name}")

    def items(self, name: str, longest: int) -> list[Any]:
        """A list of at most ``longest`` items."""
        value = self._map.get(name)
        if type(value) is not list or len(value) > longest:
            raise self._error(name, f"a list of at most {longest} items", value)
        return value

    def numbers(self, name: str) -> dict[str, float]:
        """A map of at most 256 plain names to finite numbers."""
        inner = self._named(name)
        return {key: inner.number(key) for key in inner._map}

    def integers(self, name: str) -> dict[str, int]:
        """A map of at most 256 plain names to integers from 0."""
        inner = self._named(name)
        return {key: inner.integer(key) for key in inner._map}

    def _named(self, name: str) -> Fields:
        """A map whose keys are safe to repeat in an error, a log or a metric."""
        inner = self.map(name)
        if len(inner._map) > MAX_ENTRIES or not all(map(PLAIN_NAME.fullmatch, inner._map)):
            expected = f"at most {MAX_ENTRIES} names of letters, digits and underscores"
            raise self._error(name, expected, inner._map)
        return inner

    def _error(self, name: str, expected: str, value: object) -> WireError:
        return WireError(f"{self._place}.{name}: expected {expected}, got {_kind(value)}")


def _kind(value: object) -> str:
    """A stranger's value in a few words: numbers whole, of all else the type and size alone."""
    if value is None:
        return "nil"
    if isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str | bytes | list | dict):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
