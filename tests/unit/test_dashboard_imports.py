"""Clients know the wire only; the dashboard's capture is the one exception, and says why."""

import ast
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "clients"


def foreign(path: Path) -> set[str]:
    """Modules of the product beside the clients and the wire that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {name for name in names if name.split(".")[0] in ("engine", "models", "trainer")}
    return {name for name in found if not f"{name}.".startswith("engine.wire.")}


def test_only_the_capture_reaches_beyond_the_wire() -> None:
    reaching = {path.relative_to(CLIENTS).as_posix() for path in CLIENTS.rglob("*.py")
                if foreign(path)}  # fmt: skip
    assert reaching == {"dashboard/capture.py"}
    capture = CLIENTS / "dashboard" / "capture.py"
    assert all(n.startswith(("engine.capture", "engine.settings")) for n in foreign(capture))
    assert "one file of the clients" in (ast.get_docstring(ast.parse(capture.read_text())) or "")
