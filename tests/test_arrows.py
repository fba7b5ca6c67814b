"""Who may import whom: the arrows between the packages, and within the engine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("engine", "models", "trainer", "clients")
FORBIDDEN = {
    "models": ("engine", "trainer", "clients"),
    "engine": ("trainer", "clients"),
    "trainer": ("clients",),
    "clients": ("models", "trainer"),
    # Devices know no models, models know no devices; they meet on the wire.
    "engine/capture": ("engine.inference", "engine.backends", "engine.cluster", "engine.terminal"),
    "engine/inference": ("engine.capture", "engine.cluster", "engine.terminal"),
    "engine/backends": ("engine.capture", "engine.inference", "engine.wire", "engine.cluster"),
    "engine/wire": (
        "engine.backends",
        "engine.capture",
        "engine.cluster",
        "engine.inference",
        "engine.settings",
        "engine.terminal",
    ),
}
WITHOUT_TORCH = ("engine/wire", "engine/capture", "clients")


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, packages: tuple[str, ...]) -> bool:
    return f"{name}.".startswith(tuple(f"{package}." for package in packages))


def files(package: str) -> list[Path]:
    found = sorted((REPOSITORY / package).rglob("*.py"))
    assert found, package
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    for path in files(package):
        wrong = {name for name in imported(path) if within(name, FORBIDDEN[package])}
        assert not wrong, f"{path}: {wrong}"


def test_clients_know_the_wire_alone() -> None:
    for path in files("clients"):
        names = {name for name in imported(path) if within(name, OURS)}
        beyond = {name for name in names if not within(name, ("clients", "engine.wire"))}
        assert not beyond, f"{path}: {beyond}"


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_capture_wire_and_clients_need_no_torch(package: str) -> None:
    for path in files(package):
        assert not {name for name in imported(path) if within(name, ("torch",))}, path
