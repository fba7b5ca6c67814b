"""Who may import whom; clients know the wire, and two places say why they know more."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FORBIDDEN = {
    "models": ("engine", "trainer", "clients"),
    "engine": ("trainer", "clients"),
    "trainer": ("clients",),
}
BEYOND_THE_WIRE = {
    # What draws scores in a terminal is the engine's own, and knows nothing but the wire.
    "watch.py": {"engine.terminal.render"},
    # Puts the dashboard together: the server takes the engine's browser capture as an argument.
    "dashboard/launch.py": {"engine.capture.browser.session"},
}


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = {n for n in imported(path) if n.split(".")[0] in FORBIDDEN[package]}
        assert not wrong, f"{path}: {wrong}"


def test_clients_know_the_wire_alone() -> None:
    ours = ("engine", "models", "trainer")
    clients = REPOSITORY / "clients"
    beyond = {}
    for path in clients.rglob("*.py"):
        names = {n for n in imported(path) if n.split(".")[0] in ours}
        names = {n for n in names if not f"{n}.".startswith("engine.wire.")}
        if names:
            beyond[path.relative_to(clients).as_posix()] = names
    assert beyond == BEYOND_THE_WIRE
